//! The log: lines to stderr that never block the process and never show what a dependency holds. Floor 5.
//!
//! A line that cannot be queued, because stderr is not read, is dropped and counted. Only leasehold's own events have
//! the chosen level; those of dependencies are cut off or clamped, since at TRACE they show requests and replies.

mod queue;

use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub(crate) use queue::Guard;
use queue::Queue;

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

/// Room for a few thousand lines. A reader of stderr that pauses loses none of them; one that never comes back costs no more
/// memory than this.
const QUEUE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::queue::tests::Sink;
    use super::*;

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
