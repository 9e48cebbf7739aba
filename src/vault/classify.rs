//! What an answer of Vault or OpenBao that is not a success means. Pure. Floor 2.
//!
//! A body that is not Vault's JSON comes from a load balancer or another server in between: it says nothing of what was
//! asked, whatever its status. Vault's own answers go by their status first, then by pieces of their text, which differ
//! between Vault and OpenBao and between versions. An unknown answer counts as transient: asking again is cheap, giving up a
//! live lease is not.

use super::failure::{Kind, sqlstate};
use super::operation::Operation;

/// What it means that `operation` was answered with this status and these `errors`; `None`: the body is not Vault's.
/// `username` is the user of the lease that was to be renewed; empty where there is none.
///
/// `Forbidden` stands for a 403 of any operation with a token but a look-up, and says no more than that: a dead token
/// gets the same status, so the caller looks the token up to distinguish the two.
pub(super) fn classify(operation: Operation, status: u16, errors: Option<&[String]>, username: &str) -> Kind {
    let Some(errors) = errors else {
        return Kind::Transient;
    };
    let said = errors.join("\n");
    let text = said.to_lowercase();
    if operation == Operation::Issue && status == 500 && has_wrong_statements(&text) {
        return Kind::Refused;
    }
    if is_server_trouble(status) {
        return Kind::Transient;
    }
    if contains_any(&text, NOT_THE_ACTIVE_NODE) {
        return Kind::Transient;
    }
    match (operation, status) {
        (Operation::LogIn, 400..=499) => Kind::Refused,
        (Operation::LookUp, 403) => denied_look_up(&text),
        (_, 403) => Kind::Forbidden,
        (Operation::Renew, 400..=499) => renewal(&text, names(&said, username)),
        (Operation::RenewToken, 400..=499) => token_renewal(&text),
        (Operation::Revoke | Operation::LookUpLease, 400..=499) => unknown_lease(&text),
        (Operation::Issue | Operation::RevokeToken, 400..=499) => Kind::Refused,
        _ => Kind::Transient,
    }
}

/// Statuses that speak of the server's state or of the way to it, not of the request: redirects, 408, 412 (a replica
/// behind), 429 (quota), 472 and 473 (a secondary or standby), and all of 5xx.
pub(super) fn is_server_trouble(status: u16) -> bool {
    matches!(status, 300..=399 | 408 | 412 | 429 | 472 | 473 | 500..=599)
}

/// A 403 to lookup-self. A dead token has the bare text (with more in it since Vault 1.13), a policy a list of one.
fn denied_look_up(text: &str) -> Kind {
    let text = text.trim();
    if text == "permission denied" || contains_any(text, &["invalid token", "bad token"]) {
        Kind::TokenDead
    } else if text.contains("permission denied") {
        Kind::Forbidden
    } else {
        Kind::Transient
    }
}

/// A 4xx to `sys/leases/renew`. An unreachable database is a 400 as well, so only known texts are final.
///
/// SQLSTATE 42704 of the database is "undefined object", of whichever statement renews the role. It says that our role is gone
/// only where it names that role; another object that is missing, such as a group that `renew_statements` grant, keeps
/// the lease from being extended and no more. lib/pq, which older Vaults use, does not write the SQLSTATE. A role missing
/// in another way (28000 at the login of Vault's own user, 3D000) is the server's configuration, and the lease lives.
fn renewal(text: &str, names_our_user: bool) -> Kind {
    let undefined = text.contains("sqlstate 42704");
    let missing = undefined || (text.contains("does not exist") && !text.contains("sqlstate"));
    if contains_any(text, &["lease not found", "lease expired", "invalid lease"])
        || (missing && names_our_user)
    {
        Kind::Gone
    } else if undefined
        || contains_any(text, &["past the max ttl", "could not find role", "lease is not renewable"])
    {
        Kind::CannotExtend
    } else {
        Kind::Transient
    }
}

/// Whether a creds request failed by what is configured in Vault: statements that the database does not accept, or a
/// role that the connection does not allow. Vault answers 500, as it does where it cannot reach the database.
fn has_wrong_statements(text: &str) -> bool {
    let refused =
        sqlstate(text).is_some_and(|code| WRONG_STATEMENTS.iter().any(|class| code.starts_with(class)));
    refused || contains_any(text, &["is not an allowed role", "syntax error at or near"])
}

/// The classes of SQLSTATEs that time does not mend: data and syntax errors, missing objects and rights, schemas, roles.
///
/// Source: appendix A of the database's manual, "Error Codes".
const WRONG_STATEMENTS: &[&str] = &["22", "42", "3f", "0l", "0p"];

/// Whether the text names this user, as a word of its own. The database cuts names to 63 bytes, and quotes them by the
/// customs of its language.
fn names(text: &str, username: &str) -> bool {
    let end = (0..=username.len().min(63)).rev().find(|end| username.is_char_boundary(*end)).unwrap_or(0);
    let Some(name) = username.get(..end).filter(|name| !name.is_empty()) else { return false };
    let continues = |c: char| c.is_alphanumeric() || "_-.$@".contains(c);
    text.match_indices(name).any(|(at, _)| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let after = text.get(at + name.len()..).and_then(|text| text.chars().next());
        !before.is_some_and(continues) && !after.is_some_and(continues)
    })
}

/// A 4xx to `auth/token/renew-self`. The token of a `cert` login is bound to the certificate that it was made with.
fn token_renewal(text: &str) -> Kind {
    let known = [
        "not renewable",
        "past the max ttl",
        "cannot be renewed",
        "client identity during renewal",
        "invalid certificate or no client certificate",
    ];
    if contains_any(text, &known) { Kind::CannotExtend } else { Kind::Transient }
}

/// A 4xx to `sys/leases/lookup` or `sys/leases/revoke`. Today's servers answer 204 to the revocation of a lease they do
/// not know.
fn unknown_lease(text: &str) -> Kind {
    if contains_any(text, &["lease not found", "invalid lease"]) { Kind::Gone } else { Kind::Transient }
}

fn contains_any(text: &str, pieces: &[&str]) -> bool {
    pieces.iter().any(|piece| text.contains(piece))
}

/// Said with any status while a cluster changes its leader, or by a node that should have forwarded the request.
/// Whole phrases, since a role may well be named `readonly`.
const NOT_THE_ACTIVE_NODE: &[&str] = &[
    "readonly storage",
    "read-only storage",
    "read-only transaction",
    "node is not active",
    "node not active",
    "standby node",
    "no active vault instance",
    "no active openbao instance",
    "vault is sealed",
    "openbao is sealed",
];

#[cfg(test)]
mod tests;
