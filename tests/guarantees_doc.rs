//! Every test that `docs/guarantees.md` and `docs/pains.md` name as a proof is there, and runs.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn tests_that_the_guarantees_name_are_there() {
    all_named_are_there("docs/guarantees.md");
}

#[test]
fn tests_that_the_pains_name_are_there() {
    let text = all_named_are_there("docs/pains.md");
    let bare: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.starts_with("| ") && !line.starts_with("| pain |") && !line.starts_with("| trap |")
        })
        .filter(|line| !line.split('`').any(is_test))
        .collect();
    assert!(bare.is_empty(), "without a test: {bare:#?}");
}

/// Looks for each test that a document names; gives its text.
fn all_named_are_there(document: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).expect("the document");
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|word| is_test(word)).collect();
    assert!(named.len() > 30, "{} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{document} names what is no test: {missing:#?}");
    text
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(is_test("session_race::nothing_of_the_kind") && !is_there("session_race::nothing_of_the_kind"));
    assert!(!is_there("nowhere::what_was_sent_to_a_session_closed_between_transactions_did_not_run"));
    assert!(!is_test("rotate --drain") && !is_test("lease_end_cut"));
}

/// Whether a word in code font is the path of a test.
fn is_test(word: &str) -> bool {
    word.contains("::")
        && !word.ends_with(':')
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:".contains(c))
}

/// Whether the module of that path, of the integration tests or of the library, has such a test.
fn is_there(path: &str) -> bool {
    let (module, name) = path.rsplit_once("::").expect("a path");
    let module = module.replace("::", "/");
    // Tests at the end of their module's own file.
    let within = module.strip_suffix("/tests").unwrap_or(&module);
    let places =
        ["tests/it/M.rs", "tests/M.rs", "src/M.rs", "src/M/mod.rs"].map(|place| place.replace('M', &module));
    let beside = ["src/M.rs", "src/M/mod.rs"].map(|place| place.replace('M', within));
    places
        .iter()
        .chain(&beside)
        .filter_map(|place| fs::read_to_string(Path::new(ROOT).join(place)).ok())
        .any(|source| is_run(&source, name))
}

/// Whether a function of this name stands right below a test attribute, and is not ignored.
fn is_run(source: &str, name: &str) -> bool {
    let wanted = format!("fn {name}(");
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().filter(|(_, line)| line.contains(&wanted)).any(|(at, _)| {
        let attributes: Vec<&&str> =
            lines.iter().take(at).rev().take_while(|line| line.starts_with('#')).collect();
        attributes.iter().any(|line| line.contains("test"))
            && !attributes.iter().any(|line| line.contains("ignore"))
    })
}
