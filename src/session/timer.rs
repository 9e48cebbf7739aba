//! The one timer of a session: it exists only while a drain's moment is awaited. Floor 4.

use crate::time::Time;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;

use pin_project_lite::pin_project;
use tokio::time::Sleep;

/// Wakes the task at a time of the boot-time clock.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<Armed>>>);

pin_project! {
    struct Armed {
        at: Time,
        #[pin]
        sleep: Sleep,
    }
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
            && armed.as_mut().project().sleep.poll(cx).is_pending()
        {
            return;
        }
        let mut armed = Box::pin(Armed { at, sleep: tokio::time::sleep(at.since(now)) });
        if armed.as_mut().project().sleep.poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        self.0 = Some(armed);
    }
}
