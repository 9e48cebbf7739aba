//! The sessions that are open, for those who look at them. Floor 4.
//!
//! [`Sessions::status`] gives one [`SessionStatus`](super::status::SessionStatus) for each, the oldest first. It takes the
//! lock only to copy the list; what a session does is read from its [`Activity`], which its relay writes without a lock.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use super::activity::Activity;
use super::status::{SessionFilter, SessionStatus};
use crate::clock;
use crate::credentials::Generation;
use crate::lease::GenerationId;
use crate::metrics::RouteMetrics;
use crate::socket::{Address, ClientAddress};
use crate::time::Time;

/// One open session: what does not change about it, and its activity. It is small, as there is one for each client.
pub(crate) struct Session {
    /// No other session of the process has it.
    pub(crate) id: u64,
    client: ClientAddress,
    backend_pid: Option<i32>,
    /// One for all sessions that are equal in it.
    common: Arc<Common>,
    opened_at: Time,
    /// What it does.
    pub(crate) activity: Activity,
}

/// What sessions have in common that are much alike.
#[derive(PartialEq, Eq, Hash)]
struct Common {
    generation: GenerationId,
    /// The parts of [`Part`], in their order, with [`SEPARATOR`]s in between.
    texts: Box<str>,
}

#[derive(Clone, Copy)]
enum Part {
    User,
    Database,
    ApplicationName,
    Upstream,
    Route,
    LeaseId,
    Role,
}

/// What a session is listed with.
pub(crate) struct Login {
    /// No other session of the process has it.
    pub(crate) id: u64,
    /// Where its client is.
    pub(crate) client: ClientAddress,
    /// What its client named.
    pub(crate) names: Names,
    /// The metrics of its route.
    pub(crate) metrics: Arc<RouteMetrics>,
    /// The credential that it logged in with.
    pub(crate) generation: Arc<Generation>,
    /// Its server's address.
    pub(crate) upstream: Address,
    /// The server's process, as BackendKeyData had it; `None` without one.
    pub(crate) backend_pid: Option<i32>,
}

impl Session {
    /// Where its client is.
    #[must_use]
    pub(crate) fn client(&self) -> ClientAddress {
        self.client
    }

    /// The user that its client named.
    #[must_use]
    pub(crate) fn user(&self) -> &str {
        self.common.part(Part::User)
    }

    /// The database that its server was asked for.
    #[must_use]
    pub(crate) fn database(&self) -> &str {
        self.common.part(Part::Database)
    }

    /// Its application_name; empty without one.
    #[must_use]
    pub(crate) fn application_name(&self) -> &str {
        self.common.part(Part::ApplicationName)
    }

    /// Its server's address.
    #[must_use]
    pub(crate) fn upstream(&self) -> &str {
        self.common.part(Part::Upstream)
    }

    /// The name of its route.
    #[must_use]
    pub(crate) fn route(&self) -> &str {
        self.common.part(Part::Route)
    }

    /// The number of the credential that it logged in with.
    #[must_use]
    pub(crate) fn generation(&self) -> GenerationId {
        self.common.generation
    }

    /// The last characters of that credential's lease_id.
    #[must_use]
    pub(crate) fn lease_id_tail(&self) -> &str {
        self.common.part(Part::LeaseId)
    }

    /// The role that it logged in as.
    #[must_use]
    pub(crate) fn role(&self) -> &str {
        self.common.part(Part::Role)
    }

    /// The server's process; `None` if the server named none.
    #[must_use]
    pub(crate) fn backend_pid(&self) -> Option<i32> {
        self.backend_pid
    }

    /// When its client was let in.
    #[must_use]
    pub(crate) fn opened_at(&self) -> Time {
        self.opened_at
    }

    fn new(login: &Login, common: Arc<Common>) -> Self {
        let Login { id, client, backend_pid, .. } = *login;
        let opened_at = clock::now();
        Self { id, client, backend_pid, common, opened_at, activity: Activity::new(opened_at) }
    }

    /// A session that is in no list.
    #[cfg(test)]
    pub(crate) fn unlisted(generation: &Arc<Generation>) -> Arc<Self> {
        let login = Login {
            id: 1,
            client: ClientAddress::Unknown,
            names: Names::of([b"app", b"shop", b""]),
            metrics: RouteMetrics::new("app"),
            generation: Arc::clone(generation),
            upstream: Address::Unix("/run/server".into()),
            backend_pid: None,
        };
        Arc::new(Self::new(&login, Arc::new(Common::of(&login))))
    }

