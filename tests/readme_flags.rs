//! README's settings table and the command line say the same: each flag of `run` is in the table, and each flag in the
//! table is one of a command. Environment and keys follow from the flags by one rule, which README states.

use std::collections::BTreeSet;

/// Each `--flag` in a text.
fn flags_in(text: &str) -> BTreeSet<String> {
    text.split("--")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>())
        .map(|flag| flag.trim_end_matches('-').to_owned())
        .filter(|flag| !flag.is_empty())
        .collect()
}

fn flags_of(command: &clap::Command) -> BTreeSet<String> {
    command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set())
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

#[test]
fn readme_lists_every_flag_and_no_other() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("README.md stands beside Cargo.toml");
    let command = leasehold::config::command();
    let run = flags_of(command.find_subcommand("run").expect("run"));
    let table: String = readme
        .lines()
        .filter(|line| line.starts_with("| `--"))
        .map(|line| line.split('|').nth(1).unwrap_or("").to_owned() + "\n")
        .collect();
    let table = flags_in(&table);
    let missing: Vec<_> = run.difference(&table).collect();
    assert!(missing.is_empty(), "README's table lacks {missing:?}");
    let extra: Vec<_> = table.difference(&run).collect();
    assert!(extra.is_empty(), "README's table has flags that run lacks: {extra:?}");
    for word in ["LEASEHOLD_VAULT_ADDR", "`[vault] addr`", "--vault-addr"] {
        assert!(readme.contains(word), "README does not state the rule for names with {word}");
    }
}

#[test]
fn flags_are_found_in_a_text() {
    let found = flags_in("| `--listen` (a list), `--log-level`, `--log-format` | x--");
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["listen", "log-format", "log-level"]);
}
