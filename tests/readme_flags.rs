//! What the documents say of the command line is true: each flag that they name is one of a command, README's configuration is
//! one that `check` takes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Each `--flag` in a text.
fn flags_in(text: &str) -> BTreeSet<String> {
    text.split("--")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>())
        .map(|flag| flag.trim_end_matches('-').to_owned())
        .filter(|flag| !flag.is_empty())
        .collect()
}

/// The flags of all commands.
fn known() -> BTreeSet<String> {
    let command = leasehold::command();
    let long = |command: &clap::Command| -> Vec<String> {
        command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
    };
    command.get_subcommands().flat_map(long).collect()
}

/// The code of a document that begins with a flag or with leasehold itself; other programs have flags of their own.
fn code_of(document: &str) -> String {
    let blocks = document.lines().filter(|line| line.trim_start().starts_with("leasehold "));
    let spans = document.split('`').skip(1).step_by(2);
    let ours = spans.filter(|span| span.starts_with("--") || span.starts_with("leasehold "));
    blocks.chain(ours).fold(String::new(), |text, piece| text + piece + "\n")
}

#[test]
fn the_documents_name_no_flag_that_is_not_there() {
    let known = known();
    let mut named = 0;
    for document in [
        "README.md",
        "SECURITY.md",
        "docs/alerts.md",
        "docs/apps.md",
        "docs/fleet.md",
        "docs/migration.md",
        "docs/pools.md",
        "docs/troubleshooting.md",
        "docs/operations.md",
        "docs/routes.md",
        "docs/vault.md",
        "docs/guarantees.md",
    ] {
        let text = fs::read_to_string(Path::new(ROOT).join(document)).expect("the document");
        let flags = flags_in(&code_of(&text));
        let unknown: Vec<_> = flags.difference(&known).collect();
        assert!(unknown.is_empty(), "{document} names {unknown:?}");
        named += flags.len();
    }
    assert!(named > 15, "{named} flags are named");
}

#[test]
fn the_configuration_of_the_readme_is_one_that_check_takes() {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("README.md");
    let toml =
        readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of TOML");
    // The certificate is the reader's own.
    let toml = toml.replace("?sslrootcert=/etc/pg/ca.crt", "?sslmode=disable");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme.toml");
    fs::write(&file, toml).expect("a file in the target directory can be written");
    let checked = Command::new(env!("CARGO_BIN_EXE_leasehold"))
        .args(["policy", "--config"])
        .arg(&file)
        .env_clear()
        .output()
        .expect("leasehold runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("database/creds/app-role"));
}

#[test]
fn flags_are_found_in_a_text() {
    let found = flags_in("| `--listen` (a list), `--log-level`, `--log-format` | x--");
    let found: Vec<_> = found.iter().map(String::as_str).collect();
    assert_eq!(found, ["listen", "log-format", "log-level"]);
    let code = code_of("a `--drain` b `cargo --release` c\n    leasehold run --upstream x\n");
    assert_eq!(code, "    leasehold run --upstream x\n--drain\n");
}
