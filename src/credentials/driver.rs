//! The driver of one route: does what its keeper says, and tells it what came of it. Floor 3.

mod returning;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::keeping::{Beginning, Keeping};
use super::machine::{Kind, Machine};
use super::requests::{Done, Proof, Prove, Requests, meaning, tail};
use super::route::{Command, DrainSpan, Reload, RotateFailed, Route, Shared, Verdict};
use super::state::{Origin, Slot};
use super::status::LastError;
use super::view::{self, GenerationView};
use super::{Drain, Ending, Generation, HardClose, clock};
use crate::lease::generation::Cause;
use crate::lease::{self, Action, Event, Failure, Note, Reason, Settings, Time, TokenFacts, TokenId};
use crate::metrics::{self, Closed, RouteMetrics};
use crate::secret::Secret;
use crate::vault::{self, Vault};
use returning::Farewells;

/// What a route's driver needs to know.
pub struct RouteSettings {
    /// The route's name.
    pub name: String,
    /// `<mount>/creds/<role>`.
    pub vault_path: String,
    /// Whom the login is for; a credential of another one is not taken up.
    pub login: String,
    /// How long a request may take.
    pub client_timeout: Duration,
    /// The lease arithmetic.
    pub lease: Settings,
    /// A lazy route gives its credential back after this long without a session.
    pub idle_after: Duration,
}

impl RouteSettings {
    fn origin(&self) -> Origin {
        Origin { vault_path: self.vault_path.clone(), login: self.login.clone() }
    }
}

/// What a route's driver works with.
pub struct Means {
    /// Whom to ask.
    pub vault: Arc<Vault>,
    /// How a candidate is proved.
    pub prove: Prove,
    /// Where it is counted.
    pub metrics: Arc<RouteMetrics>,
    /// Where it is kept beyond the process; what is in it is taken up.
    pub slot: Option<Slot>,
}

/// Starts the driver of a route as a task of `tasks`, and gives its handle.
#[must_use]
pub fn start(settings: RouteSettings, means: Means, tasks: &TaskTracker) -> Arc<Route> {
    let Means { vault, prove, metrics, slot } = means;
    let (commands, asked) = mpsc::channel(1024);
    let (done, came) = mpsc::channel(64);
    let (publish, published) = watch::channel(None);
    let shared = Arc::new(Shared::default());
    let kind = Kind::of_path(&settings.vault_path);
    shared.is_lazy.store(settings.lease.lazy, Ordering::Release);
    if let Ok(mut view) = shared.view.lock() {
        view.name.clone_from(&settings.name);
        view.vault_path.clone_from(&settings.vault_path);
        view.kind = kind.as_str();
    }
    let ended = CancellationToken::new();
    let left = Arc::new(Notify::new());
    let origin = settings.origin();
    let Beginning { keeper, tokens: held, next_token, generations, keeping } =
        Beginning::of(slot, kind, settings.lease, origin, &left);
    let driver = Driver {
        keeper,
        requests: Requests {
            vault,
            path: settings.vault_path.into(),
            client_timeout: settings.client_timeout,
            prove,
            tasks: tasks.clone(),
            done,
        },
        tokens: held,
        counted: HashSet::new(),
        next_token,
        generations,
        farewells: Farewells::default(),
        keeping,
        left,
        publish,
        shared: Arc::clone(&shared),
        metrics,
        checks: HashMap::new(),
        replaces: Vec::new(),
        rotates: Vec::new(),
        closing: false,
        idle_after: settings.idle_after,
        idle_since: None,
        ended: ended.clone(),
    };
    let span = tracing::info_span!("lease", route = %settings.name);
    tasks.spawn(tracing::Instrument::instrument(driver.run(asked, came), span));
    Arc::new(Route { name: settings.name, commands, published, shared, ended })
}

struct Driver {
    keeper: Machine,
    requests: Requests,
    tokens: HashMap<TokenId, Secret>,
    /// Those that can be used so many times only: none of their uses goes into a look.
    counted: HashSet<TokenId>,
    next_token: u64,
    generations: HashMap<u64, Arc<Generation>>,
    farewells: Farewells,
    keeping: Keeping,
    /// Woken when a generation's last session leaves.
    left: Arc<Notify>,
    publish: watch::Sender<Option<Arc<Generation>>>,
    shared: Arc<Shared>,
    metrics: Arc<RouteMetrics>,
    checks: HashMap<u64, Vec<oneshot::Sender<Verdict>>>,
    replaces: Vec<oneshot::Sender<()>>,
    rotates: Vec<oneshot::Sender<Result<u64, RotateFailed>>>,
    closing: bool,
    idle_after: Duration,
    /// Since when the current generation has had no session.
    idle_since: Option<Time>,
    ended: CancellationToken,
}

