//! What the log says of servers that do not accept a candidate: each failure once, and not once a try. Floor 6.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::error::Chain;
use crate::postgres::upstream::LoginError;
use crate::postgres::upstream::refusal::Refusal;

/// Who named a database. It decides what a failure in it says of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Chooser {
    /// `probe_database` or the URI.
    Configuration,
    /// A client of the route, which may name any that the credential can enter.
    Client,
    /// Nobody: it is PostgreSQL's own.
    Default,
}

impl Chooser {
    fn as_str(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Client => "client",
            Self::Default => "default",
        }
    }
}

/// What has been said of each server and who chose the database, and of `probe_sql` at each address, so that a server that is
/// away is one line, and not one a try.
#[derive(Debug, Default)]
pub(crate) struct Said(Mutex<BTreeMap<(String, Chooser), String>>);

impl Said {
    /// Whether this is not what was said of it last.
    pub(super) fn is_new(&self, server: &str, chosen_by: Chooser, words: &str) -> bool {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        said.insert((server.to_owned(), chosen_by), words.to_owned()).is_none_or(|known| known != words)
    }

    /// There is nothing to be said of it any more.
    pub(super) fn forget(&self, server: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(known, _), _| known != server);
    }

    pub(super) fn log_refused_role(&self, server: &str, chosen_by: Chooser, refusal: &Refusal) {
        let sqlstate = refusal.sqlstate();
        if self.is_new(server, chosen_by, "set_role is refused") {
            tracing::warn!(
                upstream.addr = server,
                sqlstate,
                error = refusal.shown(),
                "set_role is refused, and would be in every session: is the new role a member of it, and does what is in \
                 between take the startup parameter `options`? (PgBouncer takes none)"
            );
        } else {
            tracing::debug!(upstream.addr = server, sqlstate, "set_role is refused again");
        }
    }

    pub(super) fn log_failure(&self, server: &str, chosen_by: Chooser, database: &[u8], error: &LoginError) {
        let of = chosen_by.as_str();
        let error_in_words = Chain(error).to_string();
        let (message, sqlstate) = match error {
            LoginError::Refused(refusal) => ("the proof is refused", Some(refusal.sqlstate())),
            _ => ("no proof", None),
        };
        // A server's words name the role, which is another one with each credential.
        let is_new = self.is_new(server, chosen_by, sqlstate.unwrap_or(error_in_words.as_str()));
        let (error, name) = (error_in_words, String::from_utf8_lossy(database).escape_debug().to_string());
        if is_new {
            tracing::warn!(
                upstream.addr = server,
                sqlstate,
                error,
                db.name = name,
                database.of = of,
                "{message}"
            );
        } else {
            tracing::debug!(
                upstream.addr = server,
                sqlstate,
                error,
                db.name = name,
                database.of = of,
                "{message}"
            );
        }
    }
}