    fn status(&self, now: Time) -> SessionStatus {
        let seen = self.activity.seen();
        let (client_addr, client_uid, client_pid) = match self.client {
            ClientAddress::Tcp(..) => (Some(self.client.to_string()), None, None),
            ClientAddress::Unix { uid, pid } => (None, uid, pid),
            ClientAddress::Unknown => (None, None, None),
        };
        let shown = |at| clock::rfc3339(now, at);
        SessionStatus {
            id: self.id,
            client_addr,
            client_uid,
            client_pid,
            user: self.user().to_owned(),
            database: self.database().to_owned(),
            application_name: self.application_name().to_owned(),
            route: self.route().to_owned(),
            generation: self.generation().get(),
            lease_id: self.lease_id_tail().to_owned(),
            role: self.role().to_owned(),
            upstream: self.upstream().to_owned(),
            backend_pid: self.backend_pid,
            opened_at: shown(self.opened_at).unwrap_or_default(),
            state: seen.state,
            state_since: shown(seen.since).unwrap_or_default(),
            transaction_since: seen.transaction_since.and_then(shown),
            bytes_to_upstream: seen.to_upstream,
            bytes_to_client: seen.to_client,
        }
    }
}

impl Common {
    fn of(login: &Login) -> Self {
        let Login { names, metrics, generation, upstream, .. } = login;
        let (route, role, lease_id) = (metrics.name(), generation.username(), generation.lease_id_tail());
        let [user, database, application_name] = &names.0;
        let upstream = upstream.to_string();
        let texts: [&str; 7] = [user, database, application_name, &upstream, route, lease_id, role];
        Self { generation: generation.number(), texts: texts.map(whole).join(SEPARATOR).into() }
    }

    fn part(&self, part: Part) -> &str {
        self.texts.split(SEPARATOR).nth(part as usize).unwrap_or_default()
    }
}

/// The text without what would be taken for its end.
fn whole(text: &str) -> String {
    text.replace(SEPARATOR, "\u{fffd}")
}

/// The names that a client sent, as text of at most [`Names::LONGEST`] bytes each; what is no UTF-8 is replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names([String; 3]);

impl Names {
    /// Twice as long as a name can be in most servers, which cut it.
    pub(crate) const LONGEST: usize = 128;

    /// The user that the client named, the database that the server was asked for, and the application_name.
    #[must_use]
    pub(crate) fn of<'a>(names: [&'a [u8]; 3]) -> Self {
        Self(names.map(|name: &'a [u8]| {
            let mut text = whole(&String::from_utf8_lossy(name));
            text.truncate(text.floor_char_boundary(Self::LONGEST));
            text
        }))
    }
}

/// No name has it: on the wire it ends each.
const SEPARATOR: &str = "\0";

/// The open sessions by their ids.
#[derive(Default)]
pub(crate) struct Sessions(Mutex<List>);

#[derive(Default)]
struct List {
    open: BTreeMap<u64, Arc<Session>>,
    /// What they have in common, each once.
    common: HashSet<Arc<Common>>,
}

impl List {
    fn share(&mut self, common: Common) -> Arc<Common> {
        if let Some(known) = self.common.get(&common) {
            return Arc::clone(known);
        }
        // Of sessions that leave at once each may see what they have in common in the hands of another.
        if self.common.len() > self.open.len() + SPARE {
            self.common.retain(|common| Arc::strong_count(common) > 1);
        }
        let common = Arc::new(common);
        self.common.insert(Arc::clone(&common));
        common
    }

    /// Forgets what no session has.
    fn leave(&mut self, common: &Arc<Common>) {
        if Arc::strong_count(common) <= LAST {
            self.common.remove(common);
        }
    }
}

/// The session that leaves has it still, and so has the list.
const LAST: usize = 2;
/// So many that no session has are not looked for.
const SPARE: usize = 16;

