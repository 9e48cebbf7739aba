//! What an attempt at a fresh credential failed by, and how long it is waited out. Floor 1.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::schedule::{self, Jitter};

/// The longest waits while no credential is usable: for what Vault misses, and for what an operator has to mend.
const LONGEST_UNSERVED_ABSENCE: RangeInclusive<Duration> = Duration::from_secs(3)..=Duration::from_secs(30);
/// From so many failures on, which is a minute, the shorter of the two becomes a second longer with each.
const SHORT_WAITS: u32 = 20;
const LONGEST_UNSERVED_REFUSAL: Duration = Duration::from_secs(30);
/// The longest wait after a refused proof while another credential is usable.
const LONGEST_SERVED_PROOF_REFUSAL: Duration = Duration::from_mins(5);

/// What an attempt failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureClass {
    /// Vault is away, or what it is asked with is not there yet: it may work at any moment.
    Transient,
    /// Vault said no, or gave what is of no use: it will do the same until an operator acts.
    Refused,
    /// The server refuses what Vault gave.
    ProofRefused,
}

impl FailureClass {
    /// Whether Vault or the server said no.
    pub(super) fn is_refusal(self) -> bool {
        self != Self::Transient
    }

    /// The wait after so many failures before this one. A credential is usable for so long yet (`left`), or none is.
    pub(super) fn back_off(self, failures: u32, left: Option<Duration>, jitter: Jitter) -> Duration {
        let first = match self {
            Self::Transient | Self::Refused => Duration::from_millis(500),
            Self::ProofRefused => Duration::from_secs(5),
        };
        let most = match (self, left) {
            (Self::ProofRefused, Some(_)) => LONGEST_SERVED_PROOF_REFUSAL,
            (Self::Transient | Self::Refused, Some(left)) => schedule::longest_wait(left),
            (_, None) => longest_unserved(self.is_refusal(), failures),
        };
        schedule::back_off(failures, first, most, jitter)
    }
}

/// The longest wait while no credential is usable, after so many failures. A Vault that has been away for long is not asked
/// by a whole fleet every three seconds, nor met by all of it within three when it is back.
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
