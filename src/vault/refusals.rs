//! When a credential that Vault refused is sent to Vault again. Floor 2.
//!
//! After five refused logins, Vault locks a user or AppRole out for fifteen minutes, for each client that logs in with
//! it. The count is reset after fifteen minutes without a refused login. During the lockout Vault answers 403; such
//! logins are not counted and do not prolong the lockout. So a refused credential is tried again twice, in case that
//! Vault does not know it yet, and after that at an interval longer than the reset.
//!
//! Reference: <https://developer.hashicorp.com/vault/docs/concepts/user-lockout>

use std::time::Duration;

use tokio::time::Instant;

use super::Failure;
use crate::secret::Secret;

/// The credential that Vault refused.
#[derive(Default)]
pub(super) struct Refusals {
    latest: Option<Refused>,
}

/// The credential that was refused last.
struct Refused {
    credential: Secret,
    /// What Vault said.
    refusal: Failure,
    /// How often it was refused.
    times: usize,
    /// When it may be tried again.
    again_at: Instant,
}

impl Refusals {
    /// What Vault said of this credential, and how long it must not be sent. `None`: it may be sent now, as any credential
    /// that was not refused.
    pub(super) fn withheld(&self, credential: &Secret, now: Instant) -> Option<(&Failure, Duration)> {
        let refused = self.latest.as_ref().filter(|refused| refused.credential.same(credential))?;
        (now < refused.again_at).then(|| (&refused.refusal, refused.again_at.duration_since(now)))
    }

    /// Vault refused the login. `jitter` is a fraction from 0 to 1.
    pub(super) fn refused(
        &mut self,
        credential: &Secret,
        refusal: &Failure,
        counted: Counted,
        now: Instant,
        jitter: f64,
    ) {
        let before = self.latest.take().filter(|refused| refused.credential.same(credential));
        let count = before.map_or(0, |refused| refused.times);
        let waits = match counted {
            Counted::Yes => &COUNTED,
            Counted::No => &NOT_COUNTED,
        };
        let [.., last] = waits;
        let wait = waits.get(count).unwrap_or(last);
        let again_at = now + wait.mul_f64(1.0 + jitter / 8.0);
        self.latest = Some(Refused {
            credential: credential.clone(),
            refusal: refusal.clone(),
            times: count.saturating_add(1),
            again_at,
        });
    }

    /// Vault accepted a login.
    pub(super) fn accepted(&mut self) {
        self.latest = None;
    }

    /// Ends the wait: a login is wanted now.
    pub(super) fn retry_now(&mut self, now: Instant) {
        if let Some(refused) = &mut self.latest {
            refused.again_at = now;
        }
    }
}

/// Whether Vault counts a refusal towards a lockout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Yes,
    No,
}

/// The waits before the second try, the third, and each later try. The second try is early, since a standby that lags
/// may not know the credential yet. The last wait is longer than `lockout_counter_reset`, which is 15 minutes by
/// default.
const COUNTED: [Duration; 3] = [Duration::from_secs(1), Duration::from_mins(1), Duration::from_mins(16)];

/// The waits if Vault does not count the refusals.
const NOT_COUNTED: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(10), Duration::from_secs(30)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vault::{Kind, Operation};

    /// Vault refuses this credential.
    fn refuse(refusals: &mut Refusals, credential: &str, counted: Counted, now: Instant, jitter: f64) {
        let refusal = Failure::answered(Operation::LogIn, Kind::Refused, 400, "invalid secret id", &[]);
        refusals.refused(&secret(credential), &refusal, counted, now, jitter);
    }

    fn wait(refusals: &Refusals, credential: &str, now: Instant) -> Option<Duration> {
        refusals.withheld(&secret(credential), now).map(|(_, wait)| wait)
    }

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
                refuse(&mut refusals, "wrong", Counted::Yes, now, jitter);
                now += wait(&refusals, "wrong", now).unwrap();
            }
            assert!(tries.len() > 70, "it does not give up: {}", tries.len());
            // Vault counts until fifteen minutes have passed without a refused login.
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
                refuse(&mut refusals, "wrong", Counted::No, now, 0.0);
                wait(&refusals, "wrong", now).unwrap().as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 10, 30, 30, 30]);
    }

    #[test]
    fn another_credential_is_tried_at_once_and_so_is_one_that_somebody_asks_for() {
        let now = Instant::now();
        let mut refusals = Refusals::default();
        for _ in 0..5 {
            refuse(&mut refusals, "wrong", Counted::Yes, now, 0.5);
        }
        assert_eq!(wait(&refusals, "right", now), None);
        assert!(wait(&refusals, "wrong", now).is_some());
        refusals.retry_now(now);
        assert_eq!(wait(&refusals, "wrong", now), None);
        refuse(&mut refusals, "wrong", Counted::Yes, now, 0.0);
        assert_eq!(wait(&refusals, "wrong", now), Some(COUNTED[2]), "it counts on");
        refusals.accepted();
        refuse(&mut refusals, "wrong", Counted::Yes, now, 0.0);
        assert_eq!(wait(&refusals, "wrong", now), Some(COUNTED[0]));
    }
}
