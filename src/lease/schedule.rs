//! The arithmetic of leases: margins, usable life, renewal time, drain, back-off. Floor 1.

use crate::time::Time;
use std::time::Duration;

/// How long before `end_at` the hard close begins, so that a CancelRequest can land.
pub(crate) const CANCEL_LEAD: Duration = Duration::from_secs(1);
/// A grant with less usable life than this is given back.
pub(crate) const LEAST_USABLE: Duration = Duration::from_secs(2);
/// A grant shorter than the longest by more than this is capped. Vault rounds to whole seconds.
pub(crate) const CAP_SLACK: Duration = Duration::from_secs(1);
/// The longest wait for the upstream's EOF after a hard close.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(5);

/// The margin between `end_at` and the end of a lease: 5 % of the lease, at least 2 s, at most 5 s.
///
/// Vault rounds a TTL to whole seconds and enforces the expiry of the roles, so the last seconds cannot be used.
#[must_use]
pub(crate) fn margin(lease: Duration) -> Duration {
    (lease / 20).clamp(Duration::from_secs(2), Duration::from_secs(5))
}

/// The time from the sending of a request to the hard close that its grant leads to.
#[must_use]
pub(crate) fn usable(grant: Duration, margin: Duration) -> Duration {
    grant.saturating_sub(margin).saturating_sub(CANCEL_LEAD)
}

/// When to renew: at two thirds of the usable life, earlier by at most a tenth of that, or by most of it with a
/// [wide](Jitter::wide) jitter. The renewal is never within a second, so that a token that is too short is not renewed in
/// a hot loop.
#[must_use]
pub(crate) fn renew_at(sent_at: Time, usable: Duration, jitter: Jitter) -> Time {
    let two_thirds = (usable.saturating_mul(2) / 3).max(Duration::from_secs(1));
    let earlier = if jitter.is_wide { two_thirds - two_thirds / 8 } else { two_thirds / 10 };
    sent_at + (two_thirds - jitter.of(earlier)).max(Duration::from_secs(1))
}

/// How long before the hard close the drain of a retired generation begins.
///
/// `setting`, or a tenth of the lease as issued and at most 5 minutes; never more than a quarter of the usable life,
/// which is after the latest moment of a renewal.
#[must_use]
pub(crate) fn drain(setting: Option<Duration>, as_issued: Duration, usable: Duration) -> Duration {
    setting.unwrap_or_else(|| (as_issued / 10).min(Duration::from_mins(5))).min(usable / 4)
}

/// The wait before try `attempt` (the first is 0): `first` doubled each time up to `most`, less up to a quarter.
#[must_use]
pub(crate) fn back_off(attempt: u32, first: Duration, most: Duration, jitter: Jitter) -> Duration {
    let wait = first.saturating_mul(1 << attempt.min(20)).min(most);
    wait - jitter.of(wait / 4)
}

/// The wait before try `attempt` of a request that is not urgent: 0.5 s, eightfold each time up to `most`, less up to a
/// quarter.
#[must_use]
pub(crate) fn back_off_by_eight(attempt: u32, most: Duration, jitter: Jitter) -> Duration {
    back_off(attempt.saturating_mul(3), Duration::from_millis(500), most, jitter)
}

/// The longest wait between attempts that have to succeed within `left`: a third of it, and at least 1 s. If minutes
/// are left, half of it, and at most 10 min.
///
/// Back-off alone might exceed the rest of a short lease although Vault has long been back. If much time is left,
/// nothing is urgent, and a whole fleet does not send its requests within half a minute of Vault's return.
#[must_use]
pub(crate) fn longest_wait(left: Duration) -> Duration {
    let part = if left > Duration::from_mins(2) { left / 2 } else { left / 3 };
    part.clamp(Duration::from_secs(1), Duration::from_mins(10))
}

/// The times at which the leases of two credentials are renewed: half a `period` apart, more or less, so that at any
/// time either has nearly two thirds of its life left. Neither time is later than planned.
///
/// What jitter has put off is put right by the renewal that is late, so by little. Only a first renewal may have to
/// come much earlier. That is the standby's: the other is spread over the fleet.
#[must_use]
pub(crate) fn antiphase(current: Time, standby: Time, period: Duration) -> (Time, Time) {
    let span = period.as_nanos();
    if span == 0 {
        return (current, standby);
    }
    let phase = |ahead: u128, behind: u128| (ahead % span + span - behind % span) % span;
    // How far the standby's is beyond the time that is half a period away, and how far the other is beyond its own.
    let late = (phase(standby.since(current).as_nanos(), current.since(standby).as_nanos()) + span
        - span / 2)
        % span;
    let early = span - late;
    let by = |nanos: u128| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
    if late <= span / 16 || early <= span / 16 {
        (current, standby)
    } else if early <= span / 8 {
        (current - by(early), standby)
    } else {
        (current, standby - by(late))
    }
}

