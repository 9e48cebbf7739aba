//! What a text of Rust names: paths, crates, words.

/// Whether a path is a module or stands in it.
pub(crate) fn is_in(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The paths of this crate that a module's code names, from the crate's root, without `crate::`.
pub(crate) fn imports(module: &str, text: &str) -> Vec<String> {
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
pub(crate) fn uses(code: &str, name: &str) -> bool {
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
pub(crate) fn says(line: &str, word: &str) -> bool {
    let lower = line.to_lowercase();
    let spoken: Vec<_> = lower
        .split_whitespace()
        .filter(|token| !token.contains("http://") && !token.contains("https://"))
        .collect();
    spoken.join(" ").contains(word)
}

/// The text with comments and the content of strings blanked; the length stays.
pub(crate) fn without_comments(text: &str) -> String {
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
