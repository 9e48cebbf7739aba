//! How a route comes to a fresh credential: one issuance at a time. Floor 1.

use std::time::Duration;

use super::ids::{GenerationId, TokenId};
use super::note::Reason;
use super::schedule::{self, Jitter};
use crate::bucket::Bucket;
use crate::time::Time;

/// One issuance at a time.
///
/// ```text
///   Idle ──needed──▶ LoggingIn ──▶ Requesting ──granted──▶ Proving ──proved──▶ Idle
///    ▲                   │ failed      │ failed               │ refused
///    └──── time ──── BackOff ◀─────────┴──────────────────────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Issuance {
    pub(super) state: State,
    /// Grants out of turn, and requests that may have made a credential and did not bring it.
    pub(super) bucket: Bucket,
    /// Whether the next request waits for the bucket whatever it is for: the latest one may have made a credential that
    /// leasehold does not have, or made one that no server accepts while nothing is usable.
    pub(super) awaits_bucket: bool,
    pub(super) failures: u32,
}

/// Where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum State {
    /// Nothing to do.
    Idle,
    /// A login is in flight.
    LoggingIn { reason: Reason },
    /// A creds request is in flight.
    Requesting { reason: Reason, token: TokenId },
    /// A candidate is being proved.
    Proving {
        reason: Reason,
        number: GenerationId,
        /// How often it has been tried.
        tries: u32,
        /// Whether a host refused it the last time.
        refused: bool,
        /// When it is tried again; `None` while a proof is in flight.
        again_at: Option<Time>,
    },
    /// Waiting after a failure.
    BackOff {
        /// Until then.
        until: Time,
        /// Whether it waits out a refusal, of Vault or of the server, which is not Vault's absence.
        slow: bool,
    },
}

/// What an attempt failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureClass {
    /// Vault is away, or what it is asked with is not there yet: it may work at any moment.
    Transient,
    /// Vault said no, or gave what is of no use: it will do the same until somebody acts.
    Refused,
    /// The server refuses what Vault gave.
    ProofRefused,
}

/// What a proof that failed has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unproved {
    /// A server refuses the candidate.
    Refused,
    /// The servers that sessions go to do not know it yet.
    Lags,
    /// No server could say.
    NotAsked,
}

impl Issuance {
    pub(super) fn new(burst: u32, interval: Duration) -> Self {
        Self { state: State::Idle, bucket: Bucket::full(burst, interval), awaits_bucket: false, failures: 0 }
    }

    /// An attempt failed. `most` bounds the wait.
    pub(super) fn fail(&mut self, now: Time, class: FailureClass, most: Duration, jitter: Jitter) {
        let first = match class {
            FailureClass::Transient | FailureClass::Refused => Duration::from_millis(500),
            FailureClass::ProofRefused => Duration::from_secs(5),
        };
        let until = now + schedule::back_off(self.failures, first, most, jitter);
        self.state = State::BackOff { until, slow: class != FailureClass::Transient };
        self.failures = self.failures.saturating_add(1);
    }

    /// A credential was published.
    pub(super) fn succeed(&mut self) {
        self.state = State::Idle;
        self.failures = 0;
    }
}
