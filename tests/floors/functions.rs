//! The functions of a text of Rust, and how long they are.

use super::text::without_comments;

#[test]
fn a_function_that_is_too_long_is_found() {
    let body = "    let a = 1;\n\n    // not counted\n".repeat(61);
    let text = format!(
        "impl X {{\n    fn short() {{}}\n}}\n\npub(crate) async fn long(\n    a: u8,\n) {{\n{body}}}\n"
    );
    assert_eq!(functions(&text), [("short".to_owned(), 0), ("long".to_owned(), 61)]);
}

/// Each function with a body, and the lines of code in it. The text is as rustfmt leaves it.
pub(crate) fn functions(text: &str) -> Vec<(String, usize)> {
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
