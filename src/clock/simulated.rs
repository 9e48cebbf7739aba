//! A clock that goes with tokio's, for the thread of a test: where tokio's is paused, this one jumps with it. Floor 0.

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
