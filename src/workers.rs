//! The threads that run sessions. Each has its own runtime, so a transaction never wakes another thread. Floor 5.
//!
//! A session stays on the thread where it began. The main runtime runs everything else: leases, probes, commands.

use std::io;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The worker threads. Dropping this ends them and drops their remaining tasks.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Worker>,
    stop: CancellationToken,
    /// Disconnected when all threads have ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// One worker thread, and its tasks.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    runtime: Handle,
    tasks: TaskTracker,
}

impl Workers {
    /// Starts this number of threads.
    ///
    /// # Errors
    /// The system has no thread, descriptor or memory left for them.
    pub(crate) fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (ends, ended) = mpsc::channel();
        let start = |number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let worker = Worker { runtime: runtime.handle().clone(), tasks: TaskTracker::new() };
            // A tracker that is closed takes tasks as well; it can be waited for.
            worker.tasks.close();
            let (stop, ends) = (stop.clone(), ends.clone());
            thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
                run(runtime, &stop);
                drop(ends);
            })?;
            Ok(worker)
        };
        let workers = (0..threads.get()).map(start).collect::<io::Result<_>>();
        if workers.is_err() {
            stop.cancel();
        }
        Ok(Self { workers: workers?, stop, ended: Mutex::new(ended) })
    }

    /// The worker for the next task: the first with the lowest number of tasks, counted in groups of [`GROUP`].
    #[must_use]
    #[expect(clippy::expect_used, reason = "there is at least one, by the type that `start` takes")]
    pub(crate) fn least_loaded(&self) -> &Worker {
        let groups = |worker: &&Worker| worker.tasks.len() / GROUP;
        self.workers.iter().min_by_key(groups).expect("a worker")
    }

    /// How many tasks they have.
    #[must_use]
    pub(crate) fn tasks(&self) -> usize {
        self.workers.iter().map(|worker| worker.tasks.len()).sum()
    }

    /// Waits until there is no task, while none are begun.
    pub(crate) async fn tasks_gone(&self) {
        while self.tasks() > 0 {
            for worker in &self.workers {
                worker.tasks.wait().await;
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
        // Nothing is ever sent on this channel: the receive ends with the last thread.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(ENDS_WITHIN);
    }
}

impl Worker {
    /// While the guard lives, a socket created on this thread belongs to the worker's runtime.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    /// Runs a task on the worker. `held` is dropped after the task has ended.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static, held: impl Send + 'static) {
        let task = Holding { task, held, token: self.tasks.token() };
        // Spawned by the worker's own thread, it lies beside what it allocates, in that thread's part of the heap: a task is
        // aligned to 128 bytes, and small values fill what that leaves free.
        self.runtime.spawn(async move {
            tokio::spawn(task);
        });
    }
}

pin_project! {
    /// A task, and what is dropped after it. An `async` block would have room for the task twice: for what it captures, and
    /// for what it awaits.
    struct Holding<F, H> {
        #[pin]
        task: F,
        held: H,
        token: TaskTrackerToken,
    }
}

impl<F: Future, H> Future for Holding<F, H> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().task.poll(cx)
    }
}

/// Runs a worker thread until `stop`. Tasks that still run are then dropped.
fn run(runtime: Runtime, stop: &CancellationToken) {
    runtime.block_on(stop.cancelled());
    runtime.shutdown_timeout(Duration::ZERO);
}

/// The number of tasks that one thread gets before the next thread gets any. Events for several sessions at about the
/// same time are then served by one wake-up of one thread. Eight busy sessions on one thread use a tenth less CPU than
/// four on each of two threads, and are as fast.
const GROUP: usize = 8;
/// How long the end of the process waits for the workers. A thread that hangs ends with the process.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread::ThreadId;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn tasks_go_to_the_threads_by_groups_and_stay_there() {
        let workers = Workers::start(NonZeroUsize::new(2).unwrap()).unwrap();
        let mut running = Vec::new();
        for _ in 0..2 * GROUP + 1 {
            let (tell, threads) = oneshot::channel::<(ThreadId, ThreadId)>();
            let (end, ended) = oneshot::channel::<()>();
            let task = async move {
                let before = thread::current().id();
                let _ = ended.await;
                let _ = tell.send((before, thread::current().id()));
            };
            workers.least_loaded().spawn(task, ());
            running.push((end, threads));
        }
        let mut seen = Vec::new();
        for (end, threads) in running {
            end.send(()).unwrap();
            let (before, after) = threads.await.unwrap();
            assert_eq!(before, after);
            assert_ne!(before, thread::current().id());
            seen.push(before);
        }
        let first = seen[0];
        assert!(seen[..GROUP].iter().all(|id| *id == first), "{seen:?}");
        assert!(seen[GROUP..2 * GROUP].iter().all(|id| *id != first), "{seen:?}");
        assert_eq!(seen[2 * GROUP], first);
        workers.tasks_gone().await;
        assert_eq!(workers.tasks(), 0);
    }

    #[test]
    fn the_tasks_of_stopped_workers_are_dropped() {
        let workers = Workers::start(NonZeroUsize::MIN).unwrap();
        let held = Arc::new(());
        let by_task = Arc::clone(&held);
        workers.least_loaded().spawn(std::future::pending(), by_task);
        assert_eq!(Arc::strong_count(&held), 2);
        drop(workers);
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
