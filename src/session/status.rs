//! What `/sessions` shows. Floor 4. Times are RFC 3339 in UTC, sizes are bytes.

use serde::{Deserialize, Serialize};

use super::activity::SessionState;

/// One session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionStatus {
    /// No other session of the process has it. It is `session.id` in the log.
    pub(crate) id: u64,
    /// The client's IP address and port; null on a Unix socket.
    pub(crate) client_addr: Option<String>,
    /// The client's user id on a Unix socket, else null.
    pub(crate) client_uid: Option<u32>,
    /// The client's process id on a Unix socket, if it can be seen from here, else null.
    pub(crate) client_pid: Option<i32>,
    /// The user that the client named.
    pub(crate) user: String,
    /// The database that the server was asked for.
    pub(crate) database: String,
    /// As the client sent it when it connected; empty without one.
    pub(crate) application_name: String,
    /// The route.
    pub(crate) route: String,
    /// The generation of the route's credential that the session logged in with.
    pub(crate) generation: u64,
    /// The last eight characters of that credential's lease_id; empty for a static role.
    pub(crate) lease_id: String,
    /// The role in the database.
    pub(crate) role: String,
    /// The server's address.
    pub(crate) upstream: String,
    /// The server's process, `pg_stat_activity.pid`; null if the server named none.
    pub(crate) backend_pid: Option<i32>,
    /// When the client was let in.
    pub(crate) opened_at: String,
    /// `idle`, `active`, `idle in transaction` or `closing`.
    pub(crate) state: SessionState,
    /// Since when.
    pub(crate) state_since: String,
    /// When its transaction began; null between transactions.
    pub(crate) transaction_since: Option<String>,
    /// Bytes from the client since it was let in.
    pub(crate) bytes_to_upstream: u64,
    /// Bytes from the server since then.
    pub(crate) bytes_to_client: u64,
}

impl SessionStatus {
    /// The client for people: `10.0.0.7:51234`, or `uid 1000 pid 4242`.
    #[must_use]
    pub(crate) fn client(&self) -> String {
        match (&self.client_addr, self.client_uid, self.client_pid) {
            (Some(address), ..) => address.clone(),
            (None, Some(uid), Some(pid)) => format!("uid {uid} pid {pid}"),
            (None, Some(uid), None) => format!("uid {uid}"),
            (None, None, _) => "unknown".to_owned(),
        }
    }
}

/// Which sessions are wanted. Each word that is given has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionFilter {
    words: Vec<(Field, String)>,
}

/// What a session can be looked for by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Client,
    User,
    Database,
    ApplicationName,
    Route,
    Generation,
    LeaseId,
    Role,
    Upstream,
    BackendPid,
    State,
}

const FIELDS: [(&str, Field); 12] = [
    ("id", Field::Id),
    ("client", Field::Client),
    ("user", Field::User),
    ("database", Field::Database),
    ("application_name", Field::ApplicationName),
    ("route", Field::Route),
    ("generation", Field::Generation),
    ("lease_id", Field::LeaseId),
    ("role", Field::Role),
    ("upstream", Field::Upstream),
    ("backend_pid", Field::BackendPid),
    ("state", Field::State),
];

impl SessionFilter {
    /// Asks for this value of the field with this name, one of those of [`SessionStatus`], or `client`: an address with or
    /// without its port, `uid 1000` or `pid 4242`.
    ///
    /// # Errors
    /// One line: there is no such field, or it never has this value.
    pub(crate) fn and(&mut self, name: &str, value: &str) -> Result<(), String> {
        let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            let known: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
            return Err(format!("sessions have no {name:?}; they have {}", known.join(", ")));
        };
        let value = match field {
            Field::Id | Field::Generation | Field::BackendPid if value.parse::<u64>().is_err() => {
                return Err(format!("{name} is a number"));
            }
            Field::State => SessionState::of_word(value).map(SessionState::as_str).ok_or_else(|| {
                let known = SessionState::ALL.map(SessionState::as_str).join(", ");
                format!("state is one of {known}")
            })?,
            _ => value,
        };
        self.words.push((*field, value.to_owned()));
        Ok(())
    }

    /// Whether this session is wanted.
    #[must_use]
    pub(crate) fn takes(&self, session: &SessionStatus) -> bool {
        self.words.iter().all(|(field, wanted)| {
            let is = |value: &dyn ToString| value.to_string() == *wanted;
            match field {
                Field::Id => is(&session.id),
                Field::Client => is_client(session, wanted),
                Field::User => session.user == *wanted,
                Field::Database => session.database == *wanted,
                Field::ApplicationName => session.application_name == *wanted,
                Field::Route => session.route == *wanted,
                Field::Generation => is(&session.generation),
                Field::LeaseId => session.lease_id == *wanted,
                Field::Role => session.role == *wanted,
                Field::Upstream => session.upstream == *wanted,
                Field::BackendPid => session.backend_pid.is_some_and(|pid| is(&pid)),
                Field::State => session.state.as_str() == wanted,
            }
        })
    }
}

