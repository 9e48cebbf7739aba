//! Holds the source to the floors of `src/lib.rs`: what a module may import, and the words it does not say.
//!
//! It reads the text of `src/`, not its types: a `use` or a path that begins with `crate::`, `leasehold::`, `super::` or
//! the name of a crate. That is enough for code that hides nothing on purpose. `cfg(test)` modules are read too.

#![expect(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

mod functions;
mod text;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use functions::functions;
use text::{imports, is_in, says, uses, without_comments};

/// A module: its floor, modules of its own floor or below that it still may not import, crates and names that it may not
/// use, and words that it does not say. The longest path wins.
struct Rule {
    module: &'static str,
    floor: u8,
    not_modules: &'static [&'static str],
    not_names: &'static [&'static str],
    not_words: &'static [&'static str],
}

const RULES: &[Rule] = &[
    rule("time", 0, &["clock"], IMPURE, &[]),
    rule("clock", 0, &[], ASYNC, &[]),
    // It is compiled for tests alone, whose clock it goes with.
    rule("clock::simulated", 0, &[], &["async", "await"], &[]),
    rule("secret", 0, &[], ASYNC, &[]),
    rule("error", 0, &[], ASYNC, &[]),
    rule("metrics", 0, &[], ASYNC, &[]),
    rule("crypto", 0, &[], ASYNC, &[]),
    rule("files", 0, &[], ASYNC, &[]),
    rule("bucket", 0, &["clock"], IMPURE, &[]),
    rule("table", 0, &["clock"], IMPURE, &[]),
    rule("terminal", 0, &["clock"], ASYNC, &[]),
    rule("traces", 0, &["clock"], ASYNC, &["postgres", "vault"]),
    rule("log_throttle", 0, &["clock"], IMPURE, &[]),
    rule("nearest", 0, &["clock"], IMPURE, &[]),
    rule("lease", 1, &["postgres", "metrics", "clock"], IMPURE, POSTGRES),
    // A seed and a depth come from the environment.
    rule("lease::tests", 1, &["postgres", "metrics", "clock"], CLOCKS, POSTGRES),
    rule("postgres::protocol", 1, &["lease", "metrics", "clock"], IMPURE, VAULT),
    rule("vault", 2, &["postgres"], &[], POSTGRES),
    rule("postgres::upstream", 2, &["vault"], &[], VAULT),
    rule("acceptor", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("tls", 2, &["vault", "postgres"], &[], VAULT),
    rule("dial", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("published", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("socket", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("credentials", 3, &["postgres"], &[], POSTGRES),
    rule("session", 4, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("postgres::session", 4, &["vault"], &[], VAULT),
    rule("postgres::relay", 4, &["vault"], &[], VAULT),
    rule("postgres::cancel", 4, &["vault"], &[], VAULT),
    rule("postgres::console", 4, &["vault"], &[], VAULT),
    rule("postgres", 4, &["vault"], &[], VAULT),
    rule("workers", 5, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("listener", 5, &["vault", "postgres"], &[], POSTGRES),
    rule("shutdown", 5, &["vault"], &[], &[]),
    rule("admin", 5, &["vault"], &[], POSTGRES),
    rule("console", 5, &["vault"], &[], &[]),
    rule("log", 5, &["vault"], &[], &[]),
    rule("notify", 5, &["vault"], &[], &[]),
    rule("otlp", 5, &["vault", "postgres"], &[], &["postgres"]),
    rule("hardening", 5, &["vault", "postgres"], ASYNC, &["postgres", "vault"]),
    rule("config", 6, &[], &[], &[]),
    rule("cli", 6, &["vault"], &[], &[]),
    rule("check", 6, &[], &[], &[]),
    rule("proof", 6, &[], &[], &[]),
    rule("upstreams", 6, &[], &[], &[]),
    rule("policy", 6, &[], &[], &[]),
    rule("fleet", 6, &["postgres", "clock", "metrics"], CLOCKS, &[]),
    rule("pure", 6, &["vault"], CLOCKS, &[]),
    rule("fuzz", 6, &[], CLOCKS, &[]),
    rule("app", 6, &[], &[], &[]),
    rule("main", 6, &[], &[], &[]),
];

const CLOCKS: &[&str] =
    &["tokio", "tokio_util", "async", "await", "tracing", "metrics", "Instant", "SystemTime"];
const ASYNC: &[&str] = &["tokio", "tokio_util", "async", "await"];

/// Clocks, sockets, tasks, logs, metrics, randomness, the environment.
const IMPURE: &[&str] = &[
    "tokio",
    "tokio_util",
    "tokio_rustls",
    "async",
    "await",
    "tracing",
    "metrics",
    "rand",
    "Instant",
    "SystemTime",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
];

const POSTGRES: &[&str] = &["postgres", "libpq", "pgwire", "psql", "pg_hba"];
const VAULT: &[&str] = &["vault", "openbao", "hashicorp"];

const fn rule(
    module: &'static str,
    floor: u8,
    not_modules: &'static [&'static str],
    not_names: &'static [&'static str],
    not_words: &'static [&'static str],
) -> Rule {
    Rule { module, floor, not_modules, not_names, not_words }
}

#[test]
fn no_module_imports_from_a_floor_above_or_says_what_it_may_not() {
    let mut faults = Vec::new();
    let mut files = 0;
    for (path, module) in sources() {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        faults.extend(check(&module, &text));
        files += 1;
    }
    assert!(files > 20, "only {files} files were found");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Files and folders side by side in one folder import each other in one direction only: a reader can begin somewhere.
#[test]
fn no_two_siblings_import_each_other() {
    let all = sources();
    let is_module = |path: &str| all.iter().any(|(_, module)| is_in(module, path));
    let mut edges = BTreeSet::new();
    for (path, module) in all.iter().filter(|(_, module)| !module.contains("tests")) {
        let text = fs::read_to_string(path).expect("a source file is readable");
        // Tests at the end of a file may use whatever they need.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        edges.extend(
            imports(module, text).iter().filter_map(|path| between_siblings(module, path, is_module)),
        );
    }
    assert!(edges.len() > 100, "only {} imports were found", edges.len());
    let found: Vec<_> =
        circles(&edges).into_iter().filter(|circle| !KNOWN_CIRCLES.contains(&circle.as_str())).collect();
    assert!(found.is_empty(), "{found:#?}");
}

const KNOWN_CIRCLES: &[&str] = &[];

#[test]
fn a_planted_circle_is_found() {
    let edge = |from: &str, to: &str| (from.to_owned(), to.to_owned());
    let edges = [edge("a::x", "a::y"), edge("a::y", "a::z"), edge("a::z", "a::x"), edge("a::z", "b")];
    let found = circles(&edges.into_iter().collect());
    assert_eq!(found, ["a::x, a::y", "a::x, a::z", "a::y, a::z"]);
    let between = |module, path| between_siblings(module, path, |path| ["a::x", "a::y"].contains(&path));
    assert_eq!(between("a::x::inner", "a::y::f"), Some(edge("a::x", "a::y")));
    assert_eq!(between("a::x", "a::Type"), None, "a parent is no sibling");
}

/// The siblings that an import goes between: the first parts in which the two paths differ.
fn between_siblings(module: &str, path: &str, is_module: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let (from, to): (Vec<&str>, Vec<&str>) = (module.split("::").collect(), path.split("::").collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let (from, to) = (from.get(..=common)?.join("::"), to.get(..=common)?.join("::"));
    is_module(&to).then_some((from, to))
}

/// Each pair that reaches each other, over however many steps.
fn circles(edges: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut reach = edges.clone();
    loop {
        let longer: Vec<_> = reach
            .iter()
            .flat_map(|(a, b)| {
                edges.iter().filter(move |(from, _)| from == b).map(|(_, c)| (a.clone(), c.clone()))
            })
            .filter(|pair| !reach.contains(pair))
            .collect();
        if longer.is_empty() {
            break;
        }
        reach.extend(longer);
    }
    let back = |(a, b): &&(String, String)| a < b && reach.contains(&(b.clone(), a.clone()));
    reach.iter().filter(back).map(|(a, b)| format!("{a}, {b}")).collect()
}

/// A function fits on a screen, unless it is a plain dispatch.
#[test]
fn no_function_is_longer_than_a_screen() {
    let mut found = Vec::new();
    for (path, module) in sources() {
        let text = fs::read_to_string(&path).expect("a source file is readable");
        for (name, lines) in functions(&text) {
            let path = format!("{module}::{name}");
            let is_known = DISPATCHES.contains(&path.as_str());
            if lines > SCREEN && !is_known {
                found.push(format!("{path}: {lines} lines"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// So many lines of code, without comments and empty lines.
const SCREEN: usize = 60;

/// They say for each variant where it goes, and no more.
const DISPATCHES: &[&str] = &[
    "credentials::driver::do_one",
    "credentials::driver::replies::take",
    "credentials::driver::reporting::note",
    "lease::dynamic_role::take_in",
    "lease::static_role::take_in",
    "lease::tests::properties::any_event",
    "lease::tests::watch::promises::act",
];

/// One plant for each kind of rule, in the form that code has.
#[test]
fn a_planted_fault_is_found() {
    let plants = [
        ("secret", "use crate::lease::Time;"),
        ("error", "pub async fn f() {}"),
        ("lease::token", "use crate::postgres::protocol::frame;"),
        ("lease::token", "let now = std::time::Instant::now();"),
        ("lease::token", "tracing::info!(\"renewed\");"),
        ("lease::token", "use std::{env, fmt};"),
        ("lease::token", "/// As PostgreSQL does."),
        ("postgres::protocol::frame", "use crate::{error::Blame, lease::Time};"),
        ("postgres::protocol::frame", "use super::super::upstream::UpstreamSession;"),
        ("postgres::protocol::frame", "fn f(t: crate::credentials::Guard) {}"),
        ("vault::login", "use crate::postgres::upstream::UpstreamSession;"),
        ("vault::login", "use crate::credentials;"),
        ("dial", "use crate::postgres::upstream::Turn;"),
        ("credentials::route", "use crate::postgres::session::Session;"),
        ("credentials::route", "// the Postgres role"),
        ("postgres::session", "use crate::{\n    credentials::Guard,\n    vault::{Auth, Config},\n};"),
        ("postgres::relay", "// Vault is away"),
        ("postgres::relay", "let a = 1; /* the vault's answer */"),
        ("admin::status", "use crate::{config, error};"),
        ("admin", "use crate::vault::Config;"),
        ("listener", "use leasehold::vault;"),
        ("listener", "use crate::postgres::session;"),
        ("shutdown", "let x = crate::app::main();"),
        ("nowhere", "//! A module that no floor knows."),
    ];
    for (module, plant) in plants {
        assert!(!check(module, plant).is_empty(), "not found in {module}: {plant}");
    }
}

#[test]
fn what_is_allowed_is_not_found() {
    let fine = [
        (
            "lease",
            "use std::time::Duration;\nuse crate::error::Blame;\nuse super::Time;\n//! No async, no clock.",
        ),
        (
            "lease::token",
            "// an instant; the environment; metrics are counted elsewhere\nuse super::time::Time;",
        ),
        (
            "postgres::protocol::auth",
            "use postgres_protocol::authentication::sasl;\nuse pgwire::messages::Message;",
        ),
        (
            "postgres::session",
            "use crate::postgres::{protocol::frame, upstream::UpstreamSession};\nuse crate::credentials::Guard;",
        ),
        ("credentials", "use crate::{lease::Time, vault::Config};"),
        ("app", "use crate::{vault, postgres, config};"),
        ("vault::login", "use crate::secret::Secret; // the database's answer"),
    ];
    for (module, text) in fine {
        assert_eq!(check(module, text), Vec::<String>::new(), "{module}: {text}");
    }
}

/// What is wrong with a module's text, a line each.
fn check(module: &str, text: &str) -> Vec<String> {
    let Some(rule) = rule_of(module) else {
        return vec![format!("{module}: no floor is known for it; give it one in tests/floors/main.rs")];
    };
    let mut faults = Vec::new();
    for path in imports(module, text) {
        let Some(target) = rule_of(&path) else { continue };
        let forbidden = rule.not_modules.iter().any(|not| is_in(&path, not)) && target.module != rule.module;
        if target.floor > rule.floor || forbidden {
            faults.push(format!(
                "{module} (floor {}) may not use crate::{path} (floor {})",
                rule.floor, target.floor
            ));
        }
    }
    let code = without_comments(text);
    for name in rule.not_names {
        if uses(&code, name) {
            faults.push(format!("{module} (floor {}) may not use {name}", rule.floor));
        }
    }
    for (number, line) in text.lines().enumerate() {
        for word in rule.not_words {
            if says(line, word) {
                faults.push(format!(
                    "{module}, line {}: it does not say {word}: {}",
                    number + 1,
                    line.trim()
                ));
            }
        }
    }
    faults
}

fn rule_of(path: &str) -> Option<&'static Rule> {
    RULES.iter().filter(|rule| is_in(path, rule.module)).max_by_key(|rule| rule.module.len())
}

/// Every source file with its module path; `lib.rs` is the map and belongs to no floor.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut directories = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in
            fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        {
            let path = entry.expect("a directory entry is readable").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let relative = path.strip_prefix(&root).expect("it was found under src").with_extension("");
                let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                let module = parts.join("::");
                let module = module.strip_suffix("::mod").unwrap_or(&module).to_owned();
                if module != "lib" {
                    files.push((path, module));
                }
            }
        }
    }
    files
}
