//! The clocks: the only module that reads them. Floor 0.

#[cfg(test)]
pub(crate) mod simulated;

use std::time::{Duration, SystemTime};

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

/// The clock of service managers, which stands still while the machine is suspended (`CLOCK_MONOTONIC`), since its start. Nothing is
/// decided by it.
#[must_use]
pub(crate) fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// The wall clock, for what people read. It jumps: nothing is decided by it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock for people")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

/// The wall clock's word for a time, RFC 3339 in UTC. `None` for what never comes. `now` is the time of now, so that many
/// times that are shown together cost one look at the clock.
#[must_use]
pub(crate) fn rfc3339(now: Time, at: Time) -> Option<String> {
    if at == Time::NEVER {
        return None;
    }
    let wall_now = wall();
    let wall =
        if at >= now { wall_now.checked_add(at.since(now))? } else { wall_now.checked_sub(now.since(at))? };
    Some(humantime::format_rfc3339_millis(wall).to_string())
}
