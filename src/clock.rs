//! The clocks: the only module that reads them. Floor 0.

#[cfg(test)]
pub(crate) mod simulated;

use std::time::SystemTime;

use rustix::time::{ClockId, clock_gettime};

use crate::time::Time;

/// Now, by the clock that goes on while the machine is suspended (`CLOCK_BOOTTIME`).
#[must_use]
pub(crate) fn now() -> Time {
    #[cfg(test)]
    if let Some(now) = simulated::now() {
        return now;
    }
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// The wall clock, for what people read. It jumps: nothing is decided by it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock for people")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
