//! Whether the server still accepts the current credential after a login with it was refused. Floor 1.
//!
//! A refusal may be due to the client's request, such as a database that wants another kind of password. So it is no
//! evidence against the credential: first the credential is proved where candidates are proved.
//!
//! ```text
//!   Unasked ──a login was refused──▶ Proving ──▶ LetsIn or Refused
//!      ▲                                              │
//!      └──────── `ASK_EVERY`, or another credential ──┘
//! ```

use super::ids::GenerationId;
use crate::time::Time;
use std::time::Duration;

/// The least time between two proofs, however many logins are refused.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What is known about the credential of refused logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Doubt {
    /// Nothing is known.
    Unasked,
    /// A proof of this generation is in flight.
    Proving(GenerationId),
    /// The proof found that the server accepts it.
    LetsIn(GenerationId, Time),
    /// The proof did not find that the server accepts it.
    Refused(GenerationId, Time),
}

/// What follows for a refused login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The credential is proved first.
    Prove,
    /// The login waits, for the proof in flight or for the issuance under way.
    Wait,
    /// The credential is good.
    LetsIn,
    /// The credential is refused, as far as is known: it is replaced, or a static role's is read again.
    Replace,
}

impl Doubt {
    /// A login with this credential was refused.
    pub(super) fn ask(&mut self, now: Time, number: GenerationId) -> Remedy {
        match *self {
            Self::Proving(n) if n == number => Remedy::Wait,
            Self::LetsIn(n, at) if n == number && now < at + ASK_EVERY => Remedy::LetsIn,
            Self::Refused(n, at) if n == number && now < at + ASK_EVERY => Remedy::Replace,
            _ => {
                *self = Self::Proving(number);
                Remedy::Prove
            }
        }
    }

    /// The proof of a credential has ended. False if it was not requested here.
    pub(super) fn settle(&mut self, now: Time, number: GenerationId, lets_in: bool) -> bool {
        if *self != Self::Proving(number) {
            return false;
        }
        *self = if lets_in { Self::LetsIn(number, now) } else { Self::Refused(number, now) };
        true
    }

    /// Whether a proof of this credential is in flight.
    pub(super) fn is_proving(self, number: GenerationId) -> bool {
        self == Self::Proving(number)
    }
}

/// Lets one replacement through in a minute, then fewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReplaceGate {
    opens_at: Time,
    interval: Duration,
}

impl ReplaceGate {
    const FIRST: Duration = Duration::from_mins(1);
    const MOST: Duration = Duration::from_mins(10);

    pub(super) fn new() -> Self {
        Self { opens_at: Time::from_nanos(0), interval: Self::FIRST }
    }

    pub(super) fn pass(&mut self, now: Time) -> bool {
        if now < self.opens_at {
            return false;
        }
        // No replacement was requested for another interval, so the limit starts again.
        if now >= self.opens_at + self.interval {
            self.interval = Self::FIRST;
        }
        self.opens_at = now + self.interval;
        self.interval = (self.interval * 2).min(Self::MOST);
        true
    }
}
