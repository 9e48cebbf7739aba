//! PostgreSQL as the credential finds it: each host, and what a session can do. Floor 6.

mod refused;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::timeout;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::clocks;
use super::finding::{Finding, Outcome};
use crate::clock;
use crate::config::RouteConfig;
use crate::postgres::protocol::startup;
use crate::postgres::upstream::{LoginError, Turn, Upstream, UpstreamSession};
use crate::proof::{ProbeError, own_startup, probe};
use crate::secret::Secret;

/// A user and its password.
pub(super) struct Credential {
    pub(super) username: String,
    pub(super) password: Secret,
}

/// What servers make of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// One lets it in.
    In,
    /// One refuses it, and none lets it in.
    Out,
    /// None can say.
    Unknown,
}

/// Why there is no session with the credential.
#[derive(Debug, thiserror::Error)]
enum NoSession {
    /// Nothing was sent.
    #[error("the startup message cannot be sent")]
    Startup(#[from] startup::Error),
    #[error(transparent)]
    Login(#[from] LoginError),
}

/// A credential at its servers.
pub(super) struct HostCheck {
    upstream: Arc<Upstream>,
    pub(super) credential: Credential,
    database: String,
    /// Whether the configuration names it.
    is_named: bool,
    set_role: Option<String>,
    probe_sql: Option<String>,
    lasting: bool,
    /// What keeps its role from being dropped, as far as that can be seen before.
    pub(super) left: Vec<String>,
}

impl HostCheck {
    /// `lasting`: the role is not Vault's to drop.
    pub(super) fn new(
        route: &RouteConfig,
        upstream: Arc<Upstream>,
        credential: Credential,
        lasting: bool,
    ) -> Self {
        let named = route.probe_database.as_deref().or_else(|| upstream.database());
        Self {
            is_named: named.is_some(),
            database: named.unwrap_or("postgres").to_owned(),
            set_role: route.set_role.clone(),
            probe_sql: route.probe_sql.clone(),
            upstream,
            credential,
            lasting,
            left: Vec::new(),
        }
    }

    /// For what needs none.
    pub(super) fn without_credential(route: &RouteConfig, upstream: Arc<Upstream>) -> Self {
        let credential = Credential { username: String::new(), password: Secret::new(String::new()) };
        Self::new(route, upstream, credential, true)
    }

    /// Connects to every host, with TLS as a session would.
    pub(super) async fn reach(&self, findings: &mut Vec<Finding>) {
        let (mut of_hosts, mut any) = (Vec::new(), false);
        for turn in self.upstream.each() {
            let name = self.upstream.host_name(turn.host());
            match self.upstream.reach(turn).await {
                Ok(_) => {
                    any = true;
                    of_hosts
                        .push(Finding::ok("server", format!("{name} can be reached; no role has logged in")));
                }
                Err(error) => of_hosts.push(self.refused(turn, &NoSession::Login(error))),
            }
        }
        findings.extend(eased(of_hosts, any));
    }

    /// Every host by what `target_session_attrs` asks for, as `run` logs in; then a session at the first that a session
    /// could go to.
    pub(super) async fn examine(&self, findings: &mut Vec<Finding>) {
        let mut first = None;
        let mut of_hosts = Vec::new();
        let mut unsuitable = 0;
        let mut turns = self.upstream.order();
        while let Some(turn) = turns.pop_front() {
            let name = self.upstream.host_name(turn.host());
            match self.log_in(turn, None).await {
                Ok(session) => {
                    of_hosts.push(Finding::ok("server", format!("{name} lets the role in")));
                    first = first.or(Some((turn, session)));
                }
                Err(NoSession::Login(LoginError::Unsuitable(_))) => match self.upstream.second(turn) {
                    Some(second) => turns.push_back(second),
                    None => {
                        unsuitable += 1;
                        of_hosts.push(Finding::ok(
                            "server",
                            format!("{name} lets the role in, and is not what target_session_attrs asks for"),
                        ));
                    }
                },
                Err(error) => of_hosts.push(self.refused(turn, &error)),
            }
        }
        let mut of_hosts = eased(of_hosts, first.is_some());
        if first.is_none() && unsuitable > 0 {
            of_hosts.push(Finding::error(
                "server",
                "no host is what target_session_attrs asks for: no session gets in",
                "name a host of that kind in --upstream, or mend target_session_attrs",
            ));
        }
        findings.append(&mut of_hosts);
        let Some((turn, session)) = first else { return };
        let asked = session.ask(|client| async move { self.question(&client).await });
        match timeout(self.upstream.connect_timeout(), Box::pin(asked)).await {
            Ok(Ok(mut answers)) => findings.append(&mut answers),
            Ok(Err(_)) | Err(_) => findings.push(Finding::error(
                "server",
                format!("{} does not answer in the session", self.upstream.host_name(turn.host())),
                "see the server's log for what it was busy with",
            )),
        }
        if let Some(sql) = &self.probe_sql {
            findings.push(self.ask_probe(turn, sql).await);
        }
    }

    async fn question(&self, client: &Client) -> Vec<Finding> {
        let mut findings = vec![server_clock(client).await];
        if let Some(role) = &self.set_role {
            let set = client.batch_execute(&format!("SET ROLE {}", quoted(role))).await;
            findings.push(match set {
                Ok(()) => Finding::ok("set_role", format!("sessions can be {role}")),
                Err(error) => Finding::error(
                    "set_role",
                    said(&error),
                    format!("let creation_statements make the role a member: IN ROLE {} (PostgreSQL 16: WITH SET)", quoted(role)),
                ),
            });
        }
        let places = value(client, MAY_CREATE).await.unwrap_or_default();
        if !self.lasting && !places.is_empty() {
            findings.push(Finding::warning(
                "ownership",
                format!("what sessions create in {places} will belong to the role itself, which then cannot be dropped"),
                "let the role SET role to a group (ALTER ROLE … SET role in creation_statements, or --set-role), or take CREATE away",
            ));
        }
        let owned = value(client, OWNED_BY_EARLIER).await.unwrap_or_default();
        if !self.lasting && !owned.is_empty() {
            findings.push(Finding::warning(
                "ownership",
                format!("there are objects that belong to roles of earlier credentials, which cannot be dropped: {owned}"),
                "as an administrator, for each of these roles: REASSIGN OWNED BY … TO the group; DROP OWNED BY …; DROP ROLE …",
            ));
        }
        findings
    }

    /// As the proof does it: a session of its own, under `set_role`.
    async fn ask_probe(&self, turn: Turn, sql: &str) -> Finding {
        let session = match self.log_in(turn, self.set_role.as_deref()).await {
            Ok(session) => session,
            Err(error) => {
                let finding = self.refused(turn, &error);
                return Finding::error(
                    "probe_sql",
                    format!("it cannot be asked: {}", finding.detail),
                    "mend what else is found of this route first: set_role, probe_database",
                );
            }
        };
        match probe(session, sql, self.upstream.connect_timeout()).await {
            Ok(()) => Finding::ok("probe_sql", "the role can run it"),
            Err(error) => Finding::error(
                "probe_sql",
                match &error {
                    ProbeError::Failed(error) => said(error),
                    ProbeError::TimedOut { .. } => error.to_string(),
                },
                "grant the group what probe_sql needs, or mend probe_sql (and probe_database)",
            ),
        }
    }

    /// What depends on the role by now.
    pub(super) async fn dependents(&self) -> Vec<String> {
        let Some(&first) = self.upstream.each().first() else { return Vec::new() };
        let Ok(session) = self.log_in(first, None).await else { return Vec::new() };
        let asked = session.ask(|client| async move { value(&client, DEPENDENTS).await });
        match timeout(self.upstream.connect_timeout(), Box::pin(asked)).await {
            Ok(Ok(Some(list))) => list.lines().map(str::to_owned).collect(),
            _ => Vec::new(),
        }
    }

    /// Whether any host still takes the credential.
    pub(super) async fn standing(&self) -> Standing {
        let mut standing = Standing::Unknown;
        for turn in self.upstream.each() {
            match timeout(STANDING_WITHIN, self.log_in(turn, None)).await {
                Ok(Ok(_)) => return Standing::In,
                Ok(Err(NoSession::Login(LoginError::Refused(refusal)))) => {
                    if refusal.proves_credential() {
                        return Standing::In;
                    }
                    if refusal.is_suspect() {
                        standing = Standing::Out;
                    }
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        standing
    }

    async fn log_in(&self, turn: Turn, set_role: Option<&str>) -> Result<UpstreamSession, NoSession> {
        let Credential { username, password } = &self.credential;
        let startup = own_startup().for_upstream(username, self.database.as_bytes(), set_role)?;
        Ok(self.upstream.login(turn, &startup, username, password).await?)
    }
}

/// One host suffices for the others to be a warning.
fn eased(mut of_hosts: Vec<Finding>, one_suffices: bool) -> Vec<Finding> {
    for finding in of_hosts.iter_mut().filter(|finding| one_suffices && finding.outcome == Outcome::Error) {
        finding.outcome = Outcome::Warning;
    }
    of_hosts
}

async fn server_clock(client: &Client) -> Finding {
    let before = clock::wall();
    let answer = value(client, "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())").await;
    let took = clock::wall().duration_since(before).unwrap_or_default();
    let theirs =
        answer.and_then(|text| text.parse().ok()).and_then(|at| Duration::try_from_secs_f64(at).ok());
    match theirs.and_then(|at| UNIX_EPOCH.checked_add(at)) {
        Some(theirs) => clocks("PostgreSQL", theirs, middle(before, took), took / 2),
        None => Finding::ok("clock", "PostgreSQL does not tell its time"),
    }
}

fn middle(begin: SystemTime, span: Duration) -> SystemTime {
    begin + span / 2
}

/// The first value of the first row.
async fn value(client: &Client, sql: &str) -> Option<String> {
    let messages = client.simple_query(sql).await.ok()?;
    messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    })
}

/// The server's message, or that of the connection.
fn said(error: &tokio_postgres::Error) -> String {
    error
        .as_db_error()
        .map_or_else(|| error.to_string(), |error| format!("{} {}", error.code().code(), error.message()))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A host that does not say in this time what it makes of the credential says nothing.
const STANDING_WITHIN: Duration = Duration::from_secs(5);

/// The schemas in which a session that is its own role may make things.
const MAY_CREATE: &str = "\
SELECT pg_catalog.string_agg(pg_catalog.format('schema %s', nspname), ', ' ORDER BY nspname)
  FROM pg_catalog.pg_namespace
 WHERE current_user = session_user AND nspname !~ '^pg_' AND nspname <> 'information_schema'
   AND pg_catalog.has_schema_privilege(current_user, oid, 'CREATE')";

/// Roles that are like the session's user, made for a time and named by the same template, and own something here.
const OWNED_BY_EARLIER: &str = "\
SELECT pg_catalog.string_agg(pg_catalog.format('%I (%s)', rolname, objects), ', ' ORDER BY rolname) FROM (
  SELECT rolname, pg_catalog.count(*) AS objects
    FROM pg_catalog.pg_shdepend
    JOIN pg_catalog.pg_roles ON pg_roles.oid = refobjid AND refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
   WHERE deptype = 'o' AND rolname <> session_user AND rolvaliduntil IS NOT NULL
     AND pg_catalog.left(rolname, 2) = pg_catalog.left(session_user, 2)
     AND dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
   GROUP BY rolname LIMIT 5) AS found";

/// What refers to the session's user, a line each.
///
/// Source: <https://www.postgresql.org/docs/current/catalog-pg-shdepend.html>
const DEPENDENTS: &str = "\
SELECT pg_catalog.string_agg(line, E'\\n') FROM (
  SELECT CASE deptype WHEN 'o' THEN 'owner of ' ELSE 'rights on ' END
         || pg_catalog.pg_describe_object(classid, objid, objsubid) AS line
    FROM pg_catalog.pg_shdepend
   WHERE refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass AND deptype IN ('o', 'a')
     AND refobjid = (SELECT oid FROM pg_catalog.pg_roles WHERE rolname = session_user)
     AND dbid IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()))
     AND classid <> 'pg_catalog.pg_auth_members'::pg_catalog.regclass
   LIMIT 5) AS found";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::protocol::auth::method::RequireAuth;
    use crate::postgres::upstream::uri::Uri;
    use crate::postgres::upstream::{Settings, Shared};

    #[tokio::test]
    async fn a_name_that_cannot_be_sent_is_not_blamed_on_the_server() {
        let settings = Settings {
            connect_timeout: Duration::from_secs(10),
            require_auth: RequireAuth::default(),
            replica_grace: None,
            shared: Shared::default(),
        };
        let uri = Uri::parse("postgresql://127.0.0.1:1/?sslmode=disable").unwrap();
        let host = HostCheck {
            upstream: Arc::new(Upstream::new(uri, settings).unwrap()),
            credential: Credential { username: "v-\0app".to_owned(), password: Secret::new("pw".to_owned()) },
            database: "app".to_owned(),
            is_named: true,
            set_role: None,
            probe_sql: None,
            lasting: false,
            left: Vec::new(),
        };
        let mut findings = Vec::new();
        host.examine(&mut findings).await;
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.outcome, Outcome::Error);
        assert!(finding.detail.starts_with("the startup message cannot be sent: "), "{}", finding.detail);
        assert_eq!(host.standing().await, Standing::Unknown);
    }
}
