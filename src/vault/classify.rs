//! Classifies the unsuccessful answers of Vault and OpenBao. Pure. Floor 2.
//!
//! A body that is not Vault's JSON comes from a load balancer or another server on the way. It is no answer to the
//! request, whatever its status. Vault's own answers are classified by their status first, then by parts of their text,
//! which differ between Vault and OpenBao and between versions. An unknown answer is transient, since repeating a
//! request is cheaper than giving up a live lease.

use super::failure::{Kind, sqlstate};
use super::operation::Operation;

/// The meaning of an answer to `operation` with this status and these `errors`. `None`: the body is not Vault's.
/// `username` is the user of the lease to renew; empty if there is none.
///
/// `Forbidden` stands for each 403 to an operation with a token, except a look-up. A dead token gets the same status,
/// so the caller looks up the token to distinguish the two.
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

/// Whether the status is about the state of the server or the network, not about the request: redirects, 408, 412 (a
/// replica that lags), 429 (quota), 472 and 473 (a secondary or standby), and all 5xx.
pub(super) fn is_server_trouble(status: u16) -> bool {
    matches!(status, 300..=399 | 408 | 412 | 429 | 472 | 473 | 500..=599)
}

/// A 403 to lookup-self. For a dead token the text is bare (longer since Vault 1.13); for a policy it is in a list with
/// one element.
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

/// A 4xx to `sys/leases/renew`. An unreachable database also leads to a 400, so only known texts are final.
///
/// The database's SQLSTATE 42704 means "undefined object", for any statement that renews the role. Our role is gone
/// only if the text names it. Another missing object, such as a group that `renew_statements` grant, only keeps the
/// lease from being extended. lib/pq, which older Vaults use, does not write the SQLSTATE. A role missing in another
/// way (28000 when Vault's own user logs in, 3D000) is a fault of the server's configuration, and the lease lives.
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

/// Whether a creds request failed because of Vault's configuration: statements that the database rejects, or a role
/// that the connection does not allow. Vault answers 500, the same status as for an unreachable database.
fn has_wrong_statements(text: &str) -> bool {
    let refused =
        sqlstate(text).is_some_and(|code| WRONG_STATEMENTS.iter().any(|class| code.starts_with(class)));
    refused || contains_any(text, &["is not an allowed role", "syntax error at or near"])
}

/// The classes of SQLSTATEs that do not go away by themselves: data and syntax errors, missing objects and rights,
/// schemas, roles.
///
/// Source: appendix A of the database's manual, "Error Codes".
const WRONG_STATEMENTS: &[&str] = &["22", "42", "3f", "0l", "0p"];

/// Whether the text names this user as a separate word. The database cuts names to 63 bytes, and quotes them by the
/// rules of its language.
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

/// A 4xx to `auth/token/renew-self`. The token of a `cert` login is bound to the certificate of the login.
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

/// A 4xx to `sys/leases/lookup` or `sys/leases/revoke`. Current servers answer 204 to the revocation of an unknown
/// lease.
fn unknown_lease(text: &str) -> Kind {
    if contains_any(text, &["lease not found", "invalid lease"]) { Kind::Gone } else { Kind::Transient }
}

fn contains_any(text: &str, pieces: &[&str]) -> bool {
    pieces.iter().any(|piece| text.contains(piece))
}

/// Texts that come with any status while a cluster changes its leader, or from a node that should have forwarded the
/// request. They are whole phrases, since a role may be named `readonly`.
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
