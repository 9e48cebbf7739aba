//! The driver of one route: it does what its machine says, and passes on what comes of that. Floor 3.
//!
//! `Driver::step` is the only way into the machine, and the actions that come back are the only orders. What the driver
//! itself knows, it knows from them: which generation is published, and which end once they are empty.

mod commands;
mod entry;
mod input;
mod memory;
mod priority;
mod repetitions;
mod replies;
mod reporting;
mod returning;
mod spans;
mod start;
#[cfg(test)]
mod tests;
mod unserved;
mod waiting;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Generation;
use super::machine::Machine;
use super::requests::{Requests, Target, VaultReply};
use super::route::{Command, NotReplaced, RotateFailed, Shared};
use super::state_writer::StateWriter;
use crate::clock;
use crate::lease::{Action, Event, Failure, GenerationId, NotRotated, Note, TokenId, Verdict};
use crate::metrics::RouteMetrics;
use crate::secret::Secret;
use crate::time::Time;
use crate::vault::RoleKind;
use entry::Entry;
use input::{Came, Credential, Input};
use repetitions::Repetitions;
use returning::PendingRevocations;
use spans::Spans;
pub(crate) use start::{Deps, Leftovers, give_back, start};
use unserved::Unserved;
use waiting::Rotate;

struct Driver {
    /// The route's.
    name: String,
    kind: RoleKind,
    machine: Machine,
    requests: Requests,
    tokens: HashMap<TokenId, Secret>,
    /// The tokens that can be used so many times only: none of their uses goes into a look-up.
    counted: HashSet<TokenId>,
    /// The tokens that were given to us. To take one costs Vault a look-up, and makes nothing.
    handed: HashSet<TokenId>,
    next_token: u64,
    generations: HashMap<GenerationId, Arc<Generation>>,
    pending_revocations: PendingRevocations,
    entry: Entry,
    state_writer: StateWriter,
    /// The generations that end once no session is in them.
    ends_when_empty: HashSet<GenerationId>,
    /// How far a server may lag behind, as the machine knows it; `None`: it was not sent to the machine yet.
    replica_grace: Option<Duration>,
    /// Woken when a generation's last session leaves.
    left: Arc<Notify>,
    publish: watch::Sender<Option<Arc<Generation>>>,
    shared: Arc<Shared>,
    metrics: Arc<RouteMetrics>,
    checks: HashMap<GenerationId, Vec<oneshot::Sender<Verdict>>>,
    replaces: Vec<oneshot::Sender<NotReplaced>>,
    rotates: Vec<Rotate>,
    closing: bool,
    /// Whether the current generation has sessions, as far as the machine has heard.
    in_use: bool,
    unserved: Unserved,
    repetitions: Repetitions,
    spans: Spans,
    ended: CancellationToken,
}

/// What the driver waits for.
enum Happened {
    Reply(VaultReply),
    Command(Command),
    Tick,
}

