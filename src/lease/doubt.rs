//! Whether the server still lets in with the current credential, where a login with it was refused. Floor 1.
//!
//! What one client asks for, a database that wants another kind of password say, is no evidence against a credential:
//! before anything is done about it, the credential is proved where candidates are proved.
//!
//! ```text
//!   Unasked ──a login was refused──▶ Proving ──▶ LetsIn or Refused
//!      ▲                                              │
//!      └──────── `ASK_EVERY`, or another credential ──┘
//! ```

use super::ids::GenerationId;
use crate::time::Time;
use std::time::Duration;

/// A credential is proved anew at most this often, however many logins are refused.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// What is known of the credential that logins are refused with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Doubt {
    /// Nothing is known.
    Unasked,
    /// A proof of this one is in flight.
    Proving(GenerationId),
    /// The proof found that it lets in.
    LetsIn(GenerationId, Time),
    /// The proof did not find that.
    Refused(GenerationId, Time),
}

/// What a refused login comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The credential has to be proved first.
    Prove,
    /// A proof is in flight.
    Wait,
    /// The credential is good.
    LetsIn,
    /// It is not, as far as is known.
    Refused,
}

impl Doubt {
    /// A login with this credential was refused.
    pub(super) fn ask(&mut self, now: Time, number: GenerationId) -> Answer {
        match *self {
            Self::Proving(n) if n == number => Answer::Wait,
            Self::LetsIn(n, at) if n == number && now < at + ASK_EVERY => Answer::LetsIn,
            Self::Refused(n, at) if n == number && now < at + ASK_EVERY => Answer::Refused,
            _ => {
                *self = Self::Proving(number);
                Answer::Prove
            }
        }
    }

    /// The proof of a credential has come back. False if it was not ours.
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

/// Lets one replacement through a minute, then less often.
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
        // No replacement was asked for as long again: it starts afresh.
        if now >= self.opens_at + self.interval {
            self.interval = Self::FIRST;
        }
        self.opens_at = now + self.interval;
        self.interval = (self.interval * 2).min(Self::MOST);
        true
    }
}
