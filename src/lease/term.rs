//! A grant of time that can be extended, as leases and tokens have it. Floor 1.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::Failure;
use super::schedule::{self, Jitter};
use crate::time::Time;

/// A term and its renewal.
///
/// ```text
///   Scheduled ──due──▶ InFlight ──granted in full──▶ Scheduled
///       ▲                 │ transient: back-off ──────▶ Scheduled; refused before ──▶ Stopped
///       │                 │ granted less, refused, or never again
///       └── refused, and its replacement fails too ─── Stopped
/// ```
/// There is no state for "ended": the time says that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Term {
    /// When the request of the latest grant was sent.
    sent_at: Time,
    /// `sent_at` and the grant; [`Time::NEVER`] for a token without an end.
    ends_at: Time,
    /// The latest grant.
    granted: Duration,
    longest: Duration,
    margin: Duration,
    renewal: Renewal,
    pub(super) renewals: u32,
    failures: u32,
}

/// The state of a term's renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Renewal {
    /// It will be requested at this time.
    Scheduled {
        at: Time,
        /// If Vault refused the latest renewal that it answered: a successor is needed from then on.
        refused: Option<Time>,
    },
    /// The request was sent.
    InFlight {
        /// As in [`Renewal::Scheduled`]. The successor waits for the answer.
        refused: Option<Time>,
    },
    /// The term is not renewed any more; one that was refused is asked for again before each further try of a replacement.
    Stopped {
        why: NotRenewed,
        /// A successor is needed from then on.
        replace_at: Time,
    },
}

/// Why a term is not renewed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum NotRenewed {
    /// The latest grant was shorter than an earlier grant, or Vault said that the term cannot be extended.
    Capped,
    /// It is not renewable.
    NotRenewable,
    /// Vault refused its renewal, or the policy forbids it. It is asked again when its replacement fails as well.
    Refused,
    /// A renewal would pass `max_age`.
    MaxAge,
    /// Too many generations are retiring.
    Unneeded,
    /// It has no end.
    Endless,
}

impl Term {
    /// A term by its first grant. `span` is `None` if it has no end.
    pub(crate) fn new(sent_at: Time, span: Option<Duration>, renewable: bool, jitter: Jitter) -> Self {
        let granted = span.unwrap_or(Duration::MAX);
        let margin = schedule::margin(granted);
        let mut term = Self {
            sent_at,
            ends_at: span.map_or(Time::NEVER, |span| sent_at + span),
            granted,
            longest: granted,
            margin,
            renewal: Renewal::Stopped { why: NotRenewed::Endless, replace_at: Time::NEVER },
            renewals: 0,
            failures: 0,
        };
        if span.is_some() {
            term.plan(renewable, jitter);
        }
        term
    }

    /// A term of another process. A renewal that was in flight is requested again.
    pub(super) fn resumed(self, now: Time) -> Self {
        match self.renewal {
            Renewal::InFlight { refused } => {
                Self { renewal: Renewal::Scheduled { at: now, refused }, ..self }
            }
            Renewal::Scheduled { .. } | Renewal::Stopped { .. } => self,
        }
    }

    /// When the request of its latest grant was sent.
    pub(crate) fn sent_at(&self) -> Time {
        self.sent_at
    }

    /// Its end, without any margin.
    pub(crate) fn ends_at(&self) -> Time {
        self.ends_at
    }

    /// The time by which everything under it must have ended: its end, less the margin.
    pub(crate) fn end_at(&self) -> Time {
        self.ends_at - self.margin
    }

    /// The time that is kept before its end.
    pub(crate) fn margin(&self) -> Duration {
        self.margin
    }

    /// The longest grant so far.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }

    /// The state of its renewal.
    pub(crate) fn renewal(&self) -> Renewal {
        self.renewal
    }

    /// When its renewal will be requested.
    pub(crate) fn renews_at(&self) -> Option<Time> {
        match self.renewal {
            Renewal::Scheduled { at, .. } => Some(at),
            Renewal::InFlight { .. } | Renewal::Stopped { .. } => None,
        }
    }

    /// If the renewal is planned for later, it is requested at this time.
    pub(super) fn renew_by(&mut self, at: Time) {
        if let Renewal::Scheduled { at: planned, .. } = &mut self.renewal {
            *planned = (*planned).min(at);
        }
    }

    /// How often it has been renewed.
    pub(crate) fn renewals(&self) -> u32 {
        self.renewals
    }

    /// Whether its latest renewal failed, so that it is tried again.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// The usable life of its latest grant.
    pub(crate) fn usable(&self) -> Duration {
        schedule::usable(self.granted, self.margin)
    }

