//! What can be wrong with the configuration. Floor 6.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::files;

/// Why there is no configuration. The text is one line: where, which key, why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The command line contradicts itself or the file.
    #[error("{origin}: {reason}")]
    Usage {
        /// The flag or variable.
        origin: Origin,
        /// Why, without the value.
        reason: String,
    },
    /// A value is wrong.
    #[error("{origin}: {reason}")]
    Invalid {
        /// Where it stands.
        origin: Origin,
        /// Why, without secrets.
        reason: String,
    },
    /// A value is missing.
    #[error("{key}: {reason}")]
    Missing {
        /// The key with its tables, behind the file that might have it, if there is one.
        key: String,
        /// Where it may be written.
        reason: String,
    },
    /// The file itself, or that of the token, cannot be read.
    #[error("{0}")]
    File(files::Error),
}

impl Error {
    /// 64 for usage, 78 for configuration, as in `sysexits.h`.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage { .. } => 64,
            Self::Invalid { .. } | Self::Missing { .. } | Self::File(_) => 78,
        }
    }

    /// What is missing is missing in this file too.
    pub(super) fn in_file(self, path: &Path) -> Self {
        match self {
            Self::Missing { key, reason } => {
                Self::Missing { key: format!("{}: {key}", path.display()), reason }
            }
            other => other,
        }
    }

    pub(super) fn invalid(origin: Origin, reason: impl fmt::Display) -> Self {
        Self::Invalid { origin, reason: reason.to_string() }
    }
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// On the command line: `--a-b`.
    Flag(String),
    /// In the environment: the variable's name.
    Env(String),
    /// In the file.
    File {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// The key with its tables, where it is known.
        key: String,
    },
    /// Nowhere: the default of this key.
    Default(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) | Self::Env(name) => f.write_str(name),
            Self::File { path, line, key } => write!(f, "{}:{line}: {key}", path.display()),
            Self::Default(key) => write!(f, "{key} (default)"),
        }
    }
}
