//! The log: lines to stderr that never block the process and never show what a dependency holds. Floor 5.
//!
//! A line that cannot be queued, because stderr is not read, is dropped and counted. Only leasehold's own events have
//! the chosen level; those of dependencies are cut off or clamped, since at TRACE they show requests and replies.

use std::collections::VecDeque;
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// leasehold's own level.
    pub(crate) level: Level,
    /// `None`: text on a terminal, else JSON.
    pub(crate) format: Option<Format>,
}

/// From the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Someone must act.
    Error,
    /// Degraded, but serving.
    Warn,
    /// The life of the process, of leases and rotations.
    Info,
    /// The life of a session.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The level by its word.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "error" => Self::Error,
            "warn" => Self::Warn,
            "info" => Self::Info,
            "debug" => Self::Debug,
            "trace" => Self::Trace,
            _ => return None,
        })
    }

    fn filter(self) -> LevelFilter {
        match self {
            Self::Error => LevelFilter::ERROR,
            Self::Warn => LevelFilter::WARN,
            Self::Info => LevelFilter::INFO,
            Self::Debug => LevelFilter::DEBUG,
            Self::Trace => LevelFilter::TRACE,
        }
    }
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines for people to read.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// The format by its word.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        match word {
            "text" => Some(Self::Text),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The thread that writes cannot be started.
    #[error("the log's thread cannot be started")]
    Thread(#[source] io::Error),
    /// There is a log already.
    #[error("a log is set up already")]
    Twice,
}

/// Starts the log, and logs panics by their place alone. Keep the guard until the very end.
///
/// # Errors
/// If it was started before, or the machine gives no thread.
pub(crate) fn init(options: &Options) -> Result<Guard, Error> {
    let terminal = io::stderr().is_terminal();
    let queue = Queue::new(QUEUE_BYTES);
    let guard = queue.start(io::stderr()).map_err(Error::Thread)?;
    let filter = filter(options.level);
    let format = options.format.unwrap_or(if terminal { Format::Text } else { Format::Json });
    let registry = tracing_subscriber::registry();
    let layer = tracing_subscriber::fmt::layer().with_writer(queue);
    match format {
        Format::Text => registry.with(layer.with_ansi(terminal)).with(filter).try_init(),
        Format::Json => registry.with(layer.json().flatten_event(true)).with(filter).try_init(),
    }
    .map_err(|_| Error::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

/// The chosen level for leasehold alone. Everybody else gets INFO at most; the Vault client's crates get nothing, as
/// they log whole replies and each refusal two or three times.
fn filter(level: Level) -> Targets {
    let own = level.filter();
    Targets::new()
        .with_target("leasehold", own)
        .with_target("vaultrs", LevelFilter::OFF)
        .with_target("rustify", LevelFilter::OFF)
        .with_default(own.min(LevelFilter::INFO))
}

/// The payload may hold anything, so it is not shown.
fn log_panic(info: &PanicHookInfo<'_>) {
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(panic.location = location, "a task panicked");
}

/// Lines on their way to the thread that writes them.
#[derive(Clone)]
struct Queue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Woken for each line, and at the end.
    arrived: Condvar,
    /// Woken when the last line has been written.
    written: Condvar,
    capacity: usize,
}

#[derive(Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of `lines`.
    bytes: usize,
    writing: bool,
    ended: bool,
}

