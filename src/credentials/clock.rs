//! The one place where the machines' time comes from. Floor 3.

use rustix::time::{ClockId, clock_gettime};

use crate::lease::Time;

/// Now, by the clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`).
#[must_use]
pub fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
