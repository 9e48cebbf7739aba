//! Holds the source to the floors of `src/lib.rs`: what a module may import, and the words it does not say.
//!
//! It reads the text of `src/`, not its types: a `use` or a path that begins with `crate::`, `leasehold::`, `super::` or
//! the name of a crate. That is enough for code that hides nothing on purpose. `cfg(test)` modules are read too.

#![expect(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

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
    rule("log_throttle", 0, &["clock"], IMPURE, &[]),
    rule("lease", 1, &["postgres", "metrics", "clock"], IMPURE, POSTGRES),
    // A seed and a depth come from the environment.
    rule("lease::tests", 1, &["postgres", "metrics", "clock"], CLOCKS, POSTGRES),
    rule("postgres::protocol", 1, &["lease", "metrics", "clock"], IMPURE, VAULT),
    rule("vault", 2, &["postgres"], &[], POSTGRES),
    rule("postgres::upstream", 2, &["vault"], &[], VAULT),
    rule("acceptor", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("tls", 2, &["vault", "postgres"], &[], VAULT),
    rule("dial", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("socket", 2, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("credentials", 3, &["postgres"], &[], POSTGRES),
    rule("session", 4, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("postgres::session", 4, &["vault"], &[], VAULT),
    rule("postgres::relay", 4, &["vault"], &[], VAULT),
    rule("postgres::cancel", 4, &["vault"], &[], VAULT),
    rule("postgres", 4, &["vault"], &[], VAULT),
    rule("workers", 5, &["vault", "postgres"], &[], &["postgres", "vault"]),
    rule("listener", 5, &["vault", "postgres"], &[], POSTGRES),
    rule("shutdown", 5, &["vault"], &[], &[]),
    rule("admin", 5, &["vault"], &[], POSTGRES),
    rule("log", 5, &["vault"], &[], &[]),
    rule("notify", 5, &["vault"], &[], &[]),
    rule("config", 6, &[], &[], &[]),
    rule("cli", 6, &["vault"], &[], &[]),
    rule("check", 6, &[], &[], &[]),
    rule("proof", 6, &[], &[], &[]),
    rule("upstreams", 6, &[], &[], &[]),
    rule("policy", 6, &[], &[], &[]),
    rule("fleet", 6, &["postgres", "clock", "metrics"], CLOCKS, &[]),
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
    "credentials::driver::telling::note",
    "lease::dynamic_role::take_in",
    "lease::static_role::take_in",
    "lease::tests::properties::any_event",
    "lease::tests::watch::act",
];

#[test]
fn a_function_that_is_too_long_is_found() {
    let body = "    let a = 1;\n\n    // not counted\n".repeat(61);
    let text = format!(
        "impl X {{\n    fn short() {{}}\n}}\n\npub(crate) async fn long(\n    a: u8,\n) {{\n{body}}}\n"
    );
    assert_eq!(functions(&text), [("short".to_owned(), 0), ("long".to_owned(), 61)]);
}

/// Each function with a body, and the lines of code in it. The text is as rustfmt leaves it.
fn functions(text: &str) -> Vec<(String, usize)> {
    let code = without_comments(text);
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let mut rest = lines.iter().skip(at).map(|line| line.trim_end());
        let signature_ends = rest.by_ref().find(|line| line.ends_with(['{', '}', ';']));
        let lines = match signature_ends {
            Some(line) if line.ends_with('{') => rest
                .take_while(|line| line.strip_prefix(indent) != Some("}"))
                .filter(|line| !line.is_empty())
                .count(),
            Some(line) if line.ends_with('}') => 0,
            _ => continue,
        };
        found.push((name, lines));
    }
    found
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<String> {
    let words = ["pub(", "pub ", "const ", "async ", "fn "];
    let code = line.trim_start();
    if !words.iter().any(|word| code.starts_with(word)) {
        return None;
    }
    let (front, rest) = code.split_once("fn ")?;
    let is_front = front.split_whitespace().all(|word| {
        ["pub", "const", "async", "in"].contains(&word) || word.starts_with("pub(") || word.ends_with(')')
    });
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (is_front && !name.is_empty()).then_some(name)
}

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
        return vec![format!("{module}: no floor is known for it; give it one in tests/floors.rs")];
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

/// Whether a path is a module or stands in it.
fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The paths of this crate that a module's code names, from the crate's root, without `crate::`.
fn imports(module: &str, text: &str) -> Vec<String> {
    let code = without_comments(text);
    let mut found = Vec::new();
    let parents: Vec<_> = module.split("::").collect();
    for (root, base) in [("crate::", ""), ("leasehold::", "")] {
        for start in starts(&code, root) {
            expand(base, &code[start + root.len()..], &mut found);
        }
    }
    for start in starts(&code, "super::") {
        let rest = &code[start..];
        let depth = rest.split("super::").take_while(|part| part.is_empty()).count();
        // A chain is counted from its first `super`.
        if code[..start].ends_with("super::") {
            continue;
        }
        let tail = &rest[depth * "super::".len()..];
        let kept = parents.len().saturating_sub(depth);
        expand(&parents.get(..kept).unwrap_or_default().join("::"), tail, &mut found);
    }
    found
}

/// Where a root word begins a path.
fn starts(code: &str, root: &str) -> Vec<usize> {
    let begins = |at: &usize| !code[..*at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
    code.match_indices(root).map(|(at, _)| at).filter(begins).collect()
}

/// Adds the paths that `rest` spells after `base`: `a::b`, or `{a::b, c::{d, e}}`.
fn expand(base: &str, rest: &str, found: &mut Vec<String>) {
    let rest = rest.trim_start();
    let join = |name: &str| if base.is_empty() { name.to_owned() } else { format!("{base}::{name}") };
    if let Some(inner) = rest.strip_prefix('{') {
        let mut depth = 0_usize;
        let mut item = String::new();
        for c in inner.chars() {
            match c {
                '}' if depth == 0 => break,
                ',' if depth == 0 => expand(base, &std::mem::take(&mut item), found),
                _ => {
                    depth = match c {
                        '{' => depth + 1,
                        '}' => depth - 1,
                        _ => depth,
                    };
                    item.push(c);
                }
            }
        }
        expand(base, &item, found);
        return;
    }
    let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        return;
    }
    let path = if name == "self" { base.to_owned() } else { join(&name) };
    match rest[name.len()..].strip_prefix("::") {
        Some(more) => {
            let before = found.len();
            expand(&path, more, found);
            if found.len() == before {
                found.push(path);
            }
        }
        None => found.push(path),
    }
}

/// Whether code uses a name: a crate (`name::` or `use name`), a keyword, or a path of the standard library, whose last part may
/// stand in braces.
fn uses(code: &str, name: &str) -> bool {
    if let Some((parent, last)) = name.rsplit_once("::") {
        let mut found = Vec::new();
        for start in starts(code, &format!("{parent}::")) {
            expand(parent, &code[start + parent.len() + 2..], &mut found);
        }
        let wanted = format!("{parent}::{last}");
        return found.iter().any(|path| is_in(path, &wanted));
    }
    let is_crate = name.starts_with(char::is_lowercase) && !["async", "await"].contains(&name);
    code.match_indices(name).any(|(at, _)| {
        let before = &code[..at];
        let after = &code[at + name.len()..];
        let whole = !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            && !after.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        // `crate::metrics` is a module, which the floors speak of.
        whole
            && (!is_crate
                || (!before.ends_with("::") && (after.starts_with("::") || before.ends_with("use "))))
    })
}

/// Whether a line says a word, in code or comment. A link's address is not said, nor is the rule itself (`Floor`).
fn says(line: &str, word: &str) -> bool {
    let lower = line.to_lowercase();
    let spoken: Vec<_> = lower
        .split_whitespace()
        .filter(|token| !token.contains("http://") && !token.contains("https://"))
        .collect();
    spoken.join(" ").contains(word)
}

/// The text with comments and the content of strings blanked; the length stays.
fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let blank = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(hashes) = raw_string(rest) {
            let close = format!("\"{}", "#".repeat(hashes));
            let open = hashes + 2;
            rest[open..].find(&close).map_or(rest.len(), |end| open + end + close.len())
        } else if rest.starts_with('"') {
            string_end(rest)
        } else if rest.starts_with("'\"'") {
            3
        } else if rest.starts_with("'\\\"'") {
            4
        } else {
            0
        };
        if blank == 0 {
            let c = rest.chars().next().expect("rest is not empty");
            code.push(c);
            at += c.len_utf8();
        } else {
            code.extend(std::iter::repeat_n(' ', blank));
            at += blank;
        }
    }
    code
}

/// The number of `#` of a raw string that begins here.
fn raw_string(rest: &str) -> Option<usize> {
    let tail = rest.strip_prefix('r')?;
    let hashes = tail.len() - tail.trim_start_matches('#').len();
    tail.trim_start_matches('#').starts_with('"').then_some(hashes)
}

/// The length of the string literal that begins here.
fn string_end(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
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
