//! The proof of a candidate: our own login upstream. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::credentials::{Proof, Prove};
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::session::LastDatabase;
use crate::postgres::upstream::{Leg, LoginError, Upstream};
use crate::secret::Secret;

/// Where a route's proofs log in.
pub(crate) struct Prover {
    pub(crate) upstream: Arc<Upstream>,
    /// `probe_database`.
    pub(crate) database: Option<String>,
    pub(crate) last_database: LastDatabase,
}

/// How long the server may take to let a proof's session go.
const GOODBYE: Duration = Duration::from_secs(5);

impl Prover {
    /// The function that the driver of the route calls.
    pub(crate) fn into_prove(self) -> Prove {
        let this = Arc::new(self);
        Arc::new(move |username, password| {
            let this = Arc::clone(&this);
            Box::pin(async move { this.prove(&username, &password).await })
        })
    }

    /// One accepting host suffices. A host that cannot be asked says nothing; one that refuses makes the candidate
    /// refused, unless another lets it in.
    async fn prove(&self, username: &str, password: &Secret) -> Proof {
        let startup =
            StartupMessage::new(0).with(b"user", username.as_bytes()).with(b"application_name", b"leasehold");
        let Ok(startup) = startup.for_upstream(username, &self.database(), None) else {
            return Proof::Refused;
        };
        let mut refused = false;
        for host in self.upstream.order() {
            let outcome = self.upstream.login(host, &startup, username, password).await;
            let name = self.upstream.host_name(host);
            match outcome {
                Ok(leg) => {
                    part(leg).await;
                    return Proof::Accepted;
                }
                Err(LoginError::Refused(refusal)) if refusal.proves_credential() => return Proof::Accepted,
                Err(LoginError::Refused(refusal)) if refusal.sqlstate().starts_with("28") => {
                    tracing::warn!(
                        upstream.addr = name,
                        sqlstate = refusal.sqlstate(),
                        "the proof is refused"
                    );
                    refused = true;
                }
                Err(error) => tracing::warn!(upstream.addr = name, error = %Chain(&error), "no proof"),
            }
        }
        if refused { Proof::Refused } else { Proof::Unprovable }
    }

    fn database(&self) -> Vec<u8> {
        let configured = self.database.as_deref().or_else(|| self.upstream.database());
        configured
            .map(|name| name.as_bytes().to_vec())
            .or_else(|| self.last_database.get())
            .unwrap_or_else(|| b"postgres".to_vec())
    }
}

/// Ends the session and waits until the server has.
async fn part(mut leg: Leg) {
    let goodbye = async {
        leg.stream.write_all(b"X\0\0\0\x04").await?;
        leg.stream.flush().await?;
        while leg.stream.read(&mut [0; 64]).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // A server that does not answer any more has no session to lose.
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

/// An error with its causes, in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}
