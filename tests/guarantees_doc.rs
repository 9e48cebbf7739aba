//! The documents do not point to nothing: every test that they name as a proof is there, and runs; every link leads to a file,
//! and to a heading of it.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn tests_that_the_guarantees_name_are_there() {
    all_named_are_there("docs/guarantees.md", 30);
}

#[test]
fn tests_that_the_security_page_names_are_there() {
    all_named_are_there("SECURITY.md", 5);
}

#[test]
fn tests_that_the_pains_name_are_there() {
    let text = all_named_are_there("docs/pains.md", 30);
    let bare: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.starts_with("| ") && !line.starts_with("| pain |") && !line.starts_with("| trap |")
        })
        .filter(|line| !line.split('`').any(is_test))
        .collect();
    assert!(bare.is_empty(), "without a test: {bare:#?}");
}

/// Looks for each test that a document names, which are at least so many; gives its text.
fn all_named_are_there(document: &str, at_least: usize) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join(document)).expect("the document");
    let named: Vec<&str> = text.split('`').skip(1).step_by(2).filter(|word| is_test(word)).collect();
    assert!(named.len() >= at_least, "{} tests are named", named.len());
    let missing: Vec<&&str> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "{document} names what is no test: {missing:#?}");
    text
}

#[test]
fn a_test_that_is_not_there_is_missed() {
    assert!(is_test("session::race::nothing_of_the_kind") && !is_there("session::race::nothing_of_the_kind"));
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
    let places = ["tests/it/M.rs", "tests/M.rs", "src/M.rs"].map(|place| place.replace('M', &module));
    let beside = "src/M.rs".replace('M', within);
    places
        .iter()
        .chain([&beside])
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

#[test]
fn every_dependency_has_its_reason() {
    let read = |name: &str| fs::read_to_string(Path::new(ROOT).join(name)).expect("a file of the repository");
    let manifest = read("Cargo.toml");
    let dependencies: BTreeSet<&str> = manifest
        .split("\n[")
        .filter(|section| section.starts_with("dependencies]") || section.starts_with("dev-dependencies]"))
        .flat_map(|section| section.lines().filter_map(|line| line.split_once(" = ")))
        .map(|(name, _)| name)
        .collect();
    assert!(dependencies.len() > 30, "only {dependencies:?}");
    let document = read("docs/dependencies.md");
    let rows = document.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| crate |"));
    let named: BTreeSet<&str> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|names| names.split(','))
        .map(|name| name.trim().trim_end_matches(" (tests)"))
        .collect();
    assert_eq!(named, dependencies);
}

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 8, "{documents:?}");
    let mut links = 0;
    let mut broken = Vec::new();
    for document in &documents {
        let text = fs::read_to_string(document).expect("the document");
        for link in links_of(&text) {
            links += 1;
            if !leads_somewhere(document, link) {
                broken.push(format!("{}: {link}", document.display()));
            }
        }
    }
    assert!(links > 30, "{links} links");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let readme = Path::new(ROOT).join("README.md");
    assert_eq!(links_of("a [b](c.md#d), [e](https://x.y/z) and [f](#g)"), ["c.md#d", "#g"]);
    assert!(leads_somewhere(&readme, "docs/guarantees.md#p1-no-password-in-the-app"));
    for link in ["docs/nothing.md", "docs/guarantees.md#nothing", "#nothing"] {
        assert!(!leads_somewhere(&readme, link), "{link}");
    }
}

/// The Markdown files of the top and of `docs/`.
fn documents() -> Vec<PathBuf> {
    ["", "docs"]
        .iter()
        .filter_map(|folder| fs::read_dir(Path::new(ROOT).join(folder)).ok())
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// The links of a text to other files and to headings; not those to other hosts.
fn links_of(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(link, _)| link))
        .filter(|link| !link.contains("://") && !link.contains(char::is_whitespace))
        .collect()
}

fn leads_somewhere(document: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let beside = document.parent().expect("a document stands in a folder");
    let target = if file.is_empty() { document.to_owned() } else { beside.join(file) };
    if heading.is_empty() {
        return target.exists();
    }
    fs::read_to_string(target).is_ok_and(|text| anchors(&text).contains(heading))
}

/// The anchors that a heading gets: lower case, hyphens for spaces, nothing but letters, digits, hyphens and underscores.
fn anchors(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
