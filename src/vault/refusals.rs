//! When a credential that Vault refused is shown to it again. Floor 2.
//!
//! Vault locks a user or AppRole out after five refused logins, for fifteen minutes and for everybody who logs in as it. It
//! counts on until fifteen minutes have passed without one. What is tried while the lock is on is refused with 403, and
//! neither counted nor does it prolong the lock. So a credential that was refused is tried again twice, in case that it is
//! yet to be made known to Vault, and after that less often than Vault forgets.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/concepts/user-lockout>

use std::time::Duration;

use tokio::time::Instant;

use crate::secret::Secret;

/// What Vault has refused.
#[derive(Default)]
pub(super) struct Refusals {
    /// The credential that was refused the last time, how often, and when it is tried again.
    latest: Option<(Secret, usize, Instant)>,
}

impl Refusals {
    /// How long this credential is not to be shown; `None`: it may be, as one that was not refused may at any time.
    pub(super) fn wait(&self, credential: &Secret, now: Instant) -> Option<Duration> {
        let (_, _, again_at) = self.latest.as_ref().filter(|(refused, ..)| refused.same(credential))?;
        (now < *again_at).then(|| again_at.duration_since(now))
    }

    /// Vault refused the login. `jitter` is a fraction from 0 to 1.
    pub(super) fn refused(&mut self, credential: &Secret, counted: Counted, now: Instant, jitter: f64) {
        let before = self.latest.take().filter(|(refused, ..)| refused.same(credential));
        let count = before.map_or(0, |(_, count, _)| count);
        let waits = match counted {
            Counted::Yes => &COUNTED,
            Counted::No => &NOT_COUNTED,
        };
        let [.., last] = waits;
        let wait = waits.get(count).unwrap_or(last);
        let again_at = now + wait.mul_f64(1.0 + jitter / 8.0);
        self.latest = Some((credential.clone(), count.saturating_add(1), again_at));
    }

    /// Vault accepted a login.
    pub(super) fn accepted(&mut self) {
        self.latest = None;
    }

    /// Forgets the wait: a login is wanted now.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if let Some((_, _, again_at)) = &mut self.latest {
            *again_at = now;
        }
    }
}

/// Whether Vault counts a refusal towards a lockout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Yes,
    No,
}

/// The waits before the second try, the third, and each later one. The second comes soon, as a standby that lags may not know
/// the credential yet. The last is longer than `lockout_counter_reset`, which is 15 minutes by default.
const COUNTED: [Duration; 3] = [Duration::from_secs(1), Duration::from_mins(1), Duration::from_mins(16)];

/// The same where Vault does not count refusals.
const NOT_COUNTED: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(30)];

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn a_refused_credential_is_tried_three_times_and_then_less_often_than_vault_counts() {
        let start = Instant::now();
        for jitter in [0.0, 0.99] {
            let mut refusals = Refusals::default();
            let mut now = start;
            let mut tries = Vec::new();
            while now < start + Duration::from_hours(24) {
                tries.push(now);
                refusals.refused(&secret("wrong"), Counted::Yes, now, jitter);
                now += refusals.wait(&secret("wrong"), now).unwrap();
            }
            assert!(tries.len() > 70, "it does not give up: {}", tries.len());
            // As Vault counts: on and on, until there is none for fifteen minutes.
            let mut count = 1;
            for pair in tries.windows(2) {
                count = if pair[1] - pair[0] > Duration::from_mins(15) { 1 } else { count + 1 };
                assert!(count <= 3);
            }
        }
    }

    #[test]
    fn where_nobody_is_locked_out_it_is_tried_every_half_minute() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        let waits: Vec<_> = (0..5)
            .map(|_| {
                refusals.refused(&secret("wrong"), Counted::No, now, 0.0);
                refusals.wait(&secret("wrong"), now).unwrap().as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 10, 30, 30, 30]);
    }

    #[test]
    fn another_credential_is_tried_at_once_and_so_is_one_that_somebody_asks_for() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        for _ in 0..5 {
            refusals.refused(&secret("wrong"), Counted::Yes, now, 0.5);
        }
        assert_eq!(refusals.wait(&secret("right"), now), None);
        assert!(refusals.wait(&secret("wrong"), now).is_some());
        refusals.retry_now(now);
        assert_eq!(refusals.wait(&secret("wrong"), now), None);
        refusals.refused(&secret("wrong"), Counted::Yes, now, 0.0);
        assert_eq!(refusals.wait(&secret("wrong"), now), Some(COUNTED[2]), "it counts on");
        refusals.accepted();
        refusals.refused(&secret("wrong"), Counted::Yes, now, 0.0);
        assert_eq!(refusals.wait(&secret("wrong"), now), Some(COUNTED[0]));
    }
}
