//! A `watch` that a hand-written future can look at on every wake-up at the price of two loads. Floor 4.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use tokio::sync::watch;

/// The latest value of a `watch`, and a flag that wakes the task when it changes.
///
/// Polling `changed()` takes a lock each time; here it is polled only where the flag was raised since, or the task's
/// waker has changed.
pub(crate) struct WatchedValue<T> {
    latest: watch::Receiver<T>,
    changes: Pin<Box<dyn Future<Output = ()> + Send>>,
    flag: Option<Arc<WakeFlag>>,
}

/// Passes a wake-up on to the task, and records it. `changed()` wakes once per poll, so each wake-up has to be recorded:
/// the value does not show it, as a change can be read before its wake-up arrives.
struct WakeFlag {
    raised: AtomicBool,
    task: Waker,
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raised.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<T: Copy + Send + Sync + 'static> WatchedValue<T> {
    pub(crate) fn new(latest: watch::Receiver<T>) -> Self {
        let mut receiver = latest.clone();
        let changes = Box::pin(async move {
            while receiver.changed().await.is_ok() {}
            // The sender is gone: the value is final.
            std::future::pending::<()>().await;
        });
        Self { latest, changes, flag: None }
    }

    /// The value of now; the task is woken when it changes.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>) -> T {
        let flag = match &self.flag {
            Some(flag) if flag.task.will_wake(cx.waker()) => {
                // A wake-up after this wakes the task, which looks again.
                flag.raised.load(Ordering::Acquire).then(|| {
                    flag.raised.store(false, Ordering::Release);
                    Arc::clone(flag)
                })
            }
            _ => {
                let flag = Arc::new(WakeFlag { raised: AtomicBool::new(false), task: cx.waker().clone() });
                self.flag = Some(Arc::clone(&flag));
                Some(flag)
            }
        };
        // First the flag, then the value: a change in between wakes the task, a change before is seen.
        if let Some(flag) = flag {
            let _ = self.changes.as_mut().poll(&mut Context::from_waker(&Waker::from(flag)));
        }
        *self.latest.borrow()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_change_wakes_however_often_it_was_looked_at() {
        let sender = watch::Sender::new(0);
        let mut watched = WatchedValue::new(sender.subscribe());
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

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_change_in_the_midst_of_a_look_leaves_the_flag_armed() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..2_000 {
            let sender = watch::Sender::new(0);
            let mut watched = WatchedValue::new(sender.subscribe());
            std::thread::scope(|scope| {
                scope.spawn(|| sender.send_replace(1));
                while watched.look(&mut cx) == 0 {}
            });
            // It may have been woken since its latest look; then it looks.
            watched.look(&mut cx);
            let before = wakes.0.load(Ordering::SeqCst);
            sender.send_replace(2);
            assert!(wakes.0.load(Ordering::SeqCst) > before, "it sleeps through the second change");
        }
    }
}