impl Queue {
    fn new(capacity: usize) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            arrived: Condvar::new(),
            written: Condvar::new(),
            capacity,
        }))
    }

    fn start(&self, sink: impl Write + Send + 'static) -> io::Result<Guard> {
        let queue = self.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write_lines(sink))?;
        Ok(Guard(self.clone()))
    }

    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.ended || state.bytes.saturating_add(line.len()) > self.0.capacity {
            drop(state);
            crate::metrics::log_lines_dropped(1);
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        drop(state);
        self.0.arrived.notify_one();
    }

    fn write_lines(&self, mut sink: impl Write) {
        // A disk that is full may take the half of a line.
        let mut torn = false;
        while let Some(mut line) = self.next() {
            if torn {
                line.insert(0, b'\n');
            }
            let mut rest = line.as_slice();
            if write_all(&mut sink, &mut rest).and_then(|()| sink.flush()).is_err() {
                crate::metrics::log_lines_dropped(1);
            }
            if rest.len() < line.len() {
                torn = !rest.is_empty();
            }
        }
    }

    /// The next line to write. `None` when the log has ended.
    fn next(&self) -> Option<Vec<u8>> {
        let mut state = self.lock();
        state.writing = false;
        loop {
            if let Some(line) = state.lines.pop_front() {
                state.bytes -= line.len();
                state.writing = true;
                return Some(line);
            }
            self.0.written.notify_all();
            if state.ended {
                return None;
            }
            state = self.0.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes all of `rest`, and leaves in it what could not be written.
fn write_all(sink: &mut impl Write, rest: &mut &[u8]) -> io::Result<()> {
    while !rest.is_empty() {
        match sink.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => *rest = rest.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// The writer of one event. The subscriber writes each event in one piece.
struct Line<'a>(&'a Queue);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends the log when it is dropped, and waits up to [`LAST_WORDS`] until the queue is written.
pub(crate) struct Guard(Queue);

impl Drop for Guard {
    fn drop(&mut self) {
        let shared = &self.0.0;
        let mut state = self.0.lock();
        state.ended = true;
        shared.arrived.notify_all();
        let unwritten = |state: &mut State| state.writing || !state.lines.is_empty();
        drop(shared.written.wait_timeout_while(state, LAST_WORDS, unwritten));
    }
}

/// Room for a few thousand lines. A reader of stderr that pauses loses none of them; one that never comes back costs no more
/// memory than this.
const QUEUE_BYTES: usize = 1 << 20;

/// How long the end of the process waits for the reader of stderr.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stderr that hands out each write, and blocks until it is taken.
    struct Sink(mpsc::SyncSender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_nobody() {
        let (sender, reader) = mpsc::sync_channel(0);
        let queue = Queue::new(100);
        let guard = queue.start(Sink(sender)).unwrap();
        for _ in 0..1_000 {
            queue.push(b"0123456789");
        }
        assert!(queue.lock().bytes <= 100);
        drop(guard);
        drop(reader);
    }

    #[test]
    fn a_panic_is_logged_by_its_place_without_its_payload() {
        let (sender, reader) = mpsc::sync_channel(10);
        let queue = Queue::new(QUEUE_BYTES);
        let guard = queue.start(Sink(sender)).unwrap();
        let layer = tracing_subscriber::fmt::layer().with_writer(queue).json();
        let subscriber = tracing_subscriber::registry().with(layer);
        // The hook is the whole process': a neighbour that fails meanwhile is silent, and still fails.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("the password is hunter2")).unwrap_err()
        });
        std::panic::set_hook(before);
        drop(guard);
        let lines: Vec<_> = reader.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert!(
            lines.iter().any(|line| line.contains("a task panicked") && line.contains("log.rs:")),
            "{lines:?}"
        );
        assert!(lines.iter().all(|line| !line.contains("hunter2")), "{lines:?}");
    }

    /// A disk with room for so many bytes.
    struct Disk(mpsc::Sender<u8>, usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.1);
            if taken == 0 {
                // Somebody makes room.
                self.1 = 100;
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1 -= taken;
            bytes.iter().take(taken).for_each(|byte| self.0.send(*byte).unwrap());
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_behind_one_that_was_torn_stands_by_itself() {
        let (sender, disk) = mpsc::channel();
        let queue = Queue::new(QUEUE_BYTES);
        let guard = queue.start(Disk(sender, 14)).unwrap();
        for line in ["first\n", "second and long\n", "third\n", "fourth\n"] {
            queue.push(line.as_bytes());
        }
        drop(guard);
        let written = String::from_utf8(disk.try_iter().collect()).unwrap();
        assert_eq!(written, "first\nsecond a\nthird\nfourth\n");
    }

    #[test]
    fn what_is_queued_is_written_before_the_end() {
        let (sender, reader) = mpsc::sync_channel(1_000);
        let queue = Queue::new(QUEUE_BYTES);
        let guard = queue.start(Sink(sender)).unwrap();
        for line in 0..500 {
            queue.push(format!("{line}\n").as_bytes());
        }
        drop(guard);
        assert_eq!(reader.try_iter().count(), 500);
    }

    #[test]
    fn a_log_that_has_ended_takes_no_more() {
        let (sender, reader) = mpsc::sync_channel(10);
        let queue = Queue::new(QUEUE_BYTES);
        drop(queue.start(Sink(sender)).unwrap());
        queue.push(b"late");
        assert!(queue.lock().lines.is_empty());
        assert_eq!(reader.try_iter().count(), 0);
    }

    #[test]
    fn trace_is_for_leasehold_alone() {
        let filter = filter(Level::Trace);
        let shows = |target: &str, level| filter.would_enable(target, &level);
        assert!(shows("leasehold::credentials", tracing::Level::TRACE));
        for foreign in ["hyper", "reqwest", "rustls", "h2", "tokio_postgres", "anything"] {
            assert!(shows(foreign, tracing::Level::INFO), "{foreign}");
            assert!(!shows(foreign, tracing::Level::DEBUG), "{foreign}");
        }
        for silent in ["vaultrs", "vaultrs::api", "rustify", "rustify::client"] {
            assert!(!shows(silent, tracing::Level::ERROR), "{silent}");
        }
    }

    #[test]
    fn foreign_levels_fall_with_the_chosen_one() {
        assert!(!filter(Level::Error).would_enable("hyper", &tracing::Level::WARN));
    }
}
