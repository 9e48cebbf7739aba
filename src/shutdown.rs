//! The end of the process: what asks for it, and its phases. Floor 5.
//!
//! ```text
//!           first request          min delay            max delay, counted
//! Serving ───────────────▶ Draining ────────▶ Closing ─── from the request ──▶ Forced ──▶ Done
//!                          not ready,         listeners    or no session left   all are closed,
//!                          still accepting    closed, idle                      leases given back
//!                                             sessions too
//! a second signal, in any phase: now, whatever is left
//! ```
//!
//! `/quitquitquit` asks as the first signal does, however often it is called, so that a container's stop hook and the
//! signal that follows it end the process in order.

use std::future::{Future, poll_fn};
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a shutdown waits. Both count from the request, and `min` is not longer than `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delays {
    /// Until then new connections are accepted.
    pub(crate) min: Duration,
    /// Then every session is closed.
    pub(crate) max: Duration,
}

/// The phase of the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// No shutdown was requested.
    Serving,
    /// leasehold is not ready any more, but new connections are accepted.
    Draining,
    /// Listeners are closed; sessions are closed between transactions.
    Closing,
    /// Every session is closed, whatever it does.
    Forced,
    /// Nothing is left to wait for.
    Done,
}

/// How the waiting for sessions ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In order: leases may be given back now.
    InOrder,
    /// After a second signal: stop at once.
    Now,
}

/// The handle by which a shutdown is requested and watched. All clones share one state.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<Phase>,
    requests: watch::Sender<Requests>,
    delays: Delays,
}

impl Shutdown {
    /// Serving.
    #[must_use]
    pub(crate) fn new(delays: Delays) -> Self {
        Self(Arc::new(Inner {
            phase: watch::Sender::new(Phase::Serving),
            requests: watch::Sender::new(Requests::None),
            delays,
        }))
    }

    /// Asks for it, as `/quitquitquit` does. Asking again changes nothing.
    pub(crate) fn ask(&self) {
        self.note(Request::Command);
    }

    /// Asks for it, as SIGTERM and SIGINT do. Asking again means now.
    pub(crate) fn signal(&self) {
        self.note(Request::Signal);
    }

    fn note(&self, request: Request) {
        self.0.requests.send_if_modified(|requests| {
            let next = requests.after(request);
            std::mem::replace(requests, next) != next
        });
        // At once, not when `run` comes to it: readiness must be false from the very instant.
        self.enter(Phase::Draining);
    }

    /// How long it waits.
    #[must_use]
    pub(crate) fn delays(&self) -> Delays {
        self.0.delays
    }

    /// How far it is.
    #[must_use]
    pub(crate) fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// Whether it has been asked for.
    #[must_use]
    pub(crate) fn is_requested(&self) -> bool {
        self.phase() > Phase::Serving
    }

    /// The phases as they come.
    #[must_use]
    pub(crate) fn phases(&self) -> watch::Receiver<Phase> {
        self.0.phase.subscribe()
    }

    /// Waits until it is asked for.
    pub(crate) async fn requested(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until it is this far, or further.
    pub(crate) async fn reached(&self, phase: Phase) {
        let mut phases = self.phases();
        // The sender lives in self, so the channel cannot close while this waits.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    /// Waits for the second signal.
    pub(crate) async fn second_signal(&self) {
        let mut requests = self.0.requests.subscribe();
        let _ = requests.wait_for(|requests| *requests == Requests::Insisted).await;
    }

    /// Goes through the phases up to Forced. `sessions_gone` ends when no session is left; it is polled only while
    /// Closing. Once it returns `InOrder`, give leases back, but race that with [`Shutdown::second_signal`]; then
    /// call [`Shutdown::done`].
    pub(crate) async fn run(&self, sessions_gone: impl Future<Output = ()>) -> Outcome {
        self.requested().await;
        let asked_at = Instant::now();
        let Delays { min, max } = self.0.delays;
        let outcome = tokio::select! {
            biased;
            () = self.second_signal() => Outcome::Now,
            () = self.close(asked_at + min, asked_at + max, sessions_gone) => Outcome::InOrder,
        };
        self.enter(Phase::Forced);
        outcome
    }

    async fn close(&self, min: Instant, max: Instant, sessions_gone: impl Future<Output = ()>) {
        sleep_until(min).await;
        self.enter(Phase::Closing);
        // Whichever comes first; a bound that passes is no failure.
        let _ = tokio::time::timeout_at(max, sessions_gone).await;
    }

    /// Nothing is left to wait for.
    pub(crate) fn done(&self) {
        self.enter(Phase::Done);
    }

    /// Phases only go on.
    fn enter(&self, phase: Phase) {
        self.0.phase.send_if_modified(|now| {
            let further = phase > *now;
            if further {
                *now = phase;
            }
            further
        });
    }
}

/// What a shutdown was requested by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Command,
    Signal,
}

/// The requests for a shutdown so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Requests {
    None,
    Commanded,
    Signalled,
    Insisted,
}

impl Requests {
    fn after(self, request: Request) -> Self {
        match (self, request) {
            (Self::None, Request::Command) => Self::Commanded,
            (Self::None | Self::Commanded, Request::Signal) => Self::Signalled,
            (Self::Signalled | Self::Insisted, Request::Signal) => Self::Insisted,
            (requests, Request::Command) => requests,
        }
    }
}

/// The signals that leasehold handles, from the moment they are installed. By default each of them ends the process at
/// once, and nothing would be given back.
#[derive(Debug)]
pub(crate) struct Signals {
    handled: Vec<Handled>,
    /// Keeps SIGXFSZ handled: a write beyond the limit on file sizes, of the log or of the state file, then fails with EFBIG
    /// and does not kill the process.
    _xfsz: Signal,
}

#[derive(Debug)]
struct Handled {
    name: &'static str,
    meaning: Meaning,
    signal: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// A shutdown in order; the second such signal ends the process at once.
    Stop,
    /// A shutdown in order, however often it comes: the shell and the system both send it when a terminal closes.
    HungUp,
    /// A reload of the configuration.
    Reload,
    /// Nothing: it is logged and ignored.
    Nothing,
}

impl Signals {
    /// Handles them from now on. `reloads`: SIGHUP reads the configuration file again. Where there is no file, SIGHUP means that
    /// the terminal closes, and requests a shutdown, unless the process was started with SIGHUP ignored (`nohup`).
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn install(reloads: bool) -> io::Result<Self> {
        let hangup = if reloads { Meaning::Reload } else { Meaning::HungUp };
        let is_ours = reloads || !is_ignored(SignalKind::hangup());
        let hangup = is_ours.then_some((SignalKind::hangup(), "HUP", hangup));
        let handled = TAKEN
            .into_iter()
            .chain(hangup)
            .map(|(kind, name, meaning)| Ok(Handled { name, meaning, signal: signal(kind)? }));
        Ok(Self {
            handled: handled.collect::<io::Result<_>>()?,
            _xfsz: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// Passes the signals on, for ever. `reload` is called for each SIGHUP that requests a reload, and must not block.
    pub(crate) async fn watch(mut self, shutdown: Shutdown, reload: impl Fn()) {
        loop {
            let (name, meaning) = poll_fn(|cx| self.poll_next(cx)).await;
            match meaning {
                Meaning::Stop => {
                    tracing::info!(signal = name, "shutdown requested");
                    shutdown.signal();
                }
                Meaning::HungUp => {
                    tracing::info!(signal = name, "shutdown requested: there is no file to be read again");
                    shutdown.ask();
                }
                Meaning::Reload => {
                    tracing::info!(signal = name, "reload requested");
                    reload();
                }
                Meaning::Nothing => {
                    tracing::warn!(signal = name, "this signal means nothing to leasehold and is ignored");
                }
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(&'static str, Meaning)> {
        for handled in &mut self.handled {
            if handled.signal.poll_recv(cx).is_ready() {
                return Poll::Ready((handled.name, handled.meaning));
            }
        }
        Poll::Pending
    }
}

/// Whether the process was started with this signal ignored.
pub(crate) fn is_ignored(signal: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    // Source: https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
    let bit = u32::try_from(signal.as_raw_value() - 1).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0);
    ignored & bit != 0
}

/// SIGHUP is not among them: what it means depends on the configuration.
const TAKEN: [(SignalKind, &str, Meaning); 7] = [
    (SignalKind::terminate(), "TERM", Meaning::Stop),
    (SignalKind::interrupt(), "INT", Meaning::Stop),
    (SignalKind::quit(), "QUIT", Meaning::Stop),
    (SignalKind::user_defined1(), "USR1", Meaning::Nothing),
    (SignalKind::user_defined2(), "USR2", Meaning::Nothing),
    (SignalKind::alarm(), "ALRM", Meaning::Nothing),
    (SignalKind::io(), "IO", Meaning::Nothing),
];

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);
    const SHORT: Duration = Duration::from_millis(20);

    fn shutdown(min: Duration, max: Duration) -> Shutdown {
        Shutdown::new(Delays { min, max })
    }

    #[test]
    fn a_command_asks_once_and_a_second_signal_insists() {
        let after =
            |requests: &[Request]| requests.iter().fold(Requests::None, |all, request| all.after(*request));
        use Request::{Command, Signal};
        assert_eq!(after(&[Command, Command, Command]), Requests::Commanded);
        assert_eq!(after(&[Command, Signal]), Requests::Signalled);
        assert_eq!(after(&[Signal, Command]), Requests::Signalled);
        assert_eq!(after(&[Signal, Signal]), Requests::Insisted);
        assert_eq!(after(&[Command, Signal, Command, Signal]), Requests::Insisted);
        assert_eq!(after(&[Signal, Signal, Command]), Requests::Insisted);
    }

    #[tokio::test]
    async fn it_is_draining_from_the_instant_of_the_request() {
        let shutdown = shutdown(LONG, LONG);
        assert!(!shutdown.is_requested());
        shutdown.signal();
        assert_eq!(shutdown.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn it_ends_in_order_when_no_session_is_left() {
        let shutdown = shutdown(Duration::ZERO, LONG);
        shutdown.ask();
        assert_eq!(shutdown.run(ready(())).await, Outcome::InOrder);
        assert_eq!(shutdown.phase(), Phase::Forced);
        shutdown.done();
        assert_eq!(shutdown.phase(), Phase::Done);
    }

    #[tokio::test]
    async fn sessions_that_stay_are_closed_at_the_maximum() {
        let shutdown = shutdown(Duration::ZERO, SHORT);
        shutdown.signal();
        assert_eq!(shutdown.run(pending()).await, Outcome::InOrder);
        assert_eq!(shutdown.phase(), Phase::Forced);
    }

    #[tokio::test]
    async fn it_accepts_until_the_minimum_even_with_no_session() {
        let shutdown = shutdown(SHORT, LONG);
        shutdown.signal();
        let asked_at = Instant::now();
        assert_eq!(shutdown.run(ready(())).await, Outcome::InOrder);
        assert!(asked_at.elapsed() >= SHORT);
    }

    #[tokio::test]
    async fn a_second_signal_ends_it_in_the_minimum_delay() {
        let shutdown = shutdown(LONG, LONG);
        shutdown.signal();
        let running = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.run(pending()).await }
        });
        tokio::task::yield_now().await;
        shutdown.signal();
        assert_eq!(running.await.unwrap(), Outcome::Now);
    }

    #[tokio::test]
    async fn whoever_waits_sees_the_phases_go_on_only() {
        let shutdown = shutdown(Duration::ZERO, LONG);
        shutdown.done();
        shutdown.signal();
        assert_eq!(shutdown.phase(), Phase::Done);
        shutdown.reached(Phase::Closing).await;
    }
}