/// Timers stand still while the machine is suspended: the clock is looked at again at least this often.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Driver {
    async fn run(mut self, mut asked: mpsc::Receiver<Command>, mut came: mpsc::Receiver<VaultReply>) {
        self.step(if self.closing { Event::Close } else { Event::Tick });
        loop {
            self.settle();
            if self.closing && self.machine.is_empty() {
                break;
            }
            let wait = self.machine.next_deadline().since(clock::now()).min(LOOK_AGAIN);
            let happened = tokio::select! {
                Some(reply) = came.recv() => Happened::Reply(reply),
                Some(command) = asked.recv() => Happened::Command(command),
                () = self.left.notified() => continue,
                () = tokio::time::sleep(wait) => Happened::Tick,
            };
            // A session that has come meanwhile is not found idle.
            self.look_for_sessions();
            match happened {
                Happened::Reply(reply) => self.take(reply),
                Happened::Command(command) => self.obey(command),
                Happened::Tick => self.step(Event::Tick),
            }
        }
        self.ended.cancel();
    }

    /// What has changed without an event: servers, sessions that have come and gone. Then the picture that others see.
    fn settle(&mut self) {
        let now = clock::now();
        self.look_for_servers();
        self.report_acceptances();
        self.end_empty();
        self.look_for_sessions();
        self.report_unserved(now);
        if !self.machine.is_issuing() {
            self.spans.given_up();
        }
        self.show();
    }

    /// Before anything is given back: a lookup may have shown that there are more servers than were known.
    fn look_for_servers(&mut self) {
        let Some(target) = &self.requests.target else { return };
        let replica_grace = (target.servers.replica_grace)();
        if self.replica_grace != Some(replica_grace) {
            self.replica_grace = Some(replica_grace);
            self.machine.set_replica_grace(replica_grace);
            self.step(Event::Tick);
        }
    }

    /// Closes the generations to newcomers that every session has left, if they are to end by that.
    fn end_empty(&mut self) {
        let ends = |generation: &Generation| self.ends_when_empty.contains(&generation.number());
        let all = self.generations.values();
        let left: Vec<Arc<Generation>> = all.filter(|it| ends(it) && it.close_if_empty()).cloned().collect();
        for generation in left {
            let number = generation.number();
            self.ends_when_empty.remove(&number);
            self.step(Event::Empty { number, open_upstream: generation.may_be_open_upstream() });
        }
    }

    /// Sessions come and go without a word.
    fn look_for_sessions(&mut self) {
        let in_use = self.publish.borrow().as_ref().is_some_and(|current| current.sessions() > 0);
        if in_use != self.in_use {
            self.in_use = in_use;
            self.step(Event::InUse(in_use));
        }
    }

    /// The machine hears of what has happened, and what it says is done.
    fn step(&mut self, input: impl Into<Input>) {
        let Input { event, mut credential, error } = input.into();
        if let Some(error) = &error {
            self.spans.failed(error);
        }
        let actions = self.machine.handle(clock::now(), event);
        for action in &actions {
            if let Action::Store(number) = action
                && let Some(credential) = credential.take()
            {
                self.store(*number, credential);
            }
        }
        // Saved before the actions are done: a crash from here on leaves nothing that the next process does not know.
        let saved = self.state_writer.keep(&self.machine, &self.tokens, &self.generations);
        if let Ok(mut view) = self.shared.view.lock() {
            view.unsaved = !saved;
        }
        // How many sessions a generation has is known before they are told to end.
        for action in &actions {
            if let Action::Note(note @ Note::Closing(..)) = action {
                self.remember_note(*note);
            }
        }
        // A session that begins with a generation must find its ending set.
        for action in &actions {
            if let Action::NotifySessions(number, ending) = action
                && let Some(generation) = self.generations.get(number)
            {
                generation.set_ending(*ending);
            }
        }
        for action in actions {
            match action {
                Action::RotateFailed(why) => {
                    let said = error.clone().filter(|_| why != NotRotated::Closed);
                    self.not_rotated(&RotateFailed::NotRotated { why, said });
                }
                Action::Barred => self.entry.bar(error.clone()),
                action => self.do_one(action),
            }
        }
    }

    fn store(&mut self, number: GenerationId, credential: Credential) {
        let Credential { username, password, lease, came } = credential;
        came.log(number, &username, &lease);
        // What comes too late is not of the attempt that is under way.
        if matches!(came, Came::Issued { .. }) {
            self.spans.granted(number);
        }
        let left = Arc::clone(&self.left);
        let generation = Generation::new(number, username, password, lease, Time::NEVER, left);
        self.generations.insert(number, generation);
        self.state_writer.granted(number);
    }

    fn issue(&mut self, id: TokenId) {
        let Some(token) = self.tokens.get(&id).cloned() else {
            return self.step(Event::IssueFailed(Failure::TokenDead));
        };
        let Some(Target { path, .. }) = self.requests.target.clone() else {
            return self.step(Event::IssueFailed(Failure::Refused));
        };
        match path.kind() {
            RoleKind::Dynamic => {
                self.requests.issue(
                    path,
                    self.for_issuance(),
                    id,
                    token,
                    self.spans.of_attempt("vault.issue"),
                );
            }
            RoleKind::Static => {
                self.requests.read(path, self.for_issuance(), token, self.spans.of_attempt("vault.read"));
            }
        }
    }

    fn do_one(&mut self, action: Action) {
        match action {
            Action::NotifySessions(..) | Action::Store(_) | Action::RotateFailed(_) | Action::Barred => {}
            Action::LogIn { within } => {
                self.requests.log_in(self.for_issuance(), within, self.spans.of_attempt("vault.login"));
            }
            Action::Issue(id) => self.issue(id),
            Action::Prove(number) => {
                if let Some(generation) = self.generations.get(&number) {
                    let (username, password) =
                        (generation.username().to_owned(), generation.password().clone());
                    self.requests.prove(number, username, password, self.spans.of_proof(number));
                }
            }
            Action::RenewLease(number, id, within) => match self.leased(number, id) {
                Some((generation, token)) => {
                    self.requests.renew_lease(self.for_renewal(&[number]), generation, token, within);
                }
                None => self.step(Event::LeaseRenewFailed(number, Failure::TokenDead)),
            },
            Action::RenewToken(id, within) => match self.tokens.get(&id) {
                Some(token) => {
                    let priority = self.for_renewal(&self.machine.owned_by(id));
                    self.requests.renew_token(priority, id, token.clone(), within);
                }
                None => self.step(Event::TokenRenewFailed(id, Failure::TokenDead)),
            },
            Action::RevokeLease(number, id) => match self.leased(number, id) {
                Some((generation, token)) => {
                    self.requests.revoke_lease(self.for_giving_back(number), generation, token);
                }
                None => self.step(Event::LeaseRevokeFailed(number, Failure::TokenDead)),
            },
            Action::RevokeToken(id) => match self.tokens.get(&id) {
                Some(token) => self.requests.revoke_token(self.for_giving_back_token(id), id, token.clone()),
                None => self.step(Event::TokenRevoked(id)),
            },
            Action::LookUpLease(number, id) => self.look_up_lease(number, id),
            Action::ProvePublished(number) => self.prove_published(number),
            Action::Unbarred => self.entry.unbar(),
            Action::EndWhenEmpty(number) => {
                self.ends_when_empty.insert(number);
            }
            Action::KeepWhenEmpty(number) => {
                self.ends_when_empty.remove(&number);
            }
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
            Action::DropCredential(number) => {
                if let Some(generation) = self.forget(number) {
                    self.pending_revocations.add(&generation);
                }
                self.answer(number, Verdict::Lost);
            }
            Action::Forget(number) => {
                self.forget(number);
                self.pending_revocations.remove(number);
                self.answer(number, Verdict::Lost);
            }
            Action::ForgetToken(id) => {
                self.tokens.remove(&id);
                self.counted.remove(&id);
                self.handed.remove(&id);
            }
            Action::Answer(number, verdict) => self.answer(number, verdict),
            Action::TooEarly(_) => self.not_replaced(NotReplaced::TooEarly),
            Action::LetsIn(_) => self.not_replaced(NotReplaced::LetsIn),
            Action::RotateDone(number) => self.read_again(number),
            Action::Note(note) => self.note(note),
        }
    }

    /// Drops a generation with its credential.
    fn forget(&mut self, number: GenerationId) -> Option<Arc<Generation>> {
        self.ends_when_empty.remove(&number);
        self.entry.forget(number);
        self.generations.remove(&number)
    }

    /// Whether new sessions use this generation.
    fn is_published(&self, number: GenerationId) -> bool {
        self.publish.borrow().as_ref().is_some_and(|published| published.number() == number)
    }

    fn leased(&self, number: GenerationId, id: TokenId) -> Option<(&Generation, Secret)> {
        Some((self.generations.get(&number)?, self.tokens.get(&id)?.clone()))
    }
}