/// Timers stand still while the machine is suspended: the clock is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    async fn run(mut self, mut asked: mpsc::Receiver<Command>, mut came: mpsc::Receiver<Done>) {
        self.step(Event::Tick);
        loop {
            self.settle();
            if self.closing && self.keeper.is_empty() {
                break;
            }
            let wait = self.keeper.next_deadline().since(clock::now()).min(LOOK_AGAIN);
            tokio::select! {
                Some(done) = came.recv() => self.take(done),
                Some(command) = asked.recv() => self.obey(command),
                () = self.left.notified() => {}
                () = tokio::time::sleep(wait) => self.step(Event::Tick),
            }
        }
        self.ended.cancel();
    }

    /// Generations that everybody has left, and the picture that others see.
    fn settle(&mut self) {
        let now = clock::now();
        let leaving: Vec<Arc<Generation>> = self
            .generations
            .values()
            .filter(|g| self.keeper.may_empty(now, g.number()) && g.close_if_empty())
            .cloned()
            .collect();
        for generation in leaving {
            self.step(Event::Empty { number: generation.number(), stray: generation.has_stray() });
        }
        self.look_for_idleness(now);
        self.show();
    }

    fn look_for_idleness(&mut self, now: Time) {
        let current = self.keeper.current().and_then(|number| self.generations.get(&number));
        if current.is_none_or(|current| current.sessions() > 0)
            || !self.shared.is_lazy.load(Ordering::Acquire)
        {
            self.idle_since = None;
        } else if now >= *self.idle_since.get_or_insert(now) + self.idle_after {
            self.idle_since = None;
            self.step(Event::Idle);
        }
    }

    fn reload(&mut self, reload: Reload) {
        let Reload { settings, vault, prove, issue } = reload;
        if let Ok(mut view) = self.shared.view.lock() {
            view.vault_path.clone_from(&settings.vault_path);
        }
        self.keeping.set_origin(settings.origin());
        self.requests.vault = vault;
        self.requests.path = settings.vault_path.into();
        self.requests.client_timeout = settings.client_timeout;
        self.requests.prove = prove;
        self.idle_after = settings.idle_after;
        self.keeper.set_settings(settings.lease);
        self.step(if issue { Event::Reload } else { Event::Tick });
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Check(number, reply) => {
                let waiting = self.checks.entry(number).or_default();
                waiting.retain(|reply| !reply.is_closed());
                waiting.push(reply);
                self.step(Event::Suspected(number));
            }
            Command::Replace(number, reply) => {
                if self.keeper.current() == Some(number) {
                    // Who has given up waiting is not kept: there may be no answer for as long as Vault is away.
                    self.replaces.retain(|reply| !reply.is_closed());
                    self.replaces.push(reply);
                    self.step(Event::Replace(number));
                }
            }
            Command::Denial(number) => self.step(Event::DenialSeen(number)),
            Command::Rotate(drain, reply) => {
                self.rotates.push(reply);
                self.requests.vault.hurry();
                self.step(Event::Rotate(drain.map(|drain| match drain {
                    DrainSpan::Default => lease::Drain::Default,
                    DrainSpan::For(span) => lease::Drain::For(span),
                })));
            }
            Command::Want => self.step(Event::Wanted),
            Command::Reload(reload) => self.reload(*reload),
            Command::Retire => {
                self.closing = true;
                self.step(Event::Retire);
            }
            Command::Close => {
                self.closing = true;
                self.step(Event::Close);
            }
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::LoggedIn(sent_at, login) => self.logged_in(sent_at, login),
            Done::LogInFailed(failure) => {
                self.failed("log in", &failure);
                self.refused(&failure);
                self.step(Event::LogInFailed(meaning(&failure)));
            }
            Done::Granted(sent_at, grant) => self.granted(sent_at, grant),
            Done::Read(sent_at, credential) => self.read(sent_at, credential),
            Done::IssueFailed(failure) => {
                self.failed("issue", &failure);
                self.refused(&failure);
                self.metrics.issuance(match meaning(&failure) {
                    Failure::Transient | Failure::TimedOut => metrics::Issuance::Failed,
                    _ => metrics::Issuance::Refused,
                });
                self.step(Event::IssueFailed(meaning(&failure)));
            }
            Done::LateReply(token) => self.step(Event::LateReply(token)),
            Done::Proof(number, proof) => self.proof(number, proof),
            Done::LeaseRenewed(number, sent_at, renewed) => {
                let event =
                    Event::LeaseRenewed { number, sent_at, lease: renewed.ttl, renewable: renewed.renewable };
                let actions = self.keeper.handle(clock::now(), event);
                let capped = actions.contains(&Action::Note(Note::LeaseCapped(number)));
                self.metrics.renewal(if capped { metrics::Renewal::Capped } else { metrics::Renewal::Ok });
                tracing::info!(
                    lease.generation = number,
                    lease.ttl_s = renewed.ttl.as_secs(),
                    capped,
                    "renewed"
                );
                self.execute(actions);
            }
            Done::LeaseRenewFailed(number, failure) => {
                self.failed("renew", &failure);
                self.metrics.renewal(match meaning(&failure) {
                    Failure::Transient | Failure::TimedOut => metrics::Renewal::Failed,
                    Failure::Forbidden | Failure::Refused => metrics::Renewal::Forbidden,
                    Failure::Gone | Failure::CannotExtend | Failure::TokenDead => metrics::Renewal::Terminal,
                });
                self.step(Event::LeaseRenewFailed(number, meaning(&failure)));
            }
            Done::TokenRenewed(token, sent_at, renewed) => {
                tracing::debug!(token.ttl_s = renewed.ttl.as_secs(), "token renewed");
                // A renewal that says zero is a token without an end.
                let ttl = (!renewed.ttl.is_zero()).then_some(renewed.ttl);
                self.step(Event::TokenRenewed { token, sent_at, ttl, renewable: renewed.renewable });
            }
            Done::TokenRenewFailed(token, failure) => {
                self.failed("renew the token", &failure);
                self.step(Event::TokenRenewFailed(token, meaning(&failure)));
            }
            Done::LeaseRevoked(number, Ok(())) => self.step(Event::LeaseRevoked(number)),
            Done::LeaseRevoked(number, Err(failure)) => self.lease_revoke_failed(number, &failure),
            Done::LeaseLookedUp(number, answer) => self.lease_looked_up(number, answer),
            Done::TokenRevoked(token, Ok(())) => self.step(Event::TokenRevoked(token)),
            Done::TokenRevoked(token, Err(failure)) => {
                self.failed("revoke the token", &failure);
                self.step(Event::TokenRevokeFailed(token, meaning(&failure)));
            }
        }
    }

    fn logged_in(&mut self, sent_at: Time, login: vault::Login) {
        if login.num_uses == 1 && self.keeper.kind() == Kind::Dynamic {
            tracing::error!(
                "the token that the login gave can be used once only: Vault revokes a credential at once that is read \
                 with the last use of a token, so none is asked for; set token_num_uses of the login to 0"
            );
            self.requests.vault.gave_nothing_of_use();
            self.metrics.issuance(metrics::Issuance::Refused);
            self.shared.was_refused.store(true, Ordering::Release);
            self.remember("log in: the token can be used once only");
            if !login.handed {
                // Its one use ends it: it is not left behind until its TTL.
                self.next_token += 1;
                self.requests.revoke_token(TokenId(self.next_token - 1), login.token);
            }
            self.step(Event::LogInFailed(Failure::Forbidden));
            return;
        }
        if !login.ttl_known {
            tracing::warn!(
                "the end of the token cannot be looked up: taken as none; grant it auth/token/lookup-self"
            );
        }
        let known = self.tokens.iter().find(|(_, token)| token.same(&login.token)).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            let id = TokenId(self.next_token);
            self.next_token += 1;
            id
        });
        let facts = TokenFacts {
            sent_at,
            ttl: login.ttl,
            renewable: login.renewable && !login.batch,
            owned: !login.handed && !login.batch,
        };
        self.tokens.insert(id, login.token);
        if login.num_uses > 0 {
            self.counted.insert(id);
        }
        self.step(Event::LoggedIn(id, facts));
    }

    fn granted(&mut self, sent_at: Time, grant: vault::Grant) {
        if self.generations.values().any(|g| g.lease_id() == grant.lease_id) {
            tracing::error!(
                lease.id = tail(&grant.lease_id),
                "the credential came with a lease that is known already: a caching Vault proxy is in between; \
                 take it out of the way of leasehold"
            );
            self.metrics.issuance(metrics::Issuance::Refused);
            self.requests.vault.gave_nothing_of_use();
            self.remember("issue: a caching Vault proxy is in between");
            self.step(Event::IssueFailed(Failure::Refused));
            return;
        }
        self.metrics.issuance(metrics::Issuance::Ok);
        let before = self.keeper.latest();
        let event = Event::Granted { sent_at, lease: grant.ttl, renewable: grant.renewable };
        let actions = self.keeper.handle(clock::now(), event);
        let number = self.keeper.latest();
        if number > before {
            tracing::info!(
                lease.generation = number,
                lease.id = tail(&grant.lease_id),
                lease.ttl_s = grant.ttl.as_secs(),
                db.user = grant.username,
                "issued"
            );
            if grant.ttl < Duration::from_secs(10) {
                tracing::warn!(
                    lease.ttl_s = grant.ttl.as_secs(),
                    "a lease under 10 s leaves little between renewals"
                );
            }
            let left = Arc::clone(&self.left);
            let generation =
                Generation::new(number, grant.username, grant.password, grant.lease_id, Time::NEVER, left);
            self.generations.insert(number, generation);
            self.keeping.granted(number);
        }
        self.execute(actions);
    }

    fn read(&mut self, sent_at: Time, credential: vault::StaticCredential) {
        let current = self.keeper.current().and_then(|number| self.generations.get(&number));
        let is_known = current.is_some_and(|current| {
            current.username() == credential.username && current.password().same(&credential.password)
        });
        if is_known {
            tracing::debug!(ttl_s = credential.ttl.as_secs(), "the password is still the current one");
            self.step(Event::Unchanged { sent_at, lease: credential.ttl });
            return;
        }
        tracing::info!(
            ttl_s = credential.ttl.as_secs(),
            db.user = credential.username,
            "a new password was read"
        );
        self.metrics.issuance(metrics::Issuance::Ok);
        let event = Event::Granted { sent_at, lease: credential.ttl, renewable: false };
        let actions = self.keeper.handle(clock::now(), event);
        let (number, left) = (self.keeper.latest(), Arc::clone(&self.left));
        let (username, password) = (credential.username, credential.password);
        let generation = Generation::new(number, username, password, String::new(), Time::NEVER, left);
        self.generations.insert(number, generation);
        self.execute(actions);
    }

    fn proof(&mut self, number: u64, proof: Proof) {
        let (outcome, event) = match &proof {
            Proof::Accepted { host } => {
                if let Some(generation) = self.generations.get(&number) {
                    generation.accepted_by(host);
                }
                (metrics::Proof::Ok, Event::Proved(number))
            }
            Proof::Refused => (metrics::Proof::Refused, Event::ProofRefused(number)),
            Proof::Unprovable => (metrics::Proof::Unprovable, Event::Unprovable(number)),
        };
        self.metrics.proof(outcome);
        if outcome != metrics::Proof::Ok {
            tracing::warn!(lease.generation = number, outcome = outcome.as_str(), "not proved");
            self.remember(match proof {
                Proof::Refused => "prove: the server refuses the new credential",
                _ => "prove: no server could be asked",
            });
        }
        self.step(event);
    }

    fn step(&mut self, event: Event) {
        let actions = self.keeper.handle(clock::now(), event);
        self.execute(actions);
    }

    fn execute(&mut self, actions: Vec<Action>) {
        // Before anything comes of it: a crash from here on leaves nothing that the next process does not know.
        self.keeping.keep(&self.keeper, &self.tokens, &self.generations);
        // What sessions have to know comes before anybody can become one.
        for action in &actions {
            if let Action::Tell(number, ending) = action {
                self.tell(*number, *ending);
            }
        }
        for action in actions {
            self.do_one(action);
        }
        self.tidy_farewells();
    }

    fn do_one(&mut self, action: Action) {
        match action {
            Action::Tell(..) => {}
            Action::LogIn { within } => self.requests.log_in(within),
            Action::Issue(id) => match self.tokens.get(&id) {
                Some(token) => match self.keeper.kind() {
                    Kind::Dynamic => self.requests.issue(id, token.clone()),
                    Kind::Static => self.requests.read(token.clone()),
                },
                None => self.step(Event::IssueFailed(Failure::TokenDead)),
            },
            Action::Prove(number) => {
                if let Some(generation) = self.generations.get(&number) {
                    let (username, password) =
                        (generation.username().to_owned(), generation.password().clone());
                    self.requests.prove(number, username, password);
                }
            }
            Action::RenewLease(number, id, within) => match self.leased(number, id) {
                Some((lease_id, token)) => self.requests.renew_lease(number, token, lease_id, within),
                None => self.step(Event::LeaseRenewFailed(number, Failure::TokenDead)),
            },
            Action::RenewToken(id, within) => match self.tokens.get(&id) {
                Some(token) => self.requests.renew_token(id, token.clone(), within),
                None => self.step(Event::TokenRenewFailed(id, Failure::TokenDead)),
            },
            Action::RevokeLease(number, id) => match self.leased(number, id) {
                Some((lease_id, token)) => self.requests.revoke_lease(number, token, lease_id),
                None => self.step(Event::LeaseRevokeFailed(number, Failure::TokenDead)),
            },
            Action::RevokeToken(id) => match self.tokens.get(&id) {
                Some(token) => self.requests.revoke_token(id, token.clone()),
                None => self.step(Event::TokenRevoked(id)),
            },
            Action::LookUpLease(number, id) => self.look_up_lease(number, id),
            Action::Publish(number) => {
                if let Some(generation) = self.generations.get(&number) {
                    generation.set_published_at(clock::now());
                    self.publish.send_replace(Some(Arc::clone(generation)));
                    self.shared.has_had_credential.store(true, Ordering::Release);
                }
            }
            Action::Unpublish => {
                self.publish.send_replace(None);
            }
            Action::Forget(number) => {
                if let Some(generation) = self.generations.remove(&number) {
                    self.farewells.add(&generation);
                }
                self.answer(number, Verdict::Lost);
            }
            Action::ForgetToken(id) => {
                self.tokens.remove(&id);
                self.counted.remove(&id);
            }
            Action::Answer(number, verdict) => self.answer(
                number,
                match verdict {
                    lease::Verdict::Alive => Verdict::Alive,
                    lease::Verdict::Silent => Verdict::Silent,
                    lease::Verdict::Lost => Verdict::Lost,
                },
            ),
            Action::TooEarly(_) => {
                for reply in self.replaces.drain(..) {
                    // Whoever asked may have gone.
                    let _ = reply.send(());
                }
            }
            Action::RotateDone(number) => self.rotated(number),
            Action::RotateFailed => {
                let reason = self
                    .shared
                    .view
                    .lock()
                    .ok()
                    .and_then(|view| view.last_error.as_ref().map(|error| error.kind.clone()))
                    .unwrap_or_else(|| "leasehold is shutting down".to_owned());
                for reply in self.rotates.drain(..) {
                    let _ = reply.send(Err(RotateFailed { reason: reason.clone() }));
                }
            }
            Action::Note(note) => self.note(note),
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Issuing(reason) => tracing::info!(reason = reason.as_str(), "a fresh credential is needed"),
            Note::Published { number, reason, proved, successor } => {
                if successor {
                    self.metrics.rotated(reason.as_str());
                }
                if proved {
                    tracing::info!(lease.generation = number, reason = reason.as_str(), "published");
                } else {
                    tracing::warn!(
                        lease.generation = number,
                        reason = reason.as_str(),
                        "published unproved: no server could be asked, and it cannot wait"
                    );
                }
                self.replaces.clear();
                // Neither is what somebody asked a fresh one for.
                if !matches!(reason, Reason::TakenUp | Reason::Standby) {
                    self.rotated(number);
                }
            }
            Note::StandsBy(number) => {
                tracing::info!(lease.generation = number, "stands by");
            }
            Note::LeaseCapped(number) => {
                tracing::info!(
                    lease.generation = number,
                    "the lease nears its max TTL and is not renewed again"
                );
            }
            Note::TokenEnding(_) => {
                tracing::info!("the token is not renewed again; what it owns ends with it")
            }
            Note::Lost(number) => {
                tracing::warn!(lease.generation = number, "the lease is gone before its end");
                self.remember("lease lost");
            }
            Note::TokenOfNoUse(_) => {
                tracing::warn!(
                    "no fresh credential: the token at hand ends too soon for one; hand over one that lives longer"
                );
                self.requests.vault.gave_nothing_of_use();
                self.remember("issue: the token ends too soon");
            }
            Note::TooShort(number) => {
                tracing::error!(
                    lease.generation = number,
                    "the lease, or its token, is too short to be of use and is given back: raise its TTL"
                );
                self.requests.vault.gave_nothing_of_use();
                self.remember("issue: the lease is too short to be of use");
            }
            Note::CandidateRefused(number) => {
                tracing::error!(
                    lease.generation = number,
                    "no server accepts the new credential; it is given back: check the role's creation_statements, and the clocks"
                );
                self.requests.vault.gave_nothing_of_use();
                self.remember("prove: the server refuses the new credential");
            }
            Note::NotTakenUp(number) => {
                tracing::warn!(
                    lease.generation = number,
                    "no server accepts the credential of the process before this one; a fresh one is issued"
                );
            }
            Note::Closing(number, cause) => {
                let sessions = self.generations.get(&number).map_or(0, |g| g.sessions());
                tracing::info!(
                    lease.generation = number,
                    cause = closed(cause).as_str(),
                    sessions,
                    "ends: its sessions are closed"
                );
            }
            Note::Returned(number, outcome) => self.returned(number, outcome),
            Note::Recalled(number) => {
                tracing::warn!(lease.generation = number, "serves new sessions again: its successor is gone");
            }
        }
    }

    fn rotated(&mut self, number: u64) {
        for reply in self.rotates.drain(..) {
            // Whoever asked may have gone.
            let _ = reply.send(Ok(number));
        }
    }

    fn tell(&self, number: u64, ending: lease::generation::Ending) {
        let Some(generation) = self.generations.get(&number) else { return };
        generation.set_hard_close_at(ending.hard_close_at);
        generation.set_ending(Ending {
            drain: ending.drain_from.map(|from| Drain { from, until: ending.hard_close_at }),
            hard_close: ending.closing.map(|closing| HardClose {
                cause: closed(closing.cause),
                cut_at: closing.cut_at,
                gone_by: closing.gone_by,
            }),
        });
    }

    fn answer(&mut self, number: u64, verdict: Verdict) {
        for reply in self.checks.remove(&number).unwrap_or_default() {
            // Whoever asked may have gone.
            let _ = reply.send(verdict);
        }
    }

    fn leased(&self, number: u64, id: TokenId) -> Option<(String, Secret)> {
        Some((self.generations.get(&number)?.lease_id().to_owned(), self.tokens.get(&id)?.clone()))
    }

    fn failed(&self, what: &'static str, failure: &vault::Failure) {
        tracing::warn!(error = %failure, error.blame = failure.blame().as_str(), "could not {what}");
        self.remember_failure(what, failure);
    }

    fn remember_failure(&self, what: &'static str, failure: &vault::Failure) {
        self.remember(&format!("{what}: {}", failure.kind.as_str()));
    }

    /// A refusal that is not transient lets the process count as started.
    fn refused(&self, failure: &vault::Failure) {
        if !matches!(meaning(failure), Failure::Transient | Failure::TimedOut) {
            self.shared.was_refused.store(true, Ordering::Release);
        }
    }

    fn remember(&self, kind: &str) {
        if let Ok(mut view) = self.shared.view.lock() {
            view.last_error = Some(LastError { at: view::wall_now(), kind: kind.to_owned() });
        }
    }

    /// Brings the picture that others see up to date.
    fn show(&self) {
        let now = clock::now();
        let runs_until = self.keeper.runs_until(now);
        let (next_action, at) = self.keeper.next_action(now);
        let mut counts = [("candidate", 0), ("standby", 0), ("current", 0), ("retiring", 0), ("lost", 0)];
        let mut ends = 0.0;
        let current = self.keeper.current();
        let generations: Vec<GenerationView> = self
            .keeper
            .rows()
            .into_iter()
            .filter_map(|row| {
                counts.iter_mut().filter(|(state, _)| *state == row.state).for_each(|(_, count)| *count += 1);
                if current == Some(row.number) {
                    ends = view::unix_seconds(now, row.lease_ends_at);
                }
                Some(GenerationView { generation: Arc::clone(self.generations.get(&row.number)?), row })
            })
            .collect();
        for (state, count) in counts {
            self.metrics.generations(state, count);
        }
        self.metrics.lease_runway(match runs_until {
            Some(Time::NEVER) => f64::INFINITY,
            until => until.map_or(0.0, |until| until.since(now).as_secs_f64()),
        });
        self.metrics.lease_ends(ends);
        if let Ok(mut view) = self.shared.view.lock() {
            view.runs_until = runs_until;
            view.next_action = (next_action, (at != Time::NEVER).then_some(at));
            view.generations = generations;
        }
    }
}

fn closed(cause: Cause) -> Closed {
    match cause {
        Cause::LeaseEnd => Closed::LeaseEnd,
        Cause::Lost | Cause::CutShort => Closed::Revoked,
    }
}
