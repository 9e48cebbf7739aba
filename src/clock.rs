//! The clocks: the only module that reads them. Floor 0.

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

/// A clock that goes with tokio's, for the thread of a test: where tokio's is paused, this one jumps with it.
#[cfg(test)]
pub(crate) mod simulated {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Time;

    thread_local! {
        static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    /// From now on [`super::now`] goes with tokio's clock on this thread.
    pub(crate) fn follow_tokio() {
        let now = Instant::now();
        // The thread may have had another test, whose clock has jumped ahead.
        if BEGAN.get().is_none_or(|began| now < began) {
            BEGAN.set(Some(now));
        }
    }

    pub(super) fn now() -> Option<Time> {
        let began = BEGAN.get()?;
        let since_boot = Duration::from_secs(1_000_000) + Instant::now().saturating_duration_since(began);
        Some(Time::from_nanos(0) + since_boot)
    }
}
