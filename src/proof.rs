//! The proof of a candidate: our own login upstream, and `probe_sql` in it. Floor 6.

mod probe;
mod said;

use std::sync::Arc;

use crate::credentials::{Obstacle, Proof, Prove};
use crate::error::Chain;
use crate::postgres::protocol::startup::StartupMessage;
use crate::postgres::session::UsedDatabases;
use crate::postgres::upstream::refusal::Refusal;
use crate::postgres::upstream::{LoginError, Turn, Upstream, UpstreamSession};
use crate::secret::Secret;
use crate::socket::Address;
pub(crate) use probe::{ProbeError, probe};
use said::Chooser;
pub(crate) use said::Said;

/// Where a route's proofs log in, and what they ask.
pub(crate) struct Prover {
    pub(crate) upstream: Arc<Upstream>,
    /// `probe_database`.
    pub(crate) database: Option<String>,
    /// `probe_sql`.
    pub(crate) sql: Option<String>,
    /// `set_role`: the proof asks for what sessions ask for.
    pub(crate) set_role: Option<String>,
    pub(crate) used: UsedDatabases,
    pub(crate) said: Said,
}

/// A database that a proof may log in to.
struct Database {
    name: Vec<u8>,
    chosen_by: Chooser,
}

/// What a server makes of a candidate.
#[derive(Debug)]
enum Answer {
    Accepts {
        address: Address,
        /// Why it begins no session all the same: it has no connection left, or not the database that all sessions are in.
        full: Option<String>,
    },
    Refuses {
        /// Why: one line without secrets.
        reason: String,
    },
    /// It lets the candidate in, and is not what `target_session_attrs` asks for: no session goes there.
    Unsuitable,
    /// It could not be asked, or what it said is about something else.
    SaysNothing(Obstacle),
}

/// What a login in one database says of a candidate.
#[derive(Debug)]
enum Word {
    /// What the server makes of it.
    OfServer(Answer),
    /// Nothing, but another database may tell more.
    OfDatabase(Obstacle),
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

    /// One accepting server suffices, if sessions go there. A server that cannot be asked says nothing; one that refuses makes
    /// the candidate refused, unless another lets it in. Each address of a name may be a server of its own.
    async fn prove(&self, username: &str, password: &Secret) -> Proof {
        let mut found = Found::default();
        let mut turns = self.upstream.order();
        while let Some(mut turn) = turns.pop_front() {
            match self.ask_server(&mut turn, username, password).await {
                Answer::Accepts { address, full } => {
                    return Proof::Accepted { address: address.to_string(), full };
                }
                Answer::Refuses { reason } => found.refusals.push(Obstacle::Passing(reason)),
                Answer::Unsuitable => {
                    found.unsuitable = true;
                    turns.extend(self.upstream.second(turn));
                }
                Answer::SaysNothing(obstacle) => found.obstacles.push(obstacle),
            }
            for further in self.upstream.other_addresses(turn).await {
                turns.push_front(further);
            }
        }
        found.proof()
    }

    /// Logs in to one database after the other until one of them tells what the server makes of the candidate. `turn`
    /// stays at the address that has answered first.
    async fn ask_server(&self, turn: &mut Turn, username: &str, password: &Secret) -> Answer {
        let mut obstacle = Obstacle::Passing(UNSENDABLE.to_owned());
        // Why no session begins in the database that all are in.
        let mut shut = None;
        for database in self.databases() {
            let set_role = self.set_role.as_deref();
            let Some(outcome) = self.log_in(*turn, &database, set_role, username, password).await else {
                continue;
            };
            if let Some(address) =
                outcome.as_ref().map_or_else(LoginError::address, |session| Some(&session.address))
            {
                *turn = turn.at(address);
            }
            if let (Some(_), Err(LoginError::Refused(refusal))) = (set_role, &outcome)
                && self.is_for_the_role(*turn, &database, refusal, username, password).await
            {
                self.said.log_refused_role(self.upstream.host_name(turn.host()), database.chosen_by, refusal);
                let reason =
                    format!("{}: set_role: {}", self.upstream.host_name(turn.host()), refusal.shown());
                return Answer::Refuses { reason };
            }
            match self.judge(*turn, &database, outcome).await {
                Word::OfServer(Answer::Accepts { address, full: None }) => {
                    return Answer::Accepts { address, full: shut };
                }
                Word::OfServer(answer) => return answer,
                Word::OfDatabase(of_database) => {
                    if self.is_of_all_sessions(&database) {
                        shut = Some(of_database.reason().to_owned());
                    }
                    obstacle = of_database;
                }
            }
        }
        Answer::SaysNothing(obstacle)
    }

