//! `probe_sql`: a statement that shows whether a session is of use. Floor 6.

use std::time::Duration;

use tokio::time::timeout;

use crate::postgres::upstream::UpstreamSession;

/// Runs `sql`; rows are thrown away.
pub(crate) async fn probe(session: UpstreamSession, sql: &str, within: Duration) -> Result<(), ProbeError> {
    let cancel = session.cancel.clone();
    let asking = session.ask(|client| async move { client.batch_execute(sql).await });
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
    pub(super) fn is_final(&self) -> bool {
        !self.sqlstate().is_empty() && !is_passing(self.sqlstate())
    }
}

/// Whether an error speaks of the server's state and not of the role: connection, conflict, resources, an operator.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_passing(sqlstate: &str) -> bool {
    ["08", "40", "53", "57", "58"].iter().any(|class| sqlstate.starts_with(class))
}

/// How long the server may take to hear that a statement is to end.
const CANCEL_WITHIN: Duration = Duration::from_secs(5);
