//! The one timer of a session: it exists only while a drain's moment is awaited. Floor 4.

use crate::time::Time;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use tokio::time::Sleep;

/// Wakes the task at a time of the boot-time clock.
#[derive(Default)]
pub(crate) struct Timer(Option<Armed>);

struct Armed {
    at: Time,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    /// Wakes the task at this time, or a little before it; without one, no more.
    pub(crate) fn wake_at(&mut self, cx: &mut Context<'_>, now: Time, at: Option<Time>) {
        let Some(at) = at else {
            self.0 = None;
            return;
        };
        if let Some(armed) = &mut self.0
            && armed.at == at
            && armed.sleep.as_mut().poll(cx).is_pending()
        {
            return;
        }
        let mut sleep = Box::pin(tokio::time::sleep(at.since(now)));
        if sleep.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.0 = Some(Armed { at, sleep });
    }
}