    /// `None` where the names cannot be sent.
    async fn log_in(
        &self,
        turn: Turn,
        database: &Database,
        set_role: Option<&str>,
        username: &str,
        password: &Secret,
    ) -> Option<Result<UpstreamSession, LoginError>> {
        let startup = own_startup().for_upstream(username, &database.name, set_role).ok()?;
        Some(self.upstream.login(turn, &startup, username, password).await)
    }

    /// Whether a login was refused for the role that it asked for: the server says so, or the login succeeds without.
    async fn is_for_the_role(
        &self,
        turn: Turn,
        database: &Database,
        refusal: &Refusal,
        username: &str,
        password: &Secret,
    ) -> bool {
        if refusal.refuses_role() {
            return true;
        }
        if !refusal.is_suspect() || refusal.blames_credential() {
            return false;
        }
        let Some(Ok(session)) = self.log_in(turn, database, None, username, password).await else {
            return false;
        };
        session.terminate().await;
        true
    }

    /// What the login in one database says.
    async fn judge(
        &self,
        turn: Turn,
        database: &Database,
        outcome: Result<UpstreamSession, LoginError>,
    ) -> Word {
        let name = self.upstream.host_name(turn.host());
        if outcome.is_ok() {
            self.said.forget(name);
        }
        let error = match (outcome, &self.sql) {
            (Ok(session), None) => {
                let address = session.address.clone();
                session.terminate().await;
                return Word::OfServer(Answer::Accepts { address, full: None });
            }
            (Ok(session), Some(sql)) => return Word::OfServer(self.ask_probe(session, sql).await),
            (Err(error), _) => error,
        };
        self.said.log_failure(name, database.chosen_by, &database.name, &error);
        let reason = format!("{name}: {}", Chain(&error));
        let obstacle = if error.is_lasting() { Obstacle::Lasting(reason) } else { Obstacle::Passing(reason) };
        let asked = Asked {
            chosen_by: database.chosen_by,
            is_of_all_sessions: self.is_of_all_sessions(database),
            must_ask: self.sql.is_some(),
            takes_any: turn.takes_any(),
        };
        word(error, asked, obstacle)
    }

    /// Whether each session is in this database, as it is with a name in the URI.
    fn is_of_all_sessions(&self, database: &Database) -> bool {
        self.upstream.database().is_some_and(|name| name.as_bytes() == database.name)
    }

    async fn ask_probe(&self, session: UpstreamSession, sql: &str) -> Answer {
        let address = session.address.clone();
        let place = format!("probe_sql at {address}");
        let Err(error) = probe(session, sql, self.upstream.connect_timeout()).await else {
            self.said.forget(&place);
            return Answer::Accepts { address, full: None };
        };
        let sqlstate = error.sqlstate();
        if self.said.is_new(&place, Chooser::Configuration, &format!("{error} {sqlstate}")) {
            tracing::warn!(upstream.addr = %address, sqlstate, %error, "probe_sql fails");
        } else {
            tracing::debug!(upstream.addr = %address, sqlstate, %error, "probe_sql fails");
        }
        if error.is_final() {
            Answer::Refuses { reason: format!("{address}: probe_sql: {error}") }
        } else {
            Answer::SaysNothing(Obstacle::Passing(format!("{address}: probe_sql: {error}")))
        }
    }

    /// Where to log in, in this order. `probe_sql` means something in the configured database alone.
    fn databases(&self) -> Vec<Database> {
        let configured = self.database.as_deref().or_else(|| self.upstream.database());
        let of = |chosen_by| move |name: Vec<u8>| Database { name, chosen_by };
        let mut databases: Vec<Database> = configured
            .map(|name| name.as_bytes().to_vec())
            .map(of(Chooser::Configuration))
            .into_iter()
            .collect();
        if self.sql.is_none() {
            let used = self.used.latest_first().into_iter();
            let used =
                used.filter(|name| Some(name.as_slice()) != configured.map(str::as_bytes) && name != DEFAULT);
            databases.extend(used.map(of(Chooser::Client)));
            databases.push(of(Chooser::Default)(DEFAULT.to_vec()));
        }
        databases
    }
}

