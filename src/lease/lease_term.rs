//! The term of a lease, and its checks. A check is an early renewal, sent to see whether the lease lives. Floor 1.

use std::time::Duration;

use super::event::Failure;
use super::schedule::{self, Jitter};
use super::term::{NotRenewed, Renewal, Term};
use crate::time::Time;

/// The term of a lease, and its checks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LeaseTerm {
    term: Term,
    /// When a renewal was last asked for as a check.
    checked_at: Option<Time>,
    /// The check that the renewal in flight answers.
    check: Option<Check>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Check {
    /// The state of its renewal before the check.
    before: Renewal,
    /// Whether a login waits for the answer.
    is_awaited: bool,
}

impl Check {
    /// Whether it changes nothing that it is granted: Vault extends this lease, and it is not renewed all the same. A
    /// refusal is over once Vault has granted a renewal.
    fn is_moot(&self) -> bool {
        matches!(self.before, Renewal::Stopped { why, .. } if why != NotRenewed::Refused)
    }
}

/// The result of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Renewed {
    /// Whether the grant was shorter than before, so that this was the last renewal.
    pub(super) capped: bool,
    /// Whether a login waits for the answer.
    pub(super) is_awaited: bool,
}

/// The result of a request for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checked {
    /// A renewal is sent, and may take this long.
    Asked(Duration),
    /// The renewal in flight answers it.
    InFlight,
    /// It was checked too recently.
    TooEarly,
}

impl LeaseTerm {
    /// No check is in flight.
    pub(super) fn new(term: Term) -> Self {
        Self { term, checked_at: None, check: None }
    }

    /// Its term.
    pub(super) fn term(&self) -> &Term {
        &self.term
    }

    /// Its renewal is sent. Gives how long that may take.
    pub(super) fn ask(&mut self) -> Duration {
        self.term.renewal_sent();
        schedule::patience(self.term.usable())
    }

    /// A renewal that is planned for later is asked for at this time.
    pub(super) fn renew_by(&mut self, at: Time) {
        self.term.renew_by(at);
    }

    /// If its latest renewal failed, or Vault refused it, it is asked again by this time.
    pub(super) fn ask_again_by(&mut self, at: Time) {
        self.term.ask_again_by(at);
    }

    /// It is not renewed any more, and a successor is needed from now on.
    pub(super) fn end_renewals(&mut self, now: Time, why: NotRenewed) {
        self.term.over(why, now);
    }

    /// It was renewed.
    pub(super) fn renewed(
        &mut self,
        now: Time,
        sent_at: Time,
        lease: Duration,
        renewable: bool,
        jitter: Jitter,
    ) -> Renewed {
        let check = self.check.take();
        let capped = self.term.renewed(now, sent_at, Some(lease), renewable, jitter);
        let moot = check.filter(Check::is_moot);
        if let Some(Check { before, .. }) = moot {
            self.term.restore(before);
        }
        Renewed { capped: capped && moot.is_none(), is_awaited: check.is_some_and(|check| check.is_awaited) }
    }

    /// Its renewal failed. True if a login waits for the answer.
    pub(super) fn failed(&mut self, now: Time, failure: Failure, jitter: Jitter) -> bool {
        let check = self.check.take();
        match (failure, check.map(|check| check.before)) {
            (Failure::Gone | Failure::TokenDead, _) => {}
            (_, Some(before @ Renewal::Stopped { .. })) => self.term.restore(before),
            // A failed check before the renewal's time is not a failed renewal; at its time it is.
            (Failure::Transient | Failure::TimedOut, Some(before @ Renewal::Scheduled { at, .. }))
                if now < at =>
            {
                self.term.restore(before);
            }
            (failure, _) => self.term.failed(now, failure, jitter),
        }
        check.is_some_and(|check| check.is_awaited)
    }

    /// Checks whether the lease lives, at most once in `every`, and not if its renewal `is_barred`. If the check
    /// `is_awaited`, a login waits for the answer.
    pub(super) fn check(&mut self, now: Time, every: Duration, is_barred: bool, is_awaited: bool) -> Checked {
        let before = self.term.renewal();
        if matches!(before, Renewal::InFlight { .. }) {
            self.check.get_or_insert(Check { before, is_awaited: false }).is_awaited |= is_awaited;
            return Checked::InFlight;
        }
        if is_barred || self.checked_at.is_some_and(|at| now < at + every) {
            return Checked::TooEarly;
        }
        self.checked_at = Some(now);
        self.check = Some(Check { before, is_awaited });
        Checked::Asked(self.ask())
    }

    /// Puts in another term, for a bug that is planted on purpose.
    #[cfg(test)]
    pub(super) fn plant(&mut self, term: Term) {
        self.term = term;
    }

    /// What no decision hangs on is made equal, so that the model check knows a state again.
    #[cfg(test)]
    pub(super) fn forget_counts(&mut self) {
        self.term.renewals = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(5);

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    /// A lease of 106 s that is renewed at 66.67 s.
    fn lease(renewable: bool) -> LeaseTerm {
        LeaseTerm::new(Term::new(at(0), Some(Duration::from_secs(106)), renewable, Jitter::NONE))
    }

    fn renewed(lease: &mut LeaseTerm, second: u64, span: u64) -> Renewed {
        lease.renewed(at(second), at(second), Duration::from_secs(span), true, Jitter::NONE)
    }

    #[test]
    fn a_check_is_a_renewal_and_is_made_every_so_often() {
        let mut lease = lease(true);
        assert_eq!(lease.check(at(1), EVERY, true, true), Checked::TooEarly, "it may not be renewed");
        assert!(matches!(lease.check(at(1), EVERY, false, true), Checked::Asked(_)));
        assert_eq!(lease.check(at(1), EVERY, false, false), Checked::InFlight);
        assert_eq!(renewed(&mut lease, 2, 106), Renewed { capped: false, is_awaited: true });
        assert_eq!(lease.check(at(5), EVERY, false, false), Checked::TooEarly);
        assert!(matches!(lease.check(at(6), EVERY, false, false), Checked::Asked(_)));
        assert!(!lease.failed(at(6), Failure::Transient, Jitter::NONE), "no login waits");
    }

    #[test]
    fn a_check_that_comes_to_nothing_leaves_the_renewal_where_it_was() {
        let mut lease = lease(true);
        let planned = lease.term().renewal();
        lease.check(at(1), EVERY, false, true);
        assert!(lease.failed(at(2), Failure::TimedOut, Jitter::NONE));
        assert_eq!((lease.term().renewal(), lease.term().is_failing()), (planned, false));
        lease.check(at(60), EVERY, false, true);
        assert!(lease.failed(at(70), Failure::TimedOut, Jitter::NONE));
        assert!(lease.term().is_failing(), "its own time had come too");
    }

    #[test]
    fn a_check_of_what_is_not_renewed_does_not_have_it_renewed_again() {
        let mut lease = lease(false);
        let stopped = lease.term().renewal();
        lease.check(at(1), EVERY, false, true);
        assert_eq!(renewed(&mut lease, 2, 50), Renewed { capped: false, is_awaited: true });
        assert_eq!(lease.term().renewal(), stopped);
        lease.check(at(9), EVERY, false, false);
        lease.failed(at(9), Failure::Forbidden, Jitter::NONE);
        assert_eq!(lease.term().renewal(), stopped);
    }

    #[test]
    fn a_renewal_that_is_granted_in_part_is_the_last_one() {
        let mut lease = lease(true);
        lease.ask();
        assert_eq!(renewed(&mut lease, 60, 50), Renewed { capped: true, is_awaited: false });
        assert_eq!(lease.term().renews_at(), None);
    }
}
