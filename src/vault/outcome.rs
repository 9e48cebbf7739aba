//! The outcome of a request, for the metrics, the pace and the status. Pure. Floor 2.

use super::classify::{classify, is_server_trouble};
use super::operation::Operation;
use super::pace::Went;
use super::transport::{NoReply, Reply};
use super::{Kind, replies};
use crate::metrics::VaultOutcome;

/// The state of Vault at the latest request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Vault answered, and serves.
    Serving,
    /// Vault answered that it is sealed.
    Sealed,
    /// Vault answered that it cannot serve: no leader, not set up, a node that serves nothing.
    NotServing,
    /// No answer of Vault's came, or no request has been sent yet.
    #[default]
    Unreachable,
}

/// What an outcome says of Vault as a whole.
fn went(outcome: VaultOutcome) -> Went {
    match outcome {
        VaultOutcome::Ok => Went::Well,
        VaultOutcome::Denied | VaultOutcome::ClientError => Went::Refused,
        VaultOutcome::ServerError | VaultOutcome::Timeout | VaultOutcome::Unreachable => Went::Trouble,
    }
}

/// What an answer, or its absence, says of Vault, and whether it is about the path that was asked.
pub(super) fn about(operation: Operation, result: &Result<Reply, NoReply>) -> (Went, bool) {
    match result {
        // A quota is of a path, or of all of them; a standby says the same of its health.
        Ok(reply) if reply.status == 429 && operation != Operation::Health && is_vaults(operation, reply) => {
            (Went::Busy, true)
        }
        Ok(reply) => (went(outcome(operation, result)), operation == Operation::Issue && is_of_path(reply)),
        Err(_) => (went(outcome(operation, result)), false),
    }
}

/// Whether an answer to a creds request is about its path: Vault's own, such as an unknown role's or a broken statement's.
/// A sealed or leaderless node says the same of every path.
fn is_of_path(reply: &Reply) -> bool {
    reply.status != 503 && is_vaults(Operation::Issue, reply)
}

/// Whether an answer is Vault's own word, by its body.
pub(super) fn is_vaults(operation: Operation, reply: &Reply) -> bool {
    match (operation, reply.status) {
        (Operation::Health, _) => replies::is_health(&reply.body),
        (_, 200..=299) => replies::is_success(reply.status, &reply.body),
        _ => replies::errors(&reply.body).is_some(),
    }
}

/// What an answer says of Vault itself.
pub(super) fn standing(operation: Operation, result: &Result<Reply, NoReply>) -> Standing {
    let reply = match result {
        Ok(reply) if is_vaults(operation, reply) => reply,
        Err(NoReply::Redirected(_)) => return Standing::NotServing,
        Ok(_) | Err(_) => return Standing::Unreachable,
    };
    let says_sealed = || {
        let errors = replies::errors(&reply.body).unwrap_or_default();
        errors.iter().any(|error| error.contains("is sealed"))
    };
    match reply.status {
        503 if operation == Operation::Health || says_sealed() => Standing::Sealed,
        472 | 501 | 503 => Standing::NotServing,
        473 if operation != Operation::Health => Standing::NotServing,
        _ => Standing::Serving,
    }
}

/// What a server's answer, or its absence, means to the caller, and to the requests after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// What it means for the request. `Forbidden` stands for what the look-up of the token has still to tell apart.
    pub(crate) kind: Kind,
    /// What it says of Vault as a whole.
    pub(crate) went: Went,
    /// Whether it is about the path.
    pub(crate) slows: bool,
}

/// Judges an answer that is not a success as [`Vault`](super::Vault) would, without a server: its status, and its first error.
#[must_use]
pub(crate) fn judge(operation: Operation, status: u16, said: &str) -> Verdict {
    let errors = vec![said.to_owned()];
    let body = serde_json::json!({ "errors": &errors }).to_string().into_bytes().into();
    let reply = Ok(Reply { status, retry_after: None, date: None, body });
    let (went, slows) = about(operation, &reply);
    Verdict { kind: classify(operation, status, Some(&errors), ""), went, slows }
}

/// Judges a request to which no answer came: `sent` is whether there was a connection.
#[must_use]
pub(crate) fn judge_silence(operation: Operation, sent: bool) -> Verdict {
    let (kind, silence) = if sent {
        (Kind::TimedOut, NoReply::TimedOut)
    } else {
        (Kind::Transient, NoReply::NotSent(String::new()))
    };
    let (went, slows) = about(operation, &Err(silence));
    Verdict { kind, went, slows }
}

/// The label of the metric.
pub(super) fn outcome(operation: Operation, result: &Result<Reply, NoReply>) -> VaultOutcome {
    match result {
        Ok(reply) if !is_vaults(operation, reply) => VaultOutcome::ServerError,
        // That a lease is not there is an answer, and the expected one.
        Ok(Reply { status: 400, body, .. })
            if operation == Operation::LookUpLease
                && classify(operation, 400, replies::errors(body).as_deref(), "") == Kind::Gone =>
        {
            VaultOutcome::Ok
        }
        Ok(reply) => match reply.status {
            200..=299 => VaultOutcome::Ok,
            403 => VaultOutcome::Denied,
            status if is_server_trouble(status) => VaultOutcome::ServerError,
            _ => VaultOutcome::ClientError,
        },
        Err(NoReply::Redirected(_)) => VaultOutcome::ServerError,
        Err(NoReply::TimedOut) => VaultOutcome::Timeout,
        Err(NoReply::NotSent(_) | NoReply::Untrusted(_) | NoReply::Lost(..)) => VaultOutcome::Unreachable,
    }
}
