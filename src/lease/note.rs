//! What a role says for the log and the metrics. Floor 1.

use std::time::Duration;

use super::ids::{GenerationId, TokenId};

/// What a machine has found, for the log and the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    /// A successor is needed; its issuance begins.
    Issuing(Reason),
    /// A credential was published.
    Published {
        number: GenerationId,
        reason: Reason,
        /// Whether it was proved.
        proved: bool,
        /// Whether it is not the route's first.
        successor: bool,
    },
    /// A fresh credential was proved and stands by.
    StandsBy(GenerationId),
    /// A lease was renewed.
    Renewed {
        number: GenerationId,
        /// `lease_duration`.
        lease: Duration,
        /// Whether it was granted only in part: the last renewal.
        capped: bool,
    },
    /// The token's renewal was granted only in part, or cannot be.
    TokenEnding(TokenId),
    /// The token at hand ends too soon for a lease under it to be of use: none is asked for.
    TokenOfNoUse(TokenId),
    /// A lease is gone before its end.
    Lost(GenerationId),
    /// A grant is too short to be of use.
    TooShort(GenerationId),
    /// A candidate was refused for good.
    CandidateRefused(GenerationId),
    /// What an earlier process left is refused, so a fresh one is issued.
    NotTakenUp(GenerationId),
    /// The sessions of a generation are closed.
    Closing(GenerationId, Cause),
    /// What became of a lease at its end.
    Returned(GenerationId, Outcome),
    /// A generation serves new sessions again, as its successor is gone.
    Recalled(GenerationId),
    /// A generation of a lazy route serves new sessions again: it was wanted before its end.
    WantedAgain(GenerationId),
}

/// How a lease was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It was revoked by itself.
    Lease,
    /// It went with its token, and was seen to be gone.
    Token,
    /// Its token is revoked, or dead; whether the lease went with it could not be seen.
    Unverified,
    /// It should have gone with its token, and is there: Vault cannot revoke it either, and tries again for a while.
    Stays,
    /// Its revocation is forbidden: it lapses.
    Forbidden,
    /// Its revocation failed, or a session may still be open on the server: it lapses.
    Failed,
}

/// Why a fresh credential is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// The route has never had a credential.
    First,
    /// `rotate_after` or `max_age`, or the previous one ended before its successor came.
    Schedule,
    /// The lease cannot be extended any more, or not in full.
    Capped,
    /// The lease is not renewable, or may not be renewed, or its renewals keep failing.
    NotRenewable,
    /// The token that owns the lease ends.
    Token,
    /// The lease is gone.
    Revoked,
    /// The server refuses the credential though its lease seems to live.
    Refused,
    /// An operator asked for it.
    Command,
    /// The configuration has changed.
    Reload,
    /// An earlier process has left a credential that is good.
    TakenUp,
    /// It is issued ahead of need, to stand by.
    Standby,
}

impl Reason {
    /// The word in the metric and the log.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Schedule => "schedule",
            Self::Capped => "capped",
            Self::NotRenewable => "not_renewable",
            Self::Token => "token",
            Self::Revoked => "revoked",
            Self::Refused => "refused",
            Self::Command => "command",
            Self::Reload => "reload",
            Self::TakenUp => "taken_up",
            Self::Standby => "standby",
        }
    }
}

/// Why the sessions of a generation are closed, whatever they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The lease, or the token that owns it, ends.
    LeaseEnd,
    /// The lease is gone.
    Lost,
    /// `rotate --drain` ended it.
    CutShort,
}
