//! Why `run` cannot begin. Floor 6.

use crate::credentials::state;
use crate::files::FileSetting;
use crate::{acceptor, admin, listener, upstreams, vault};

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
    Listen(#[from] listener::Error),
    #[error(transparent)]
    Http(#[from] admin::Error),
    #[error("the threads that carry sessions cannot be started")]
    Threads(#[source] std::io::Error),
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
}

impl Error {
    /// 78 for what the configuration says, 71 for what the machine refuses.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Vault(_) | Self::Upstream(_) | Self::Tls(_) | Self::State { .. } => 78,
            Self::Recorder | Self::Listen(_) | Self::Http(_) | Self::Threads(_) | Self::Signals(_) => 71,
        }
    }
}