/// What was asked of a server.
#[derive(Clone, Copy, Debug)]
struct Asked {
    chosen_by: Chooser,
    /// Each session is in this database.
    is_of_all_sessions: bool,
    /// There is a `probe_sql`.
    must_ask: bool,
    /// Sessions go to servers of every kind.
    takes_any: bool,
}

/// What all servers together made of a candidate that none accepted.
#[derive(Default)]
struct Found {
    /// Of each that refused it.
    refusals: Vec<Obstacle>,
    unsuitable: bool,
    /// Of each that said nothing, in the order in which they were asked.
    obstacles: Vec<Obstacle>,
}

impl Found {
    fn proof(self) -> Proof {
        let is_refused = !self.refusals.is_empty();
        match self {
            // The credential is good, as one server of the cluster has shown.
            Self { unsuitable: true, .. } if is_refused => Proof::Lags,
            Self { refusals, .. } if is_refused => {
                Proof::Refused { reason: Obstacle::of_all(&refusals).into_reason() }
            }
            Self { unsuitable: true, .. } => Proof::Unprovable(Obstacle::Unsuitable(UNSUITABLE.to_owned())),
            Self { obstacles, .. } => Proof::Unprovable(Obstacle::of_all(&obstacles)),
        }
    }
}

/// What a failed login says. A failure in a database that a client chose is no evidence against the credential: it may be
/// gone, closed, or let in by other rules than the rest.
fn word(error: LoginError, asked: Asked, obstacle: Obstacle) -> Word {
    let Asked { chosen_by, is_of_all_sessions, must_ask, takes_any } = asked;
    match error {
        LoginError::Unsuitable(_) => Word::OfServer(Answer::Unsuitable),
        LoginError::Refused(refusal) if refusal.proves_credential() => match &refusal.address {
            Some(address) if !must_ask && takes_any => {
                // A database with a CONNECTION LIMIT of its own says nothing of the others.
                let is_full =
                    refusal.is_full() && (chosen_by == Chooser::Configuration || !refusal.is_of_database());
                // One that each session is in is missing, or closed to the role: none begins.
                let full = (is_full || is_of_all_sessions).then(|| obstacle.into_reason());
                Word::OfServer(Answer::Accepts { address: address.clone(), full })
            }
            // The server had not said what it is when the error came: another database may show it.
            _ if !must_ask => Word::OfDatabase(obstacle),
            // The database is at fault, or full, and `probe_sql` is not heard.
            _ => Word::OfServer(Answer::SaysNothing(obstacle)),
        },
        LoginError::Refused(refusal) if refusal.blames_credential() => match chosen_by {
            Chooser::Configuration | Chooser::Default => {
                Word::OfServer(Answer::Refuses { reason: obstacle.into_reason() })
            }
            Chooser::Client => Word::OfDatabase(obstacle),
        },
        // Rules for addresses and databases, which the configured one is meant to pass.
        LoginError::Refused(refusal)
            if chosen_by == Chooser::Configuration && refusal.sqlstate().starts_with("28") =>
        {
            Word::OfServer(Answer::Refuses { reason: obstacle.into_reason() })
        }
        LoginError::Unreachable(_)
        | LoginError::Said { .. }
        | LoginError::Tls(_)
        | LoginError::NoKeys(_)
        | LoginError::TimedOut { connected: false, .. } => Word::OfServer(Answer::SaysNothing(obstacle)),
        LoginError::Refused(_)
        | LoginError::TimedOut { .. }
        | LoginError::Auth(_)
        | LoginError::Protocol(_)
        | LoginError::Closed
        | LoginError::Lost(_) => match chosen_by {
            Chooser::Configuration => Word::OfServer(Answer::SaysNothing(obstacle)),
            Chooser::Client | Chooser::Default => Word::OfDatabase(obstacle),
        },
    }
}

const UNSENDABLE: &str = "the names of user and database cannot be sent";
const UNSUITABLE: &str = "no upstream server is what target_session_attrs asks for";

/// What leasehold's own logins ask for. Protocol 3.0: the driver of `probe_sql` reads no longer key.
pub(crate) fn own_startup() -> StartupMessage {
    StartupMessage::new(0).with(b"application_name", b"leasehold")
}

/// The database that each PostgreSQL has, unless it was dropped.
const DEFAULT: &[u8] = b"postgres";