    /// Why a successor is needed, and from when on; `None` as long as it can be renewed.
    pub(super) fn replace(&self) -> Option<(NotRenewed, Time)> {
        match self.renewal {
            Renewal::Stopped { why, replace_at } => Some((why, replace_at)),
            Renewal::Scheduled { refused, .. } => refused.map(|at| (NotRenewed::Refused, at)),
            Renewal::InFlight { .. } => None,
        }
    }

    /// The time from which a successor is needed; never, as long as it can be renewed.
    pub(crate) fn replace_at(&self) -> Time {
        self.replace().map_or(Time::NEVER, |(_, at)| at)
    }

    /// If its latest renewal failed, or Vault refused it, it is asked again by this time.
    pub(super) fn ask_again_by(&mut self, at: Time) {
        match self.renewal {
            Renewal::Stopped { why: NotRenewed::Refused, .. } => {
                self.renewal = Renewal::Scheduled { at, refused: self.refused() };
            }
            Renewal::Scheduled { .. } if self.is_failing() => self.renew_by(at),
            _ => {}
        }
    }

    /// The request was sent.
    pub(crate) fn renewal_sent(&mut self) {
        self.renewal = Renewal::InFlight { refused: self.refused() };
    }

    /// From when on a successor is needed, if Vault refused the latest renewal that it answered.
    pub(super) fn refused(&self) -> Option<Time> {
        match self.renewal {
            Renewal::Scheduled { refused, .. } | Renewal::InFlight { refused } => refused,
            Renewal::Stopped { why: NotRenewed::Refused, replace_at } => Some(replace_at),
            Renewal::Stopped { .. } => None,
        }
    }

    /// It has ended early.
    pub(crate) fn expired(&mut self, now: Time) {
        self.ends_at = self.ends_at.min(now);
        self.over(NotRenewed::NotRenewable, now);
    }

    /// A check has failed: the renewal returns to its state before the check.
    pub(crate) fn restore(&mut self, before: Renewal) {
        self.renewal = before;
    }

    /// It is not renewed any more.
    pub(crate) fn over(&mut self, why: NotRenewed, replace_at: Time) {
        self.renewal = Renewal::Stopped { why, replace_at };
    }

    /// The reply to a renewal. True if the grant was shorter than before, so that this was the last renewal.
    pub(crate) fn renewed(
        &mut self,
        now: Time,
        sent_at: Time,
        span: Option<Duration>,
        renewable: bool,
        jitter: Jitter,
    ) -> bool {
        self.failures = 0;
        self.renewals += 1;
        self.sent_at = sent_at;
        let Some(span) = span else {
            self.ends_at = Time::NEVER;
            self.over(NotRenewed::Endless, Time::NEVER);
            return false;
        };
        self.ends_at = sent_at + span;
        self.granted = span;
        if span.saturating_add(schedule::CAP_SLACK) < self.longest {
            self.over(NotRenewed::Capped, now);
            return true;
        }
        self.longest = self.longest.max(span);
        self.plan(renewable, jitter);
        false
    }

    /// The renewal failed. It is tried again with back-off, unless Vault has said that it cannot be extended.
    pub(crate) fn failed(&mut self, now: Time, failure: Failure, jitter: Jitter) {
        match failure {
            Failure::CannotExtend => self.over(NotRenewed::Capped, now),
            // The term is treated as not renewable: a successor is needed after two thirds.
            Failure::Forbidden | Failure::Refused | Failure::Unusable => {
                self.failures = self.failures.saturating_add(1);
                self.over(NotRenewed::Refused, schedule::renew_at(self.sent_at, self.usable(), jitter));
            }
            Failure::Transient | Failure::TimedOut | Failure::TokenDead | Failure::Gone => {
                let most = schedule::longest_wait((self.end_at() - schedule::CANCEL_LEAD).since(now));
                let wait = schedule::back_off_by_eight(self.failures, most, jitter);
                self.failures = self.failures.saturating_add(1);
                // What was refused before waits for the next try of its replacement, and does not put that off.
                self.renewal = match self.refused() {
                    Some(replace_at) => Renewal::Stopped { why: NotRenewed::Refused, replace_at },
                    None => Renewal::Scheduled { at: now + wait, refused: None },
                };
            }
        }
    }

    fn plan(&mut self, renewable: bool, jitter: Jitter) {
        let at = schedule::renew_at(self.sent_at, self.usable(), jitter);
        self.renewal = if renewable {
            Renewal::Scheduled { at, refused: None }
        } else {
            Renewal::Stopped { why: NotRenewed::NotRenewable, replace_at: at }
        };
    }
}
