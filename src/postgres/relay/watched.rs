//! A `watch` that a hand-written future can look at on every wake-up at the price of two loads. Floor 4.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Waker};

use tokio::sync::watch;

/// The latest value of a `watch`, and a bell that wakes the task when it changes.
///
/// Polling `changed()` takes a lock each time; here the bell is polled only where the value has changed since, or the
/// task's waker has.
pub(super) struct Watched<T> {
    latest: watch::Receiver<T>,
    bell: Pin<Box<dyn Future<Output = ()> + Send>>,
    waker: Option<Waker>,
}

impl<T: Copy + Send + Sync + 'static> Watched<T> {
    pub(super) fn new(latest: watch::Receiver<T>) -> Self {
        let mut ringing = latest.clone();
        let bell = Box::pin(async move {
            while ringing.changed().await.is_ok() {}
            // The sender is gone: the value is final.
            std::future::pending::<()>().await;
        });
        Self { latest, bell, waker: None }
    }

    /// The value of now; the task is woken when it changes.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> T {
        let same_task = self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
        if !same_task || self.latest.has_changed().unwrap_or(false) {
            // First the bell, then the value: a change in between rings, one before is seen.
            let _ = self.bell.as_mut().poll(cx);
            self.waker = Some(cx.waker().clone());
        }
        *self.latest.borrow_and_update()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_change_wakes_however_often_it_was_looked_at() {
        let sender = watch::Sender::new(0);
        let mut watched = Watched::new(sender.subscribe());
        let task = tokio::spawn(poll_fn(
            move |cx| {
                if watched.look(cx) == 3 { Poll::Ready(()) } else { Poll::Pending }
            },
        ));
        for value in 1..=3 {
            tokio::task::yield_now().await;
            sender.send_replace(value);
        }
        task.await.unwrap();
    }
}
