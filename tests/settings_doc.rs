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

Several routes are written in the file: [routes.md](routes.md). Where traces go is said by OpenTelemetry's variables: [traces.md](traces.md).
";

#[test]
fn settings_are_those_of_the_code() {
    let made = document(&leasehold::command());
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
    text.push_str(&run_section(command));
    for command in command.get_subcommands() {
        // `check` and `policy` take what `run` takes.
        let own: Vec<&Arg> = shown(command).filter(|argument| !is_setting(argument)).collect();
        if ["help", "run"].contains(&command.get_name()) {
            continue;
        }
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        write!(text, "\n## `leasehold {}`\n\n{about}.{}\n", command.get_name(), taken(command))
            .expect("a String takes it");
        if !own.is_empty() {
            text.push_str("\n| argument | meaning | default |\n|---|---|---|\n");
        }
        for argument in own {
            text.push_str(&row(argument));
        }
    }
    text
}

/// Everything that `run` takes, from the table of settings.
fn run_section(command: &Command) -> String {
    let run = command.find_subcommand("run").expect("run");
    let about = run.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("\n## `leasehold run`\n\n{about}.\n");
    let mut heading = None;
    for setting in leasehold::settings().filter(|setting| setting.is_built()) {
        if heading != Some(setting.heading()) {
            heading = Some(setting.heading());
            write!(text, "\n### {}\n\n{RUN_TABLE}", setting.heading()).expect("a String takes it");
        }
        let (flag, variable) = if setting.is_flag() {
            (format!("`{}`", setting.usage()), format!("`{}`", setting.variable()))
        } else {
            ("–".to_owned(), "–".to_owned())
        };
        let key = setting.key().map_or_else(|| "–".to_owned(), |key| format!("`{key}`"));
        writeln!(
            text,
            "| {flag} | {variable} | {key} | {} | {} | {} |",
            escaped(&setting.help()),
            escaped(setting.default()),
            setting.on_reload()
        )
        .expect("a String takes it");
    }
    text
}

const RUN_TABLE: &str = "\
| flag | variable | key | meaning | default | a reload |
|---|---|---|---|---|---|
";

fn is_setting(argument: &Arg) -> bool {
    // `sessions --user` is a flag of its own, and has no variable.
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    leasehold::settings().any(|setting| help.contains(&format!("[env: {}]", setting.variable())))
}

/// Which settings a command takes beside its own arguments.
fn taken(command: &Command) -> &'static str {
    let settings = command.get_arguments().filter(|argument| is_setting(argument)).count();
    match settings {
        0 => "",
        1..=2 => " It also takes `--config` and `--admin`.",
        _ => " It also takes everything that `run` takes.",
    }
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    let own = ["help", "version"];
    command
        .get_arguments()
        .filter(move |argument| !argument.is_hide_set() && !own.contains(&argument.get_id().as_str()))
}

fn row(argument: &Arg) -> String {
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
    format!("| `--{flag}{value}` | {meaning} | {default} |\n")
}

/// The help without its `[default: …]`, and that.
fn meaning(argument: &Arg) -> (String, String) {
    let help = escaped(&argument.get_help().map(ToString::to_string).unwrap_or_default());
    let values = argument.get_default_values().iter().filter_map(|value| value.to_str()).collect::<Vec<_>>();
    match help.split_once(" [default: ") {
        Some((meaning, default)) => (meaning.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, values.join(",")),
    }
}

/// What would end a cell, or begin a tag, is escaped.
fn escaped(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;")
}
