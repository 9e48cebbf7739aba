//! The proof of a candidate: our own login upstream. Floor 6.

use std::sync::Arc;

use crate::credentials::{Proof, Prove};
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::session::LastDatabase;
use crate::postgres::upstream::{LoginError, Upstream};
use crate::secret::Secret;

/// Where a route's proofs log in.
pub(crate) struct Prover {
    pub(crate) upstream: Arc<Upstream>,
    /// `probe_database`.
    pub(crate) database: Option<String>,
    pub(crate) last_database: LastDatabase,
}

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
        for turn in self.upstream.order() {
            let outcome = self.upstream.login(turn, &startup, username, password).await;
            let name = self.upstream.host_name(turn.host);
            let accepted = || Proof::Accepted { host: name.to_owned() };
            match outcome {
                Ok(leg) => {
                    leg.part().await;
                    return accepted();
                }
                // It let the credential in, whatever it is for sessions.
                Err(LoginError::Unsuitable) => return accepted(),
                Err(LoginError::Refused(refusal)) if refusal.proves_credential() => return accepted(),
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
