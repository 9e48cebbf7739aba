//! What the process gives up before it serves, so that whoever takes it over has less: core dumps, capabilities, privileges,
//! system calls, files to write. Floor 5.
//!
//! ```text
//! one thread:  begin ──▶ files are read, addresses are bound ──▶ complete ──▶ the other threads start
//! ```
//!
//! What the kernel lacks is known in `begin`, so nothing is bound where `require` refuses. What binding needs goes in `complete`: a
//! capability for a low port, and the right to make a socket's file. Threads inherit all of it from the one that starts them.

mod capabilities;
mod filesystem;
mod system_calls;

use std::fmt;
use std::io;

use landlock::RulesetCreated;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::secret;

pub(crate) use filesystem::Changed;

/// Whether the process restricts itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hardening {
    /// It leaves no core dump, and is otherwise as it was started.
    Off,
    /// It takes each step that the kernel allows.
    Auto,
    /// It does not start where one of the steps fails.
    Require,
}

impl Hardening {
    /// The mode by its word.
    #[must_use]
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Some(match word {
            "off" => Self::Off,
            "auto" => Self::Auto,
            "require" => Self::Require,
            _ => return None,
        })
    }

    /// What becomes of a step that was tried.
    fn tried<T>(self, step: Step, outcome: Result<T, io::Error>) -> Result<Option<T>, Error> {
        match outcome {
            Ok(taken) => Ok(Some(taken)),
            Err(source) if self == Self::Require => Err(Error { step, source }),
            Err(error) => {
                tracing::warn!(%error, remedy = step.remedy(), "hardening: {step}");
                Ok(None)
            }
        }
    }
}

/// Why the process cannot be restricted as `require` demands.
#[derive(Debug, thiserror::Error)]
#[error("hardening: {step} ({}, or write hardening = \"auto\")", step.remedy())]
pub(crate) struct Error {
    step: Step,
    source: io::Error,
}

/// A step that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    CoreDumps,
    Memory,
    NoNewPrivileges,
    SystemCalls,
    Filesystem,
    Capabilities,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CoreDumps => "core dumps cannot be switched off",
            Self::Memory => "the memory of secrets cannot be kept out of swap",
            Self::NoNewPrivileges => "no_new_privs cannot be set",
            Self::SystemCalls => "seccomp cannot forbid system calls",
            Self::Filesystem => "Landlock cannot forbid writes and programs",
            Self::Capabilities => "the capabilities cannot be dropped",
        })
    }
}

impl Step {
    fn remedy(self) -> &'static str {
        match self {
            Self::CoreDumps => "let setrlimit and prctl through the filter of system calls",
            Self::Memory => "raise the limit of locked memory (RLIMIT_MEMLOCK, LimitMEMLOCK=) to 64 KiB",
            Self::NoNewPrivileges => "let prctl through the filter of system calls",
            Self::SystemCalls => {
                "let seccomp through the filter of system calls; the kernel needs CONFIG_SECCOMP_FILTER"
            }
            Self::Filesystem => {
                "let the calls of Landlock through the filter of system calls; the kernel needs Linux 5.13 and landlock in \
                 /sys/kernel/security/lsm"
            }
            Self::Capabilities => {
                "let capset through the filter of system calls, or start without capabilities"
            }
        }
    }
}

/// The steps that were taken before anything is bound.
#[must_use]
pub(crate) struct Begun {
    mode: Hardening,
    ruleset: Option<RulesetCreated>,
    filtered: bool,
}

/// Takes the steps that binding addresses does not need undone. Call it while the process has one thread.
///
/// # Errors
/// The mode is `require`, and a step fails.
pub(crate) fn begin(mode: Hardening) -> Result<Begun, Error> {
    mode.tried(Step::CoreDumps, leave_no_core_dump())?;
    if mode == Hardening::Off {
        return Ok(Begun { mode, ruleset: None, filtered: false });
    }
    mode.tried(Step::Memory, secret::lock_memory())?;
    let set = rustix::thread::set_no_new_privs(true);
    mode.tried(Step::NoNewPrivileges, set.map_err(Into::into))?;
    let filtered = mode.tried(Step::SystemCalls, system_calls::forbid())?.is_some();
    let ruleset = mode.tried(Step::Filesystem, filesystem::begin())?;
    Ok(Begun { mode, ruleset, filtered })
}

impl Begun {
    /// Takes the rest of the steps. `changed` is what the process goes on to change. Call it when everything is bound, before another
    /// thread starts.
    ///
    /// # Errors
    /// The mode is `require`, and a step fails.
    pub(crate) fn complete(self, changed: &Changed) -> Result<(), Error> {
        let Self { mode, ruleset, filtered } = self;
        if mode == Hardening::Off {
            return Ok(());
        }
        let restricted = match ruleset {
            Some(ruleset) => mode.tried(Step::Filesystem, filesystem::complete(ruleset, changed))?,
            None => None,
        };
        let capabilities = mode.tried(Step::Capabilities, capabilities::drop_all().map_err(Into::into))?;
        tracing::info!(
            seccomp = filtered,
            landlock = restricted.is_some(),
            capabilities_dropped = capabilities,
            "the process is restricted"
        );
        Ok(())
    }
}

/// Gives the capabilities up as `run` does once its addresses are bound, unless the mode is `off`, and tells how many there were. What
/// then can be read, `run` can go on to read. Call it while the process has one thread. A system that refuses leaves them, as with `auto`.
pub(crate) fn drop_capabilities(mode: Hardening) -> u32 {
    if mode == Hardening::Off { 0 } else { capabilities::drop_all().unwrap_or(0) }
}

/// Passwords and tokens live in this memory: no core dump, and no other process of the same user looks into it.
///
/// # Errors
/// The system refuses.
pub(crate) fn leave_no_core_dump() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}
