//! What failures say of themselves.

use super::*;

#[test]
fn a_reason_is_one_line_without_secrets() {
    let token = Secret::new("hvs.secret".to_owned());
    let said = "1 error occurred:\n\t* bad \u{1b}[31mtoken hvs.secret\n\n";
    let failure = Failure::answered(Operation::Issue, Kind::Refused, 400, said, &[&token]);
    assert_eq!(failure.to_string(), "issue: status 400: 1 error occurred: * bad [31mtoken [redacted]");
}

#[test]
fn a_summary_names_the_databases_word_for_its_cause_and_nothing_else_of_the_text() {
    let said = "failed to execute query: ERROR: syntax error at or near \"p4ss\" (SQLSTATE 42601)";
    let failure = Failure::answered(Operation::Issue, Kind::Refused, 500, said, &[]);
    assert_eq!(
        failure.summary(),
        "refused: the database does not accept the role's creation_statements (SQLSTATE 42601)"
    );
    let away = Failure::answered(Operation::Issue, Kind::Transient, 503, "Vault is sealed", &[]);
    assert_eq!(away.summary(), "transient");
}

#[test]
fn a_reason_says_what_is_the_matter_in_words() {
    let answered = |operation, kind, status, said: &str| {
        Failure::answered(operation, kind, status, said, &[]).at("/v1/database/creds/app").reason()
    };
    let syntax = "failed to execute query: ERROR: syntax error at or near \"p4\"ss\" (SQLSTATE 42601)";
    assert_eq!(
        answered(Operation::Issue, Kind::Refused, 500, syntax),
        "the role's creation statements fail: syntax error at or near … (42601)"
    );
    let cut = "ERROR: syntax error at or near \"p4ss";
    assert!(!answered(Operation::Issue, Kind::Refused, 500, cut).contains("p4ss"));
    let missing = "ERROR: role \"readers\" does not exist (SQLSTATE 42704)";
    assert_eq!(
        answered(Operation::Renew, Kind::Transient, 400, missing),
        "the database answers Vault: role \"readers\" does not exist (42704)"
    );
    assert_eq!(
        answered(Operation::Issue, Kind::Forbidden, 403, "permission denied"),
        "403 on database/creds/app: the policy lacks read"
    );
    assert_eq!(answered(Operation::Renew, Kind::Transient, 503, "Vault is sealed"), "Vault is sealed");
    assert_eq!(
        answered(Operation::Issue, Kind::Refused, 400, "unknown role: app"),
        "400 on database/creds/app: unknown role: app"
    );
    let local = Failure::local(Operation::LogIn, Kind::Transient, "cannot connect: Connection refused");
    assert_eq!(local.reason(), "Vault: cannot connect: Connection refused");
    assert_eq!(local.of_ours().reason(), "cannot connect: Connection refused");
}

#[test]
fn what_a_database_quotes_of_a_statement_is_in_no_text() {
    for said in [
        "failed to execute query: ERROR: syntax error at or near \"p4\"ss\" (SQLSTATE 42601)",
        "ERROR: unrecognized role option \"p4ss\" (SQLSTATE 42601)",
        "FEHLER: Syntaxfehler bei »p4ss« (SQLSTATE 42601)",
        "ERROR: invalid input syntax for type timestamp: \"p4ss\" (SQLSTATE 22007)",
        "ERROR: syntax error at or near \"p4ss",
    ] {
        let failure = Failure::answered(Operation::Issue, Kind::Refused, 500, said, &[]);
        for text in [failure.to_string(), failure.reason(), failure.summary(), format!("{failure:?}")] {
            assert!(!text.contains("p4") && !text.contains("ss\""), "{text}");
        }
    }
}

#[test]
fn a_secret_is_taken_out_before_the_cut() {
    let token = Secret::new("s".repeat(40));
    let said = format!("{}{}", "x".repeat(190), token.expose());
    let failure = Failure::answered(Operation::Issue, Kind::Refused, 400, &said, &[&token]);
    assert!(!failure.to_string().contains("sss"));
    assert!(failure.to_string().len() < 240);
}

#[test]
fn an_empty_secret_changes_nothing() {
    let empty = Secret::new(String::new());
    let failure = Failure::answered(Operation::LogIn, Kind::Refused, 400, "no", &[&empty]);
    assert_eq!(failure.to_string(), "login: status 400: no");
}
