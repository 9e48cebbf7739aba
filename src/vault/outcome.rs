//! The outcome of a request, for the metrics, the rate limiter and the status. Pure. Floor 2.

use secrecy::zeroize::Zeroizing;

use super::classify::{classify, is_server_trouble};
use super::operation::Operation;
use super::pace::Went;
use super::transport::{NoReply, Reply};
use super::{Kind, replies};
use crate::metrics::VaultOutcome;

/// The state of Vault at the latest request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Vault answered, and serves requests.
    Serving,
    /// Vault answered that it is sealed.
    Sealed,
    /// Vault answered that it cannot serve requests: it has no leader, is not initialized, or the node serves none.
    NotServing,
    /// Vault did not answer.
    Unreachable,
    /// No request has been sent yet.
    #[default]
    NotAsked,
}

impl Standing {
    /// The state in a word or two.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Sealed => "sealed",
            Self::NotServing => "not serving",
            Self::Unreachable => "unreachable",
            Self::NotAsked => "not asked yet",
        }
    }
}

/// The meaning of an outcome for the state of Vault as a whole.
fn went(outcome: VaultOutcome) -> Went {
    match outcome {
        VaultOutcome::Ok => Went::Well,
        VaultOutcome::Denied | VaultOutcome::ClientError => Went::Refused,
        VaultOutcome::ServerError | VaultOutcome::Timeout | VaultOutcome::Unreachable => Went::Trouble,
    }
}

/// The meaning of an answer, or of a missing answer, for the state of Vault, and whether it is about the path of the
/// request.
pub(super) fn about(operation: Operation, result: &Result<Reply, NoReply>) -> (Went, bool) {
    match result {
        // A quota applies to a path or to all paths. For a health request, 429 means a standby.
        Ok(reply) if reply.status == 429 && operation != Operation::Health && is_vaults(operation, reply) => {
            (Went::Busy, true)
        }
        Ok(reply) => (went(outcome(operation, result)), operation == Operation::Issue && is_of_path(reply)),
        Err(_) => (went(outcome(operation, result)), false),
    }
}

/// Whether an answer to a creds request is about its path: it is Vault's own, such as that for an unknown role or a
/// broken statement. A sealed or leaderless node answers each path with the same status.
fn is_of_path(reply: &Reply) -> bool {
    reply.status != 503 && is_vaults(Operation::Issue, reply)
}

/// Whether the body shows that the answer is Vault's own.
pub(super) fn is_vaults(operation: Operation, reply: &Reply) -> bool {
    match (operation, reply.status) {
        (Operation::Health, _) => replies::is_health(&reply.body),
        (_, 200..=299) => replies::is_success(reply.status, &reply.body),
        _ => replies::errors(&reply.body).is_some(),
    }
}

/// The state of Vault by an answer.
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

/// The meaning of an answer, or of a missing answer, for its request and for the rate limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The meaning for the request. For `Forbidden`, a look-up of the token has still to distinguish the causes.
    pub(crate) kind: Kind,
    /// The meaning for the state of Vault as a whole.
    pub(crate) went: Went,
    /// Whether the answer is about the path.
    pub(crate) slows: bool,
}

/// Judges an unsuccessful answer as [`Vault`](super::Vault) does, without a server. `said` is the answer's first error.
#[must_use]
pub(crate) fn judge(operation: Operation, status: u16, said: &str) -> Verdict {
    let errors = vec![said.to_owned()];
    let body = serde_json::json!({ "errors": &errors }).to_string().into_bytes().into();
    let reply = Ok(Reply { status, retry_after: None, date: None, body });
    let (went, slows) = about(operation, &reply);
    Verdict { kind: classify(operation, status, Some(&errors), ""), went, slows }
}

/// Judges a request without an answer. `sent` says whether there was a connection.
#[must_use]
pub(crate) fn judge_silence(operation: Operation, sent: bool) -> Verdict {
    let (kind, silence) = if sent {
        (Kind::TimedOut, NoReply::TimedOut(Zeroizing::default()))
    } else {
        (Kind::Transient, NoReply::NotSent(String::new()))
    };
    let (went, slows) = about(operation, &Err(silence));
    Verdict { kind, went, slows }
}

/// The value of the metric's label.
pub(super) fn outcome(operation: Operation, result: &Result<Reply, NoReply>) -> VaultOutcome {
    match result {
        Ok(reply) if !is_vaults(operation, reply) => VaultOutcome::ServerError,
        // The answer that a lease does not exist is expected, so it is no failure.
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
        Err(NoReply::TimedOut(_)) => VaultOutcome::Timeout,
        Err(NoReply::NotSent(_) | NoReply::Untrusted(_) | NoReply::Lost(..)) => VaultOutcome::Unreachable,
    }
}
