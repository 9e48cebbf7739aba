//! An error's text leaves its source out: whoever prints it prints the chain, and would say everything twice.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn no_error_repeats_its_source() {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut files);
    let mut texts = 0;
    let mut faults = Vec::new();
    for file in files {
        let source = fs::read_to_string(&file).expect("a source file");
        for (text, variant) in errors_of(&source) {
            texts += 1;
            if repeats(text, variant) {
                faults.push(format!("{}: {text}", file.display()));
            }
        }
    }
    assert!(texts > 50, "{texts} errors were found");
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn an_error_that_repeats_its_source_is_found() {
    for (code, wrong) in [
        ("#[error(\"cannot read {path}: {source}\")]\nIo { path: String, source: io::Error },", true),
        ("#[error(\"{what} {}: {source}\", .path.display())]\nIo { source: io::Error },", true),
        ("#[error(\"cannot start: {0}\")]\nThread(#[source] io::Error),", true),
        ("#[error(\"cannot write: {0}\")]\nOutput(#[from] io::Error),", true),
        ("#[error(\"{0}\")]\nNegative(String),", false),
        ("#[error(\"mode {0:03o}\")]\nOpen(u32),\n#[error(\"other\")]\nOther(#[source] io::Error),", false),
        ("#[error(\"cannot read {path}\")]\nIo { path: String, #[source] source: io::Error },", false),
        ("#[error(transparent)]\nConfig(#[from] config::Error),", false),
    ] {
        let found = errors_of(code).iter().any(|(text, variant)| repeats(text, variant));
        assert_eq!(found, wrong, "{code}");
    }
}

/// Each text of an error with the variant, or the struct, that it is of.
fn errors_of(source: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for part in source.split("#[error(").skip(1) {
        let Some((text, variant)) = part.split_once(")]\n") else { continue };
        found.push((text, variant.lines().next().unwrap_or_default()));
    }
    found
}

fn repeats(text: &str, variant: &str) -> bool {
    let first_is_source = variant.contains("(#[source]") || variant.contains("(#[from]");
    text.contains("{source") || (first_is_source && text.contains("{0"))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
