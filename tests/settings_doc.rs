//! `docs/settings.md` is made from the command line's own definition, and differs from it in no word.
//!
//! `UPDATE=1 cargo test --test settings_doc` writes it anew.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;

use clap::{Arg, Command};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/settings.md");

const HEAD: &str = "\
# Settings

Made from the code by `UPDATE=1 cargo test --test settings_doc`.

One rule for names: the flag `--vault-addr` is the variable `LEASEHOLD_VAULT_ADDR` and the key `[vault] addr` of the file; a flag
without a table in front, such as `--log-level`, is `LEASEHOLD_LOG_LEVEL` and `log_level` at the top. A flag beats the variable, the
variable beats the key of the file, the key beats Vault's own variables (`BAO_…`, then `VAULT_…`). Durations are written `500ms`,
`2m`, `1h30m`; lists with commas, in the file as TOML lists; switches as `--listen-public` or `--listen-public=false`. No flag,
variable or key holds a password. A wrong value ends the process before anything is bound, with the place, the key and the reason.
A `LEASEHOLD_…` variable that no setting reads is warned of at the start, with the name that was probably meant.

Several routes are written in the file: [routes.md](routes.md). Known, and refused as not yet supported: `[tls]`, and the route keys
`warm`, `reuse`, `tag_application_name`.
";

#[test]
fn settings_are_those_of_the_code() {
    let made = document(&leasehold::config::command());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(FILE, &made).expect("docs/settings.md can be written");
        return;
    }
    let Ok(written) = std::fs::read_to_string(FILE) else {
        // A packaged source without its docs has nothing to compare.
        return;
    };
    let differs = made.lines().zip(written.lines()).find(|(made, written)| made != written);
    assert_eq!(differs, None, "UPDATE=1 cargo test --test settings_doc");
    assert_eq!(made.len(), written.len(), "UPDATE=1 cargo test --test settings_doc");
}

fn document(command: &Command) -> String {
    let mut text = HEAD.to_owned();
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let run = command.get_name() == "run";
        write!(text, "\n## `leasehold {}`\n\n{about}.\n", command.get_name()).expect("a String takes it");
        let mut heading = None;
        for (position, argument) in shown(command).enumerate() {
            let begins = argument.get_help_heading();
            if position == 0 || begins != heading {
                heading = begins;
                if let Some(heading) = heading {
                    write!(text, "\n### {heading}\n").expect("a String takes it");
                }
                text.push_str(if run { RUN_TABLE } else { COMMAND_TABLE });
            }
            text.push_str(&row(argument, run));
        }
    }
    text
}

const RUN_TABLE: &str = "\n| flag | variable | key | meaning | default |\n|---|---|---|---|---|\n";
const COMMAND_TABLE: &str = "\n| argument | meaning | default |\n|---|---|---|\n";

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = ["help", "version"];
    command
        .get_arguments()
        .filter(move |argument| !argument.is_hide_set() && !own.contains(&argument.get_id().as_str()))
}

fn row(argument: &Arg, run: bool) -> String {
    let (meaning, default) = meaning(argument);
    let Some(flag) = argument.get_long() else {
        let name = argument.get_id().as_str().to_uppercase();
        return format!("| `{name}` | {meaning} | {default} |\n");
    };
    let takes = argument.get_action().takes_values();
    let value = argument.get_value_names().and_then(<[_]>::first).filter(|_| takes);
    let optional = argument.get_num_args().is_some_and(|count| count.min_values() == 0);
    let value = match value {
        Some(value) if optional => format!("[={value}]"),
        Some(value) => format!(" {value}"),
        None => String::new(),
    };
    if run {
        let variable = flag.to_uppercase().replace('-', "_");
        format!(
            "| `--{flag}{value}` | `LEASEHOLD_{variable}` | {} | {meaning} | {default} |\n",
            key(flag, argument)
        )
    } else {
        format!("| `--{flag}{value}` | {meaning} | {default} |\n")
    }
}

/// The help without its `[default: …]`, and that. What would end a cell, or a tag, is escaped.
fn meaning(argument: &Arg) -> (String, String) {
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default().replace('\n', " ");
    let help = help.replace('|', "\\|").replace('<', "&lt;");
    let values = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect::<Vec<_>>();
    match help.split_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, values.join(",")),
    }
}

/// The key of the file, with its table.
fn key(flag: &str, argument: &Arg) -> String {
    let route = argument.get_help_heading().is_some_and(|heading| heading.starts_with("Route"));
    let tables = [
        ("vault-auth-", "[vault.auth] "),
        ("vault-", "[vault] "),
        ("limits-", "[limits] "),
        ("cancel-", "[cancel] "),
    ];
    let (table, name) = match tables.iter().find(|(prefix, _)| flag.starts_with(prefix)) {
        _ if flag == "config" => return "–".to_owned(),
        _ if route => ("[[route]] ", flag),
        Some((prefix, table)) => (*table, flag.trim_start_matches(prefix)),
        None => ("", flag),
    };
    format!("`{table}{}`", name.replace('-', "_"))
}