fn is_client(session: &SessionStatus, wanted: &str) -> bool {
    let Some(address) = &session.client_addr else {
        return session.client() == wanted
            || session.client_uid.is_some_and(|uid| format!("uid {uid}") == wanted)
            || session.client_pid.is_some_and(|pid| format!("pid {pid}") == wanted);
    };
    let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
    address == wanted || host == wanted || host.trim_matches(['[', ']']) == wanted
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn session(id: u64) -> SessionStatus {
        SessionStatus {
            id,
            client_addr: Some("[fd00::7]:51234".to_owned()),
            client_uid: None,
            client_pid: None,
            user: "app".to_owned(),
            database: "shop".to_owned(),
            application_name: "checkout".to_owned(),
            route: "app".to_owned(),
            generation: 3,
            lease_id: "abcdefgh".to_owned(),
            role: "v-app-1".to_owned(),
            upstream: "10.0.0.9:5432".to_owned(),
            backend_pid: Some(4711),
            opened_at: "2026-03-01T11:58:00.000Z".to_owned(),
            state: SessionState::IdleInTransaction,
            state_since: "2026-03-01T11:59:00.000Z".to_owned(),
            transaction_since: Some("2026-03-01T11:58:30.000Z".to_owned()),
            bytes_to_upstream: 2_048,
            bytes_to_client: 3_000_000,
        }
    }

    fn found(name: &str, value: &str, session: &SessionStatus) -> bool {
        let mut filter = SessionFilter::default();
        filter.and(name, value).unwrap();
        filter.takes(session)
    }

    #[test]
    fn a_session_is_found_by_each_of_its_fields() {
        let on_unix =
            SessionStatus { client_addr: None, client_uid: Some(1000), client_pid: Some(42), ..session(8) };
        for (name, value) in [
            ("id", "7"),
            ("client", "[fd00::7]:51234"),
            ("client", "[fd00::7]"),
            ("client", "fd00::7"),
            ("user", "app"),
            ("database", "shop"),
            ("application_name", "checkout"),
            ("route", "app"),
            ("generation", "3"),
            ("lease_id", "abcdefgh"),
            ("role", "v-app-1"),
            ("upstream", "10.0.0.9:5432"),
            ("backend_pid", "4711"),
            ("state", "idle_in_transaction"),
        ] {
            assert!(found(name, value, &session(7)), "{name}={value}");
        }
        assert!(!found("id", "8", &session(7)) && !found("state", "idle", &session(7)));
        for value in ["uid 1000", "pid 42", "uid 1000 pid 42"] {
            assert!(found("client", value, &on_unix) && !found("client", value, &session(7)), "{value}");
        }
    }

    #[test]
    fn all_words_of_a_filter_have_to_fit() {
        let mut filter = SessionFilter::default();
        assert!(filter.takes(&session(7)));
        filter.and("user", "app").unwrap();
        filter.and("backend_pid", "1").unwrap();
        assert!(!filter.takes(&session(7)));
    }

    #[test]
    fn a_filter_says_what_it_cannot_look_for() {
        let mut filter = SessionFilter::default();
        assert!(filter.and("usr", "app").unwrap_err().contains("they have id, client, user"));
        assert_eq!(filter.and("generation", "x").unwrap_err(), "generation is a number");
        assert!(filter.and("state", "busy").unwrap_err().ends_with("idle in transaction, closing"));
    }
}
