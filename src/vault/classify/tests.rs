//! The answers of OpenBao 2.7 and Vault, and their meaning.

use super::*;

/// The user whose lease is renewed.
const USER: &str = "v-token-app-x";

const CASES: &[(Operation, u16, &str, Kind)] = &[
    // Renewals
    (Operation::Renew, 400, "lease not found", Kind::Gone),
    (Operation::Renew, 400, "lease expired", Kind::Gone),
    (Operation::Renew, 400, "invalid lease", Kind::Gone),
    (Operation::Renew, 400, "lease not found or lease is not renewable", Kind::Gone),
    (
        Operation::Renew,
        400,
        "failed to renew entry: resp: (*logical.Response)(nil) err: failed to connect to `host=127.0.0.1`: dial tcp 127.0.0.1:5432: connect: connection refused",
        Kind::Transient,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: resp: (*logical.Response)(nil) err: context deadline exceeded (timeout)",
        Kind::Transient,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: resp: (*logical.Response)(nil) err: past the max TTL, cannot renew",
        Kind::CannotExtend,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: resp: (*logical.Response)(nil) err: error during renew: could not find role with name \"tmp\"",
        Kind::CannotExtend,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: resp: (*logical.Response)(nil) err: failed to execute query: ERROR: role \"v-token-app-x\" does not exist (SQLSTATE 42704)",
        Kind::Gone,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: resp: (*logical.Response)(nil) err: pq: role \"v-token-app-x\" does not exist",
        Kind::Gone,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: failed to execute query: FEHLER: Rolle »v-token-app-x« existiert nicht (SQLSTATE 42704)",
        Kind::Gone,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: failed to execute query: ERROR: role \"readers\" does not exist (SQLSTATE 42704)",
        Kind::CannotExtend,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: failed to execute query: ERROR: role \"v-token-app-x2\" does not exist (SQLSTATE 42704)",
        Kind::CannotExtend,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: pq: role \"v-token-app-y\" does not exist",
        Kind::Transient,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: failed to connect: server error (FATAL: role \"vaultadmin\" does not exist (SQLSTATE 28000))",
        Kind::Transient,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: failed to connect: server error (FATAL: database \"app\" does not exist (SQLSTATE 3D000))",
        Kind::Transient,
    ),
    (Operation::Renew, 400, "lease is not renewable", Kind::CannotExtend),
    (Operation::Renew, 400, "something that nobody has seen", Kind::Transient),
    (Operation::Renew, 400, "cannot write to readonly storage", Kind::Transient),
    (
        Operation::Renew,
        400,
        "failed to renew entry: could not find role with name \"readonly\"",
        Kind::CannotExtend,
    ),
    (
        Operation::Renew,
        400,
        "failed to renew entry: ERROR: cannot alter role \"v-token-app-x-1787442704\" (SQLSTATE 42501)",
        Kind::Transient,
    ),
    (Operation::Renew, 404, "", Kind::Transient),
    (Operation::Renew, 403, "permission denied", Kind::Forbidden),
    (Operation::Renew, 503, "Vault is sealed", Kind::Transient),
    (Operation::RenewToken, 400, "batch tokens cannot be renewed", Kind::CannotExtend),
    (Operation::RenewToken, 400, "lease is not renewable", Kind::CannotExtend),
    (Operation::RenewToken, 400, "unexpected", Kind::Transient),
    // Creds
    (Operation::Issue, 400, "unknown role: missing", Kind::Refused),
    (Operation::Issue, 400, "unknown role: read-only", Kind::Refused),
    (
        Operation::Issue,
        404,
        "no handler for route \"nothere/creds/app\". route entry not found.",
        Kind::Refused,
    ),
    (
        Operation::Issue,
        400,
        "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked.",
        Kind::Refused,
    ),
    (
        Operation::Issue,
        500,
        "1 error occurred:\n\t* unable to start transaction: failed to connect to `host=127.0.0.1`: connection refused\n\n",
        Kind::Transient,
    ),
    (
        Operation::Issue,
        500,
        "1 error occurred:\n\t* failed to execute query: ERROR: syntax error at or near \"ROL\" (SQLSTATE 42601)\n\n",
        Kind::Refused,
    ),
    (
        Operation::Issue,
        500,
        "1 error occurred:\n\t* failed to execute query: ERROR: role \"readers\" does not exist (SQLSTATE 42704)\n\n",
        Kind::Refused,
    ),
    (Operation::Issue, 500, "1 error occurred:\n\t* \"app\" is not an allowed role\n\n", Kind::Refused),
    (
        Operation::Issue,
        500,
        "failed to connect: FATAL: sorry, too many clients already (SQLSTATE 53300)",
        Kind::Transient,
    ),
    (Operation::Issue, 503, "syntax error at or near \"ROL\" (SQLSTATE 42601)", Kind::Transient),
    (Operation::Issue, 403, "1 error occurred:\n\t* permission denied\n\n", Kind::Forbidden),
    (
        Operation::Issue,
        429,
        "request path \"database/creds/app\": rate limit quota exceeded",
        Kind::Transient,
    ),
    (Operation::Issue, 503, "Vault is sealed", Kind::Transient),
    (Operation::Issue, 500, "local node not active but active cluster node not found", Kind::Transient),
    (Operation::Issue, 400, "node is not active", Kind::Transient),
    (Operation::Issue, 412, "required index state not present", Kind::Transient),
    (Operation::Issue, 472, "", Kind::Transient),
    (Operation::Issue, 473, "", Kind::Transient),
    (Operation::Issue, 307, "", Kind::Transient),
    (Operation::Issue, 408, "", Kind::Transient),
    // Logins
    (Operation::LogIn, 400, "invalid role or secret ID", Kind::Refused),
    (Operation::LogIn, 400, "invalid role name \"x\"", Kind::Refused),
    (Operation::LogIn, 403, "permission denied", Kind::Refused),
    (Operation::LogIn, 500, "missing role_id", Kind::Transient),
    (Operation::LogIn, 503, "Vault is sealed", Kind::Transient),
    // Look-ups
    (Operation::LookUp, 403, "permission denied", Kind::TokenDead),
    (
        Operation::LookUp,
        403,
        "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n",
        Kind::TokenDead,
    ),
    (Operation::LookUp, 403, "bad token", Kind::TokenDead),
    (Operation::LookUp, 403, "1 error occurred:\n\t* permission denied\n\n", Kind::Forbidden),
    (Operation::LookUp, 403, "", Kind::Transient),
    (Operation::LookUp, 403, "access denied by the proxy in front", Kind::Transient),
    (Operation::LookUp, 400, "?", Kind::Transient),
    (Operation::LookUpLease, 400, "invalid lease", Kind::Gone),
    (Operation::LookUpLease, 400, "?", Kind::Transient),
    (Operation::LookUpLease, 403, "1 error occurred:\n\t* permission denied\n\n", Kind::Forbidden),
    // Revocations
    (Operation::Revoke, 400, "failed to revoke entry: resp: connection refused", Kind::Transient),
    (Operation::Revoke, 400, "lease not found", Kind::Gone),
    (Operation::Revoke, 403, "1 error occurred:\n\t* permission denied\n\n", Kind::Forbidden),
    (Operation::RevokeToken, 400, "batch tokens cannot be revoked", Kind::Refused),
    (Operation::Health, 400, "", Kind::Transient),
];

#[test]
fn each_known_answer_has_its_meaning() {
    for (operation, status, text, kind) in CASES {
        let errors = if text.is_empty() { vec![] } else { vec![(*text).to_owned()] };
        let found = classify(*operation, *status, Some(&errors), USER);
        assert_eq!(found, *kind, "{operation:?} {status} {text:?}");
    }
}

#[test]
fn what_is_not_vaults_json_is_transient_whatever_its_status() {
    for operation in crate::vault::fuzz::OPERATIONS {
        for status in 300..=599 {
            assert_eq!(classify(operation, status, None, USER), Kind::Transient, "{operation:?} {status}");
        }
    }
}

#[test]
fn a_user_is_named_as_a_word_of_its_own() {
    let long = format!("v-{}", "x".repeat(80));
    let cut: String = long.chars().take(63).collect();
    for (text, user, named) in [
        ("role \"v-app-1\" does not exist", "v-app-1", true),
        ("le rôle « v-app-1 » n'existe pas", "v-app-1", true),
        ("role \"v-app-1\" does not exist", "v-app", false),
        ("role \"xv-app-1\" does not exist", "v-app-1", false),
        ("v-app-12, v-app-1", "v-app-1", true),
        (&format!("role \"{cut}\" does not exist"), &long, true),
        ("role \"\" does not exist", "", false),
    ] {
        assert_eq!(names(text, user), named, "{text} {user}");
    }
}
