//! An event for the machine, with what came with it that the machine does not keep. Floor 3.

use std::time::Duration;

use crate::credentials::Lease;
use crate::lease::{Event, GenerationId};
use crate::secret::Secret;

/// An event for the machine, and the credential or the error that came with it.
pub(super) struct Input {
    pub(super) event: Event,
    pub(super) credential: Option<Credential>,
    /// What Vault or a server has said, one line without secrets.
    pub(super) error: Option<String>,
}

impl From<Event> for Input {
    fn from(event: Event) -> Self {
        Self { event, credential: None, error: None }
    }
}

impl Input {
    /// An event that a credential has come with.
    pub(super) fn with(event: Event, credential: Credential) -> Self {
        Self { credential: Some(credential), ..event.into() }
    }

    /// An event that is a failure, with what was said.
    pub(super) fn failed(event: Event, error: String) -> Self {
        Self { error: Some(error), ..event.into() }
    }
}

/// What [`Action::Store`] is about.
pub(super) struct Credential {
    pub(super) username: String,
    /// Empty where Vault has not said it.
    pub(super) password: Secret,
    pub(super) lease: Lease,
    pub(super) came: Came,
}

/// How a credential came.
pub(super) enum Came {
    Issued {
        /// `lease_duration`.
        ttl: Duration,
    },
    /// Vault has made it, and it cannot be used.
    Left,
    /// It is the password of a static role.
    Read {
        /// `data.ttl`.
        ttl: Duration,
    },
}

impl Came {
    pub(super) fn log(&self, number: GenerationId, username: &str, lease: &Lease) {
        match self {
            Self::Issued { ttl } => {
                tracing::info!(
                    lease.generation = number.get(),
                    lease.id = lease.tail(),
                    lease.ttl_s = ttl.as_secs(),
                    db.user = username,
                    "issued"
                );
                if *ttl < Duration::from_secs(10) {
                    tracing::warn!(
                        lease.generation = number.get(),
                        db.user = username,
                        lease.ttl_s = ttl.as_secs(),
                        "a lease under 10 s leaves little between renewals"
                    );
                }
            }
            Self::Left => tracing::warn!(
                lease.generation = number.get(),
                lease.id = lease.tail(),
                db.user = username,
                "Vault made a credential that cannot be used: it is given back"
            ),
            Self::Read { ttl } => {
                tracing::info!(
                    lease.generation = number.get(),
                    ttl_s = ttl.as_secs(),
                    db.user = username,
                    "a new password was read"
                );
            }
        }
    }
}
