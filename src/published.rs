//! A value that many tasks watch, at the price of a few words each. Floor 2.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use slab::Slab;
use tokio::sync::watch;

/// A value, and the tasks that are woken when it changes.
///
/// A future that waits for a change of a `watch` is some 150 bytes long. [`Watched`] leaves its task's waker here instead,
/// which is 16.
pub(crate) struct Published<T> {
    value: watch::Sender<T>,
    tasks: Mutex<Slab<Waker>>,
}

impl<T: Copy> Published<T> {
    /// With its first value.
    #[must_use]
    pub(crate) fn new(value: T) -> Arc<Self> {
        Arc::new(Self { value: watch::Sender::new(value), tasks: Mutex::default() })
    }

    /// The value of now.
    #[must_use]
    pub(crate) fn value(&self) -> T {
        *self.value.borrow()
    }

    /// For those few who wait for a change in an async function.
    #[must_use]
    pub(crate) fn subscribe(&self) -> watch::Receiver<T> {
        self.value.subscribe()
    }

    /// Sets the value, and wakes all who watch it.
    pub(crate) fn send_replace(&self, value: T) {
        self.send_if_modified(|known| {
            *known = value;
            true
        });
    }

    /// Changes the value, and wakes all who watch it if `modify` says so.
    pub(crate) fn send_if_modified(&self, modify: impl FnOnce(&mut T) -> bool) {
        if self.value.send_if_modified(modify) {
            // After the value: who registers later sees it.
            self.tasks().iter().for_each(|(_, task)| task.wake_by_ref());
        }
    }
}

impl<T> Published<T> {
    fn enter(&self, task: &Waker) -> u32 {
        let place = self.tasks().insert(task.clone());
        // A task takes far more than a byte, so there are not so many.
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn leave(&self, place: u32) {
        let mut tasks = self.tasks();
        let task = usize::try_from(place).ok().and_then(|place| tasks.try_remove(place));
        if tasks.is_empty() {
            // What many sessions took up is free once they have gone.
            *tasks = Slab::new();
        }
        drop(tasks);
        // Not under the lock: nothing is known of what the end of a waker leads to.
        drop(task);
    }

    fn tasks(&self) -> MutexGuard<'_, Slab<Waker>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Two values that a hand-written future looks at each time it is polled.
pub(crate) struct Watched<A, B> {
    of: (Arc<Published<A>>, Arc<Published<B>>),
    /// The task that is woken, if it is registered.
    task: Option<Waker>,
    /// The task's place among those of each value.
    places: (u32, u32),
}

impl<A: Copy, B: Copy> Watched<A, B> {
    /// Wakes nothing before the first look.
    #[must_use]
    pub(crate) fn new(one: Arc<Published<A>>, other: Arc<Published<B>>) -> Self {
        Self { of: (one, other), task: None, places: (0, 0) }
    }

    /// The values of now; the task is woken when one changes.
    pub(crate) fn look(&mut self, cx: &mut Context<'_>) -> (A, B) {
        let task = cx.waker();
        if !self.task.as_ref().is_some_and(|registered| registered.will_wake(task)) {
            self.leave();
            self.places = (self.of.0.enter(task), self.of.1.enter(task));
            self.task = Some(task.clone());
        }
        // After the registration: a change in between wakes the task, a change before is seen.
        (self.of.0.value(), self.of.1.value())
    }
}

impl<A, B> Watched<A, B> {
    fn leave(&mut self) {
        if self.task.take().is_some() {
            self.of.0.leave(self.places.0);
            self.of.1.leave(self.places.1);
        }
    }
}

impl<A, B> Drop for Watched<A, B> {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Poll, Wake};

    use super::*;

    #[tokio::test]
    async fn a_change_wakes_however_often_it_was_looked_at() {
        let (one, other) = (Published::new(0), Published::new('a'));
        let mut watched = Watched::new(Arc::clone(&one), Arc::clone(&other));
        let task =
            tokio::spawn(poll_fn(
                move |cx| {
                    if watched.look(cx) == (3, 'c') { Poll::Ready(()) } else { Poll::Pending }
                },
            ));
        for value in 1..=3 {
            tokio::task::yield_now().await;
            one.send_replace(value);
        }
        for value in 'b'..='c' {
            tokio::task::yield_now().await;
            other.send_replace(value);
        }
        task.await.unwrap();
        assert_eq!(one.tasks().capacity(), 0, "what its task took up is free");
        assert_eq!(other.tasks().capacity(), 0, "what its task took up is free");
    }

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_change_in_the_midst_of_a_look_is_not_the_last_that_wakes() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        for _ in 0..2_000 {
            let (one, other) = (Published::new(0), Published::new(0));
            let mut watched = Watched::new(Arc::clone(&one), Arc::clone(&other));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    one.send_replace(1);
                    other.send_replace(1);
                });
                while watched.look(&mut cx) != (1, 1) {}
            });
            for published in [one, other] {
                // It may have been woken since its latest look; then it looks.
                watched.look(&mut cx);
                let before = wakes.0.load(Ordering::SeqCst);
                published.send_replace(2);
                assert!(wakes.0.load(Ordering::SeqCst) > before, "it sleeps through the second change");
            }
        }
    }

    #[test]
    fn the_task_that_looked_last_is_woken_and_no_other() {
        let wakes = [(); 2].map(|()| Arc::new(Wakes::default()));
        let (published, other) = (Published::new(0), Published::new(0));
        let mut watched = Watched::new(Arc::clone(&published), Arc::clone(&other));
        for task in &wakes {
            watched.look(&mut Context::from_waker(&Waker::from(Arc::clone(task))));
        }
        published.send_replace(1);
        published.send_if_modified(|value| {
            *value = 2;
            false
        });
        assert_eq!(wakes.map(|wakes| wakes.0.load(Ordering::SeqCst)), [0, 1]);
        assert_eq!(published.value(), 2);
        drop(watched);
        assert!(published.tasks().is_empty() && other.tasks().is_empty());
    }

    #[test]
    fn what_is_watched_takes_up_a_few_words() {
        assert_eq!(size_of::<Watched<[u64; 9], [u64; 9]>>(), 40);
    }
}
