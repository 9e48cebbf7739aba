//! The log: lines to stderr that never block the process and never show what a dependency holds. Floor 5.
//!
//! A line that cannot be queued, because stderr is not read, is dropped and counted. Only leasehold's own events have
//! the chosen level; those of dependencies are cut off or clamped, since at TRACE they show requests and replies.

mod audit_file;
mod json;
mod queue;
mod text;

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::files::FileSetting;
use audit_file::AuditFile;
use json::Objects;
use queue::{Guard, Queue};
use text::Lines;

/// What is logged, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    /// leasehold's own level.
    pub(crate) level: Level,
    /// `None`: text on a terminal, else JSON.
    pub(crate) format: Option<Format>,
    /// Whether a terminal may get colours.
    pub(crate) colours: bool,
}

impl Options {
    /// Whether lines are made for people.
    #[must_use]
    pub(crate) fn is_for_people(&self) -> bool {
        match self.format {
            Some(format) => format == Format::Text,
            None => io::stderr().is_terminal(),
        }
    }
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

    /// Its word.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
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
    /// The audit trail cannot be written.
    #[error("{file}")]
    AuditFile {
        file: FileSetting,
        #[source]
        source: io::Error,
    },
    /// There is a log already.
    #[error("a log is set up already")]
    Twice,
}

impl Error {
    /// 78 for what the configuration says, 71 for what the machine refuses.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::AuditFile { .. } => 78,
            Self::Thread(_) | Self::Twice => 71,
        }
    }
}

/// Changes the running log. All clones change the same one.
#[derive(Clone)]
pub(crate) struct Control {
    set_level: Arc<dyn Fn(Level) + Send + Sync>,
    audit_file_moved: Option<Arc<AtomicBool>>,
}

impl Control {
    /// Sets the level from now on.
    pub(crate) fn set_level(&self, level: Level) {
        (self.set_level)(level);
    }

    /// The file of the audit trail may have been moved away: the next line goes to the one that has its name.
    pub(crate) fn reopen_audit_file(&self) {
        if let Some(moved) = &self.audit_file_moved {
            moved.store(true, Ordering::Relaxed);
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Control")
    }
}

/// The running log.
pub(crate) struct Log {
    /// Changes it.
    pub(crate) control: Control,
    /// What is to be written where, until it is started.
    unstarted: Vec<(Queue, Box<dyn Write + Send>)>,
    /// Write what is left when they are dropped.
    guards: Vec<Guard>,
}

impl Log {
    /// Starts the threads that write. Until then lines wait in their queues.
    ///
    /// # Errors
    /// The machine gives no thread.
    pub(crate) fn start(&mut self) -> Result<(), Error> {
        while let Some((queue, sink)) = self.unstarted.pop() {
            match queue.start(sink) {
                Ok(guard) => self.guards.push(guard),
                Err(error) => {
                    // The sink is gone with the thread.
                    self.unstarted.push((queue, Box::new(io::stderr())));
                    return Err(Error::Thread(error));
                }
            }
        }
        Ok(())
    }
}

impl Drop for Log {
    /// Writes what waits for a thread that was never started: the place of a panic, and what led to it.
    fn drop(&mut self) {
        for (queue, sink) in self.unstarted.drain(..) {
            queue.write_rest(sink);
        }
    }
}

/// Sets the log up, and logs panics by their place alone. Keep it until the very end. `audit_file` is where the events of the
/// audit trail go as well, one JSON object a line.
///
/// # Errors
/// If it was set up before, or the file cannot be opened.
pub(crate) fn init(options: &Options, audit_file: Option<&FileSetting>) -> Result<Log, Error> {
    let terminal = io::stderr().is_terminal();
    let queue = Queue::new(QUEUE_BYTES);
    let mut unstarted: Vec<(Queue, Box<dyn Write + Send>)> = vec![(queue.clone(), Box::new(io::stderr()))];
    let (filter, handle) = reload::Layer::new(filter(options.level));
    let format = if options.is_for_people() { Format::Text } else { Format::Json };
    let audit = audit_file.map(|file| audit(file, &mut unstarted)).transpose()?;
    let (audit_layer, audit_file_moved) = audit.unzip();
    let registry = tracing_subscriber::registry().with(audit_layer);
    let layer = tracing_subscriber::fmt::layer().with_writer(queue);
    match format {
        Format::Text => {
            let lines = Lines { on_terminal: terminal, colours: terminal && options.colours };
            let layer = layer.with_ansi(lines.colours).event_format(lines).fmt_fields(lines);
            registry.with(layer.with_filter(filter)).try_init()
        }
        Format::Json => registry.with(layer.json().event_format(Objects).with_filter(filter)).try_init(),
    }
    .map_err(|_| Error::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    let set = move |level| {
        // It fails only where the log has gone.
        let _ = handle.reload(self::filter(level));
    };
    Ok(Log { control: Control { set_level: Arc::new(set), audit_file_moved }, unstarted, guards: Vec::new() })
}

/// What writes the audit trail into its file.
fn audit<S>(
    setting: &FileSetting,
    unstarted: &mut Vec<(Queue, Box<dyn Write + Send>)>,
) -> Result<(impl Layer<S> + use<S>, Arc<AtomicBool>), Error>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    let opened = AuditFile::open(setting.path());
    let file = opened.map_err(|source| Error::AuditFile { file: setting.clone(), source })?;
    let moved = file.moved();
    let queue = Queue::new(QUEUE_BYTES);
    unstarted.push((queue.clone(), Box::new(file)));
    let layer = tracing_subscriber::fmt::layer().with_writer(queue).json().flatten_event(true);
    let layer = layer.with_target(false).with_level(false).with_current_span(false).with_span_list(false);
    Ok((layer.with_filter(Targets::new().with_target(AUDIT, LevelFilter::DEBUG)), moved))
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

/// The events of the audit trail.
const AUDIT: &str = "leasehold::session::audit";

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
    fn what_waits_for_a_thread_that_never_starts_is_written_at_the_end() {
        let (sender, reader) = mpsc::sync_channel(10);
        let queue = Queue::new(QUEUE_BYTES);
        let control = Control { set_level: Arc::new(|_| ()), audit_file_moved: None };
        let log =
            Log { control, unstarted: vec![(queue.clone(), Box::new(Sink(sender)))], guards: Vec::new() };
        let layer = tracing_subscriber::fmt::layer().with_writer(queue).json();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || tracing::warn!("the last word"));
        assert_eq!(reader.try_iter().count(), 0);
        drop(log);
        let lines: Vec<_> = reader.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert!(lines.len() == 1 && lines[0].contains("the last word"), "{lines:?}");
    }

    #[test]
    fn the_audit_trail_has_the_target_of_its_module() {
        assert!(std::any::type_name::<crate::session::audit::Secured<'_>>().starts_with(AUDIT));
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
