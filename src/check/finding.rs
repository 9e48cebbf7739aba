//! What a check found, and how it is shown. Pure. Floor 6.

use std::fmt::Write as _;

use serde::Serialize;

use crate::table::{painted, row};
use crate::terminal::{Colour, Terminal};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Which check; a word of the documentation.
    pub(crate) check: &'static str,
    /// The route, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// How bad it is.
    pub(crate) outcome: Outcome,
    /// What was found: one line, without secrets.
    pub(crate) detail: String,
    /// What to do; `None` where all is well.
    pub(crate) remedy: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    /// As it should be.
    Ok,
    /// It works, and will hurt one day.
    Warning,
    /// It does not work.
    Error,
}

impl Outcome {
    /// With a mark, which is seen where there are no colours.
    fn marked(self) -> &'static str {
        match self {
            Self::Ok => "✓ ok",
            Self::Warning => "! warning",
            Self::Error => "✗ error",
        }
    }

    fn colour(self) -> Colour {
        match self {
            Self::Ok => Colour::Green,
            Self::Warning => Colour::Yellow,
            Self::Error => Colour::Red,
        }
    }
}

impl Finding {
    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, route: None, outcome: Outcome::Ok, detail: one_line(&detail.into()), remedy: None }
    }

    pub(super) fn warning(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, remedy: Some(remedy.into()), ..Self::ok(check, detail) }
    }

    pub(super) fn error(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { outcome: Outcome::Error, ..Self::warning(check, detail, remedy) }
    }

    pub(super) fn of(self, route: &str) -> Self {
        Self { route: Some(route.to_owned()), ..self }
    }
}

/// Text of servers, fit for a terminal and for one line.
fn one_line(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_control() || c.is_whitespace()).collect();
    words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// For people: a table, each remedy below its finding, and a last line that sums up.
#[must_use]
pub(crate) fn table(findings: &[Finding], terminal: Terminal) -> String {
    let mut rows = vec![row(["CHECK", "ROUTE", "OUTCOME", "FINDING"])];
    let mut colours = vec![None];
    for finding in findings {
        let route = finding.route.as_deref().unwrap_or("-");
        rows.push(row([finding.check, route, finding.outcome.marked(), &finding.detail]));
        colours.push(Some(finding.outcome.colour()));
        if let Some(remedy) = &finding.remedy {
            rows.push(row(["", "", "", &format!("-> {remedy}")]));
            colours.push(None);
        }
    }
    let mut text = painted(&rows, None, |at, column, cell| {
        terminal.paint(colours.get(at).copied().flatten().filter(|_| column == OUTCOME), cell)
    });
    let count = |outcome| findings.iter().filter(|finding| finding.outcome == outcome).count();
    // Writing into a String does not fail.
    let _ = writeln!(text, "\nerrors: {}, warnings: {}", count(Outcome::Error), count(Outcome::Warning));
    text
}

/// The column of the outcome.
const OUTCOME: usize = 2;

/// For pipelines: an array of findings.
#[must_use]
pub(crate) fn json(findings: &[Finding]) -> String {
    // A document of strings has no case that fails.
    serde_json::to_string_pretty(findings).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings() -> [Finding; 2] {
        [
            Finding::ok("vault", "it is\nunsealed \u{1b}[31m"),
            Finding::error("issue", "unknown role: x", "write the role").of("app"),
        ]
    }

    #[test]
    fn a_table_has_each_remedy_below_its_finding() {
        let expected = "\
CHECK  ROUTE  OUTCOME  FINDING
vault  -      ✓ ok     it is unsealed [31m
issue  app    ✗ error  unknown role: x
                       -> write the role

errors: 1, warnings: 0
";
        let plain = Terminal { size: None, colours: false };
        assert_eq!(table(&findings(), plain), expected);
        let coloured = table(&findings(), Terminal { size: Some((80, 24)), colours: true });
        assert!(coloured.contains("\u{1b}[32m✓ ok\u{1b}[0m     it is"), "{coloured}");
        assert!(coloured.contains("\u{1b}[31m✗ error\u{1b}[0m  unknown"), "{coloured}");
    }

    #[test]
    fn json_is_an_array_with_words() {
        let document: serde_json::Value = serde_json::from_str(&json(&findings())).unwrap();
        assert_eq!(document[0]["outcome"], "ok");
        assert!(document[0].get("route").is_none());
        assert_eq!(document[1]["route"], "app");
        assert_eq!(document[1]["remedy"], "write the role");
    }
}
