//! The class of a failed attempt at a fresh credential, and the wait after it. Floor 1.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::schedule::{self, Jitter};

/// The longest waits while no credential is usable: after transient failures, and after refusals, which an operator has
/// to correct.
const LONGEST_UNSERVED_ABSENCE: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(30);
/// After this number of failures, which is a minute, the shorter wait grows by a second with each failure.
const SHORT_WAITS: u32 = 20;
const LONGEST_UNSERVED_REFUSAL: Duration = Duration::from_secs(30);
/// The first waits.
const FIRST: Duration = Duration::from_millis(500);
const FIRST_PROOF: Duration = Duration::from_secs(5);
/// The longest wait after a refused proof while another credential is usable.
const LONGEST_SERVED_PROOF_REFUSAL: Duration = Duration::from_mins(5);

/// The class of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureClass {
    /// Vault cannot be reached, or something for the request is not there yet: it may succeed at any moment.
    Transient,
    /// Vault refused, or its reply cannot be used: this lasts until an operator acts.
    Refused,
    /// The server refuses the credential.
    ProofRefused,
}

impl FailureClass {
    /// Whether Vault or the server refused.
    pub(super) fn is_refusal(self) -> bool {
        self != Self::Transient
    }

    /// The wait after this failure and `failures` before it. `left`: how long a credential is still usable, if any.
    pub(super) fn back_off(self, failures: u32, left: Option<Duration>, jitter: Jitter) -> Duration {
        match (self, left) {
            (Self::ProofRefused, Some(_)) => {
                schedule::back_off(failures, FIRST_PROOF, LONGEST_SERVED_PROOF_REFUSAL, jitter)
            }
            (Self::Transient | Self::Refused, Some(left)) => {
                schedule::back_off_by_eight(failures, schedule::longest_wait(left), jitter)
            }
            (Self::Transient | Self::Refused, None) => {
                schedule::back_off(failures, FIRST, longest_unserved(self.is_refusal(), failures), jitter)
            }
            (Self::ProofRefused, None) => {
                schedule::back_off(failures, FIRST_PROOF, LONGEST_UNSERVED_REFUSAL, jitter)
            }
        }
    }
}

/// The longest wait while no credential is usable, after this number of failures. It keeps a whole fleet from sending
/// requests every three seconds to a Vault that has long been away, and from sending all of them within three seconds
/// of its return.
pub(super) fn longest_unserved(is_refusal: bool, failures: u32) -> Duration {
    let (least, most) = LONGEST_UNSERVED_ABSENCE.into_inner();
    let more = Duration::from_secs(failures.saturating_sub(SHORT_WAITS).into());
    if is_refusal { LONGEST_UNSERVED_REFUSAL } else { (least + more).min(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_what_the_route_can_afford() {
        let longest = |class: FailureClass, left: Option<u64>| {
            class.back_off(SHORT_WAITS, left.map(Duration::from_secs), Jitter::NONE).as_secs()
        };
        assert_eq!(longest(FailureClass::Transient, None), 3);
        let after = |failures| FailureClass::Transient.back_off(failures, None, Jitter::NONE).as_secs();
        assert_eq!([25, 40, 100].map(after), [8, 23, 30], "and longer, where it lasts");
        let served = |failures| {
            FailureClass::Transient
                .back_off(failures, Some(Duration::from_hours(1)), Jitter::NONE)
                .as_millis()
        };
        assert_eq!(
            [0, 1, 2, 3, 4].map(served),
            [500, 4000, 32_000, 256_000, 600_000],
            "eightfold while served"
        );
        assert_eq!(longest(FailureClass::Refused, None), 30);
        assert_eq!(longest(FailureClass::ProofRefused, None), 30);
        for class in [FailureClass::Transient, FailureClass::Refused] {
            assert_eq!(longest(class, Some(12)), 4, "a third of what is left");
            assert_eq!(class.back_off(0, None, Jitter::NONE), Duration::from_millis(500));
        }
        assert_eq!(longest(FailureClass::ProofRefused, Some(12)), 300);
        assert_eq!(FailureClass::ProofRefused.back_off(0, None, Jitter::NONE), Duration::from_secs(5));
    }
}
