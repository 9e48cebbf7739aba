//! Why `run` cannot begin. Floor 6.

use super::listeners::Unbound;
use crate::credentials::state;
use crate::files::FileSetting;
use crate::{acceptor, hardening, log, upstreams, vault};

/// Why `run` cannot begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("metrics: a recorder is installed already")]
    Recorder,
    #[error("vault")]
    Vault(#[from] vault::Error),
    #[error(transparent)]
    Upstream(#[from] upstreams::Error),
    #[error(transparent)]
    Tls(#[from] acceptor::Error),
    #[error("{file}")]
    State { file: FileSetting, source: state::Error },
    #[error(transparent)]
    Unbound(#[from] Unbound),
    #[error("the threads that carry sessions cannot be started")]
    Threads(#[source] std::io::Error),
    #[error(transparent)]
    Hardening(#[from] hardening::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Log(#[from] log::Error),
}

impl Error {
    /// 78 for what the configuration says, 71 for what the machine refuses.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Log(error) => error.exit_code(),
            Self::Vault(_) | Self::Upstream(_) | Self::Tls(_) | Self::State { .. } => 78,
            Self::Recorder | Self::Unbound(_) | Self::Threads(_) | Self::Hardening(_) | Self::Signals(_) => {
                71
            }
        }
    }
}
