//! What a role says for the log and the metrics. Floor 1.

use std::time::Duration;

use super::ids::{GenerationId, TokenId};

/// What a machine found that nobody else can tell.
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
    /// By itself.
    Lease,
    /// With its token, and it was seen to be gone.
    Token,
    /// Its token is revoked, or dead, and nobody could see whether the lease went with it.
    Unverified,
    /// With its token, and yet it is there: Vault cannot revoke it either, and tries again for a while.
    Stays,
    /// Forbidden: it lapses.
    Forbidden,
    /// It did not work, or may not be: it lapses.
    Failed,
}

/// Why a fresh credential is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Reason {
    /// There has never been one.
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
    /// Somebody asked.
    Command,
    /// The configuration has changed.
    Reload,
    /// An earlier process has left one that is good.
    TakenUp,
    /// Ahead of need.
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
