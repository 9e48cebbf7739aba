//! What a role reports for the log and the metrics. Floor 1.

use std::time::Duration;

use super::ids::{GenerationId, TokenId};

/// A report of a role, for the log and the metrics.
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
        /// Whether the grant was shorter than before, which makes it the last renewal.
        capped: bool,
    },
    /// The token's renewal was granted only in part, or is not possible.
    TokenEnding(TokenId),
    /// The token ends too early for a useful lease, so none is requested.
    TokenOfNoUse(TokenId),
    /// A lease is gone before its end.
    Lost(GenerationId),
    /// A grant is too short.
    TooShort(GenerationId),
    /// A candidate was refused finally.
    CandidateRefused(GenerationId),
    /// The credential of an earlier process is refused, so a fresh credential is issued.
    NotTakenUp(GenerationId),
    /// The sessions of a generation are closed.
    Closing(GenerationId, Cause),
    /// The outcome of a lease at its end.
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
    /// It was revoked with its token, and a look-up did not find it any more.
    Token,
    /// Its token is revoked or dead; whether the lease was revoked with it is unknown.
    Unverified,
    /// It should have been revoked with its token, and still exists: Vault cannot revoke it either, and tries again for
    /// a while.
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
    /// `rotate_after` or `max_age`, or the previous credential ended before its successor came.
    Schedule,
    /// The lease cannot be extended any more, or not completely.
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
    /// An earlier process has left a usable credential.
    TakenUp,
    /// It is issued ahead of need, to stand by.
    Standby,
}

impl Reason {
    /// The value in the metric and the log.
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

    /// Whether many processes may have it at the same time: after a common start, or by what somebody has done to all.
    pub(super) fn is_common(self) -> bool {
        matches!(self, Self::First | Self::Revoked | Self::Refused | Self::Command | Self::Reload)
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
