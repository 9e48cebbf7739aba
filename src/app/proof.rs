//! The proof of a candidate: our own login upstream, and `probe_sql` in it. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::credentials::{Proof, Prove};
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::session::LastDatabase;
use crate::postgres::upstream::refusal::Refusal;
use crate::postgres::upstream::{Address, Leg, LoginError, Turn, Upstream};
use crate::secret::Secret;

/// Where a route's proofs log in, and what they ask.
pub(crate) struct Prover {
    pub(crate) upstream: Arc<Upstream>,
    /// `probe_database`.
    pub(crate) database: Option<String>,
    /// `probe_sql`.
    pub(crate) sql: Option<String>,
    /// `set_role`, which `probe_sql` is asked under as sessions will be.
    pub(crate) set_role: Option<String>,
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

    /// One accepting server suffices. A server that cannot be asked says nothing; one that refuses makes the candidate
    /// refused, unless another lets it in. Each address of a name may be a server of its own.
    async fn prove(&self, username: &str, password: &Secret) -> Proof {
        let set_role = self.set_role.as_deref().filter(|_| self.sql.is_some());
        let Ok(startup) = own_startup().for_upstream(username, &self.database(), set_role) else {
            return Proof::Refused;
        };
        let mut refused = false;
        let mut turns = self.upstream.order();
        while let Some(turn) = turns.pop_front() {
            let outcome = self.upstream.login(turn, &startup, username, password).await;
            if let Err(error) = &outcome
                && let Some(address) = error.address()
            {
                for further in self.upstream.other_addresses(turn.at(address)).await {
                    turns.push_front(further);
                }
            }
            match self.judge(turn, outcome).await {
                accepted @ Proof::Accepted { .. } => return accepted,
                Proof::Refused => refused = true,
                Proof::Unprovable => {}
            }
        }
        if refused { Proof::Refused } else { Proof::Unprovable }
    }

    /// What one host says.
    async fn judge(&self, turn: Turn, outcome: Result<Leg, LoginError>) -> Proof {
        let name = self.upstream.host_name(turn.host);
        let accepted = |address: &Address| Proof::Accepted { address: address.to_string() };
        match (outcome, &self.sql) {
            (Ok(leg), None) => {
                let proof = accepted(&leg.address);
                leg.part().await;
                proof
            }
            (Ok(leg), Some(sql)) => {
                let proof = accepted(&leg.address);
                match probe(leg, sql, self.upstream.connect_timeout()).await {
                    Ok(()) => proof,
                    Err(error) => {
                        tracing::warn!(upstream.addr = name, sqlstate = error.sqlstate(), %error, "probe_sql fails");
                        if error.is_final() { Proof::Refused } else { Proof::Unprovable }
                    }
                }
            }
            // It let the credential in, whatever it is for sessions.
            (Err(LoginError::Unsuitable(address)), None) => accepted(&address),
            (Err(LoginError::Refused(refusal)), None) if refusal.proves_credential() => {
                Proof::Accepted { address: refusal.address.map(|at| at.to_string()).unwrap_or_default() }
            }
            (Err(LoginError::Refused(refusal)), sql) if is_no(&refusal, sql.is_some()) => {
                tracing::warn!(upstream.addr = name, sqlstate = refusal.sqlstate(), "the proof is refused");
                Proof::Refused
            }
            (Err(error), _) => {
                tracing::warn!(upstream.addr = name, error = %Chain(&error), "no proof");
                Proof::Unprovable
            }
        }
    }

    fn database(&self) -> Vec<u8> {
        let configured = self.database.as_deref().or_else(|| self.upstream.database());
        configured
            .map(|name| name.as_bytes().to_vec())
            .or_else(|| self.last_database.get())
            .unwrap_or_else(|| b"postgres".to_vec())
    }
}

/// What leasehold's own logins ask for. Protocol 3.0: the driver of `probe_sql` reads no longer key.
pub(crate) fn own_startup() -> StartupMessage {
    StartupMessage::new(0).with(b"application_name", b"leasehold")
}

/// Whether a refusal is the credential's fault. Where there is a `probe_sql`, a login that cannot ask it has failed.
fn is_no(refusal: &Refusal, must_ask: bool) -> bool {
    refusal.sqlstate().starts_with("28") || (must_ask && !is_passing(refusal.sqlstate()))
}

/// Whether an error speaks of the server's state and not of the role: connection, conflict, resources, an operator.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_passing(sqlstate: &str) -> bool {
    ["08", "40", "53", "57", "58"].iter().any(|class| sqlstate.starts_with(class))
}

/// Runs `sql`; rows are thrown away.
pub(crate) async fn probe(leg: Leg, sql: &str, within: Duration) -> Result<(), ProbeError> {
    let cancel = leg.cancel.clone();
    let asking = leg.ask(|client| async move { client.batch_execute(sql).await });
    match timeout(within, Box::pin(asking)).await {
        Ok(answer) => answer.flatten().map_err(ProbeError::Failed),
        Err(_) => {
            if let Some(cancel) = cancel {
                // The connection is closed already; what cannot be cancelled ends with the role's rights.
                let _ = cancel.send(CANCEL_WITHIN).await;
            }
            Err(ProbeError::TimedOut { within })
        }
    }
}

/// Why `probe_sql` did not succeed. The text has nothing of the statement.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProbeError {
    /// The server's error, or a lost connection.
    #[error("the statement failed")]
    Failed(#[source] tokio_postgres::Error),
    /// It ran too long, and was cancelled.
    #[error("the statement took longer than {within:?}")]
    TimedOut {
        /// `connect_timeout`.
        within: Duration,
    },
}

impl ProbeError {
    /// Empty where the server did not say one.
    pub(crate) fn sqlstate(&self) -> &str {
        match self {
            Self::Failed(error) => error.code().map_or("", tokio_postgres::error::SqlState::code),
            Self::TimedOut { .. } => "",
        }
    }

    /// Whether asking again will not help: the server said no, and not for a reason that passes.
    fn is_final(&self) -> bool {
        !self.sqlstate().is_empty() && !is_passing(self.sqlstate())
    }
}

/// How long the server may take to hear that a statement is to end.
const CANCEL_WITHIN: Duration = Duration::from_secs(5);

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
