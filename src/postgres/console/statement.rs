//! What a statement asks of the console. It is no SQL parser: it knows the commands that the console has, and those that
//! clients send of their own accord. Pure. Floor 4.

use crate::postgres::protocol::backend::{Column, Type, Value};

/// One statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Statement {
    /// `SHOW` and a name, in lower case.
    Show(String),
    /// A constant that clients ask for when they connect, such as `SELECT 1`.
    Select(Column, Value),
    /// It is taken, and does nothing; its command tag.
    Nothing(&'static str),
    Begin,
    Commit,
    Rollback,
    /// Anything else.
    Other,
}

/// The statements of a text, without those that are empty.
pub(super) fn statements(text: &str, user: &str, database: &str) -> Vec<Statement> {
    let texts = split(text);
    texts.iter().filter(|text| !text.is_empty()).map(|text| of(text, user, database)).collect()
}

fn of(text: &str, user: &str, database: &str) -> Statement {
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    match first {
        "show" => Statement::Show(rest.replace('"', "")),
        "select" => select(rest, user, database),
        "set" => Statement::Nothing("SET"),
        "reset" => Statement::Nothing("RESET"),
        "discard" => Statement::Nothing("DISCARD ALL"),
        "deallocate" => Statement::Nothing("DEALLOCATE"),
        "close" => Statement::Nothing("CLOSE CURSOR"),
        "unlisten" => Statement::Nothing("UNLISTEN"),
        "savepoint" => Statement::Nothing("SAVEPOINT"),
        "release" => Statement::Nothing("RELEASE"),
        "begin" | "start" => Statement::Begin,
        "commit" | "end" => Statement::Commit,
        "rollback" if rest.split(' ').any(|word| word == "to") => Statement::Nothing("ROLLBACK"),
        "rollback" | "abort" => Statement::Rollback,
        _ => Statement::Other,
    }
}

fn select(expression: &str, user: &str, database: &str) -> Statement {
    let expression = expression.strip_prefix("pg_catalog.").unwrap_or(expression);
    let text = |name, text: &str| Statement::Select((name, Type::Text), Value::Text(text.to_owned()));
    match expression {
        "1" => Statement::Select(("?column?", Type::Int4), Value::Int4(1)),
        "version()" => text("version", super::PRODUCT),
        "current_database()" => text("current_database", database),
        "current_user" | "session_user" | "user" => text("current_user", user),
        "current_schema()" | "current_schema" => {
            Statement::Select(("current_schema", Type::Text), Value::Null)
        }
        // pgAdmin sets bytea_output in this way, and takes a refusal for a broken connection.
        call if call.starts_with("set_config(") => text("set_config", ""),
        "pg_is_in_recovery()" => Statement::Select(("pg_is_in_recovery", Type::Bool), Value::Bool(false)),
        _ => Statement::Other,
    }
}

/// The statements between the semicolons: without comments, in lower case but for what is quoted, with one space between
/// words.
fn split(text: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(comment) = comment(rest) {
            rest = rest.get(comment..).unwrap_or_default();
            space(&mut statement);
            continue;
        }
        let length = match c {
            '\'' | '"' => quoted(rest, c),
            _ => c.len_utf8(),
        };
        let (piece, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        match c {
            ';' => statements.push(std::mem::take(&mut statement).trim().to_owned()),
            '\'' | '"' => statement.push_str(piece),
            _ if c.is_whitespace() => space(&mut statement),
            _ => statement.extend(c.to_lowercase()),
        }
        rest = after;
    }
    statements.push(statement.trim().to_owned());
    statements
}

fn space(statement: &mut String) {
    if !statement.ends_with(' ') {
        statement.push(' ');
    }
}

/// The length of the comment that begins here.
fn comment(text: &str) -> Option<usize> {
    if text.starts_with("--") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if !text.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let step = if rest.starts_with("/*") {
            depth += 1;
            2
        } else if rest.starts_with("*/") {
            depth -= 1;
            2
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at += step;
        if depth == 0 {
            return Some(at);
        }
    }
    Some(text.len())
}

/// The length of the quoted piece that begins here. Two quotes within it are two pieces, which changes nothing.
fn quoted(text: &str, quote: char) -> usize {
    let inside = text.get(1..).unwrap_or_default();
    inside.find(quote).map_or(text.len(), |end| end + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Statement {
        let mut all = statements(text, "app", "leasehold");
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.remove(0)
    }

    fn show(name: &str) -> Statement {
        Statement::Show(name.to_owned())
    }

    #[test]
    fn show_has_a_name_however_it_is_written() {
        for text in
            ["SHOW ROUTES", "show routes;", " /* a /* b */ ; */ Show\n\tRoutes -- ; x", "SHOW \"routes\" ;;"]
        {
            assert_eq!(one(text), show("routes"), "{text}");
        }
        assert_eq!(one("SHOW TRANSACTION ISOLATION LEVEL"), show("transaction isolation level"));
    }

    #[test]
    fn several_statements_are_taken_apart() {
        let both = statements("BEGIN; SHOW stats", "app", "leasehold");
        assert_eq!(both, [Statement::Begin, show("stats")]);
        assert_eq!(statements(" ; -- only a comment", "", ""), []);
        assert_eq!(one("SET x = 'a;b'';c'"), Statement::Nothing("SET"));
    }

    #[test]
    fn what_drivers_and_pools_send_is_taken() {
        assert_eq!(one("SELECT 1"), Statement::Select(("?column?", Type::Int4), Value::Int4(1)));
        let database = Value::Text("leasehold".to_owned());
        assert_eq!(
            one("select pg_catalog.current_database()"),
            Statement::Select(("current_database", Type::Text), database)
        );
        assert_eq!(one("START TRANSACTION READ ONLY"), Statement::Begin);
        assert_eq!(one("rollback to savepoint a"), Statement::Nothing("ROLLBACK"));
        assert_eq!(one("ROLLBACK"), Statement::Rollback);
        let of_pgadmin =
            "SELECT set_config('bytea_output','hex',false) FROM pg_show_all_settings() WHERE name = 'x'";
        assert!(matches!(one(of_pgadmin), Statement::Select(("set_config", _), _)));
        for other in ["SELECT * FROM pg_class", "RELOAD", "DROP TABLE x", "'", "SELECT '1"] {
            assert_eq!(one(other), Statement::Other, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text: String) {
            let _ = statements(&text, "u", "d");
        }

        #[test]
        fn no_nesting_makes_it_panic(text in "[-/*'\";é a\n]{0,40}") {
            let _ = statements(&text, "u", "d");
        }
    }
}