/// How long a renewal, a look-up or a login may take: a quarter of the usable life, at least 2 s.
#[must_use]
pub(crate) fn patience(usable: Duration) -> Duration {
    (usable / 4).max(Duration::from_secs(2))
}

/// A request that is repeated until it succeeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Retry {
    tries: u32,
    /// `None` while it is in flight.
    at: Option<Time>,
}

impl Retry {
    /// The first attempt is in flight.
    pub(super) const IN_FLIGHT: Self = Self { tries: 0, at: None };
    /// No attempt is made.
    pub(super) const GIVEN_UP: Self = Self { tries: 0, at: Some(Time::NEVER) };

    /// The first attempt is made at this time.
    pub(super) fn at(at: Time) -> Self {
        Self { tries: 0, at: Some(at) }
    }

    /// When the next attempt is made; `None` while an attempt is in flight.
    pub(super) fn due(self) -> Option<Time> {
        self.at
    }

    /// The next attempt is in flight.
    pub(super) fn again(self) -> Self {
        Self { at: None, ..self }
    }

    /// An attempt failed, and another follows after a back-off.
    pub(super) fn failed(self, now: Time, jitter: Jitter) -> Self {
        let wait = back_off(self.tries, Duration::from_millis(500), Duration::from_secs(30), jitter);
        Self { tries: self.tries.saturating_add(1), at: Some(now + wait) }
    }
}

/// A fraction that differs between processes and moments, and is the same for the same seed and salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Jitter {
    /// Of 2^20.
    fraction: u32,
    is_wide: bool,
}

impl Jitter {
    /// No jitter.
    pub(crate) const NONE: Self = Self { fraction: 0, is_wide: false };

    /// Seed 0 is [`Jitter::NONE`].
    #[must_use]
    pub(crate) fn new(seed: u64, salt: u64) -> Self {
        if seed == 0 {
            return Self::NONE;
        }
        // splitmix64: https://prng.di.unimi.it/splitmix64.c
        let mut x = seed.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self { fraction: u32::try_from((x ^ (x >> 31)) >> 44).unwrap_or(0), is_wide: false }
    }

    /// The same, for a term that many processes may have been granted at the same time, after a common start or Vault's
    /// return. Their renewals would come together again and again: a tenth of a period spreads them within days, a
    /// single renewal at any time spreads them at once.
    #[must_use]
    pub(crate) fn wide(self) -> Self {
        Self { is_wide: true, ..self }
    }

    /// The fraction of `span`, below the whole.
    #[must_use]
    pub(crate) fn of(self, span: Duration) -> Duration {
        // 20 bits of fraction; a span of a century still fits.
        let nanos = span.as_nanos().saturating_mul(u128::from(self.fraction)) >> 20;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn margin_is_five_percent_between_two_and_five_seconds() {
        assert_eq!(margin(S(10)), S(2));
        assert_eq!(margin(S(60)), S(3));
        assert_eq!(margin(S(3600)), S(5));
    }

    #[test]
    fn renewal_is_never_after_two_thirds_nor_a_tenth_before() {
        let sent = Time::from_nanos(0);
        for salt in 0..1000 {
            let at = renew_at(sent, S(900), Jitter::new(7, salt));
            assert!(at <= sent + S(600) && at > sent + S(540), "{at:?}");
        }
    }

    #[test]
    fn a_renewal_that_is_spread_is_at_any_time_from_a_twelfth_to_two_thirds() {
        let sent = Time::from_nanos(0);
        let times: Vec<_> =
            (0..1000).map(|salt| renew_at(sent, S(900), Jitter::new(7, salt).wide())).collect();
        assert!(times.iter().all(|at| *at <= sent + S(600) && *at > sent + S(75)), "{times:?}");
        for tenth in 1..10 {
            let before = times.iter().filter(|at| at.since(sent) < S(75) + S(525) * tenth / 10).count();
            let even = 100 * tenth as usize;
            assert!(before.abs_diff(even) < 60, "{before} of a thousand come before tenth {tenth}");
        }
        assert_eq!(renew_at(sent, S(900), Jitter::NONE.wide()), sent + S(600));
        assert!(renew_at(sent, S(1), Jitter::new(7, 1).wide()) >= sent + S(1), "never within a second");
    }

    #[test]
    fn drain_begins_after_the_latest_renewal() {
        for lease in [10, 20, 60, 600, 3600, 86_400] {
            let usable = usable(S(lease), margin(S(lease)));
            let drain = drain(Some(S(100_000)), S(lease), usable);
            assert!(usable - drain > usable * 2 / 3, "lease {lease}");
        }
    }

    #[test]
    fn back_off_doubles_to_its_most() {
        let waits: Vec<_> = (0..8).map(|n| back_off(n, S(1), S(30), Jitter::NONE).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
    }
}