impl Sessions {
    /// Lists a session until the place is dropped.
    #[must_use]
    pub(crate) fn add(self: &Arc<Self>, login: Login) -> Place {
        let common = Common::of(&login);
        let mut list = self.lock();
        let session = Arc::new(Session::new(&login, list.share(common)));
        list.open.insert(session.id, Arc::clone(&session));
        Place { sessions: Arc::clone(self), session }
    }

    /// The sessions that are open now, the oldest first.
    #[must_use]
    pub(crate) fn open(&self) -> Vec<Arc<Session>> {
        self.lock().open.values().map(Arc::clone).collect()
    }

    /// What is shown of those that the filter takes, the oldest first.
    #[must_use]
    pub(crate) fn status(&self, filter: &SessionFilter) -> Vec<SessionStatus> {
        let now = clock::now();
        let shown = self.open().into_iter().map(|session| session.status(now));
        shown.filter(|session| filter.takes(session)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session's place in the list.
pub(crate) struct Place {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
}

impl Place {
    /// The session.
    #[must_use]
    pub(crate) fn session(&self) -> &Arc<Session> {
        &self.session
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut list = self.sessions.lock();
        list.open.remove(&self.session.id);
        list.leave(&self.session.common);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Lease;
    use crate::secret::Secret;

    #[test]
    fn names_are_bounded_text() {
        let Names(names) = Names::of([b"app", b"\xff", b""]);
        assert_eq!(names, ["app", "\u{fffd}", ""]);
        let long = "é".repeat(200);
        let Names([user, database, application_name]) = Names::of([long.as_bytes(), &[0xff; 500], b"a\0b"]);
        assert_eq!(user.len(), Names::LONGEST);
        assert!(database.len() <= Names::LONGEST);
        assert_eq!(application_name, "a\u{fffd}b");
    }

    #[test]
    fn a_session_is_listed_in_a_few_words() {
        // With the two words of its `Arc` it fits between two blocks of tokio's.
        assert!(size_of::<Session>() + 16 <= 104, "{}", size_of::<Session>());
    }

    fn add(sessions: &Arc<Sessions>, id: u64, application_name: &[u8]) -> Place {
        let (secret, lease) = (Secret::new("secret".to_owned()), Lease::none());
        let (number, left) = (GenerationId::new(3), Arc::default());
        let generation = Generation::new(number, "v-app".to_owned(), secret, lease, Time::NEVER, left);
        sessions.add(Login {
            id,
            client: ClientAddress::Unknown,
            names: Names::of([b"app", b"shop", application_name]),
            metrics: RouteMetrics::new("app"),
            generation,
            upstream: Address::Unix("/one".into()),
            backend_pid: None,
        })
    }

    #[test]
    fn sessions_share_the_texts_that_they_have_in_common() {
        let sessions = Arc::new(Sessions::default());
        let add = |id, application_name: &[u8]| add(&sessions, id, application_name);
        let [one, two, other] = [add(1, b""), add(2, b""), add(3, b"psql")];
        let shown = sessions.status(&SessionFilter::default()).remove(2);
        let texts =
            [shown.user, shown.database, shown.application_name, shown.upstream, shown.route, shown.role];
        assert_eq!(texts, ["app", "shop", "psql", "/one", "app", "v-app"]);
        assert_eq!((shown.generation, &*shown.lease_id), (3, ""));
        assert!(Arc::ptr_eq(&one.session.common, &two.session.common));
        assert_eq!((two.session.upstream(), other.session.upstream()), ("/one", "/one"));
        assert_eq!(sessions.lock().common.len(), 2);
        drop((one, other));
        assert_eq!(sessions.lock().common.len(), 1, "one that no session has is forgotten");
        drop(two);
        assert!(sessions.lock().common.is_empty());
    }

    #[test]
    fn texts_of_sessions_that_somebody_looked_at_while_they_left_are_forgotten_later() {
        let sessions = Arc::new(Sessions::default());
        for id in 0..1_000 {
            let name = format!("worker-{id}");
            let [one, two] = [id * 2, id * 2 + 1].map(|id| add(&sessions, id, name.as_bytes()));
            // As a list of the sessions holds it, or a session that leaves at the same time.
            let looked_at = Arc::clone(one.session());
            drop((one, two));
            drop(looked_at);
        }
        assert!(sessions.lock().common.len() <= SPARE + 2, "{}", sessions.lock().common.len());
    }
}
