//! A driver over simulated time, and the promises P2 to P7, checked at every step.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use super::script::secs;
use super::world::{Dice, Fault, Scenario, Tokens, Vault, beginning};
use crate::lease::generation::{Cause, Ending};
use crate::lease::schedule::Jitter;
use crate::lease::term::Term;
use crate::lease::{Action, Drain, Event, Failure, Keeper, Note, Reason, Sight, Time, TokenId, Verdict};

/// A bug put in on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Planted {
    /// A capped renewal is renewed again.
    CappedRenewedAgain,
    /// A token's end is left out of `end_at`.
    TokenEndLeftOut,
    /// The current generation is drained.
    DrainWithoutSuccessor,
}

/// What a run was made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) steps: usize,
    pub(super) published: usize,
    pub(super) sessions: usize,
    pub(super) taken_up: usize,
    pub(super) promoted: usize,
    pub(super) most_requests: usize,
    pub(super) seconds: f64,
}

/// `Err` says which promise was broken.
pub(super) fn run(scenario: &Scenario, planted: Option<Planted>) -> Result<Counts, String> {
    let mut world = World::new(scenario, planted);
    world.live().map_err(|broken| format!("at {:?}: {broken}", world.now))?;
    world.counts.seconds = world.now.since(beginning()).as_secs_f64();
    Ok(world.counts)
}

const CLIENT_TIMEOUT: f64 = 10.0;
/// Ticks come this late at most.
const LATE: f64 = 0.05;
/// A lease may end this much earlier than Vault's whole seconds say.
const ROUNDING: f64 = 1.05;

#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A request reaches Vault, or the database.
    Arrives {
        action: Action,
        sent_at: Time,
        give_up_at: Time,
    },
    /// A reply reaches the driver; with a grant's lease.
    Comes(Event, Option<usize>),
    /// A creds request that was given up is settled.
    Settles(TokenId, Option<usize>),
    Login,
    Over(usize, Why),
    Fault(usize),
    Heal,
    Close,
    TendFile,
    End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Why {
    ByItself,
    Drained,
    Closed,
}

struct Session {
    number: u64,
}

#[derive(Default)]
struct Known {
    /// What the driver was told of its lease, and when.
    ends_at: Option<Time>,
    longest: Duration,
    capped: bool,
}

/// One generation as the driver and the checks know it.
struct Held {
    lease: usize,
    token: TokenId,
    issued_at: Time,
    known: Known,
    told: Option<Ending>,
    published_at: Option<Time>,
    proved: bool,
    unprovable: bool,
    cut: bool,
    /// Closed to newcomers.
    shut: bool,
    stray: bool,
    strays: bool,
    asked: u32,
}

struct World<'a> {
    scenario: &'a Scenario,
    planted: Option<Planted>,
    dice: Dice,
    now: Time,
    keeper: Keeper,
    vault: Vault,
    heap: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    held: BTreeMap<u64, Held>,
    tokens: BTreeMap<TokenId, Known>,
    /// Tokens with a creds request that was given up and is not settled.
    unsettled: Vec<TokenId>,
    sessions: BTreeMap<usize, Session>,
    published: Option<u64>,
    /// The newest that was ever published.
    newest: u64,
    pending: BTreeSet<String>,
    drain_commanded: bool,
    lost_and_granted: Option<i32>,
    reason: Reason,
    bucket: (f64, Time),
    requests: VecDeque<Time>,
    closed: bool,
    calm: bool,
    counts: Counts,
}

macro_rules! promise {
    ($that:expr, $($words:tt)+) => {
        if !$that {
            return Err(format!($($words)+));
        }
    };
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, planted: Option<Planted>) -> Self {
        Self {
            scenario,
            planted,
            dice: Dice(scenario.seed),
            now: beginning(),
            keeper: Keeper::new(scenario.settings()),
            vault: Vault::new(),
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            held: BTreeMap::new(),
            tokens: BTreeMap::new(),
            unsettled: Vec::new(),
            sessions: BTreeMap::new(),
            published: None,
            newest: 0,
            pending: BTreeSet::new(),
            drain_commanded: false,
            lost_and_granted: None,
            reason: Reason::First,
            bucket: (3.0, beginning()),
            requests: VecDeque::new(),
            closed: false,
            calm: false,
            counts: Counts::default(),
        }
    }

    fn plan(&mut self, at: Time, happening: Happening) {
        self.next += 1;
        self.heap.push(Reverse((at, self.next)));
        self.happenings.insert(self.next, happening);
    }

    fn latency(&mut self) -> Duration {
        self.dice.span(0.001, 0.2)
    }

    fn live(&mut self) -> Result<(), String> {
        let lease = self.scenario.lease;
        let file = self.vault.tend_file(self.scenario, self.now);
        self.plan(file, Happening::TendFile);
        let mut at = self.now;
        for (index, (gap, ..)) in self.scenario.faults.iter().enumerate() {
            at = at + secs(gap * lease);
            self.plan(at, Happening::Fault(index));
        }
        let until = self.scenario.faults.iter().map(|(.., length)| *length).fold(0.0, f64::max);
        let mut end = at + secs(lease * 0.7);
        if self.scenario.heals {
            at = at + secs(until * lease);
            self.plan(at, Happening::Heal);
            // Back-off after refused candidates is 5 minutes at most, the bucket a minute.
            end = at + secs(lease + 1200.0);
        }
        self.plan(end, Happening::Close);
        self.plan(self.now, Happening::Login);
        self.step(Event::Tick, None)?;
        let mut same = 0;
        loop {
            let deadline = self.keeper.next_deadline();
            let tick_at = deadline.max(self.now) + self.dice.span(0.0, LATE);
            let next = self.heap.peek().map(|Reverse(next)| *next);
            let before = self.now;
            match next {
                Some((at, id)) if at <= tick_at => {
                    self.heap.pop();
                    self.now = at.max(self.now);
                    match self.happenings.remove(&id) {
                        Some(Happening::End) => return self.at_the_end(),
                        Some(happening) => self.happen(happening)?,
                        None => {}
                    }
                }
                _ => {
                    self.now = tick_at;
                    self.step(Event::Tick, None)?;
                }
            }
            same = if self.now == before { same + 1 } else { 0 };
            promise!(same < 500, "hot loop");
            promise!(self.counts.steps < 60_000, "too many steps");
            if self.closed && self.calm && self.keeper.is_empty() && self.pending.is_empty() {
                return self.at_the_end();
            }
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Arrives { action, sent_at, give_up_at } => self.arrive(action, sent_at, give_up_at),
            Happening::Comes(event, lease) => return self.step(event, lease),
            Happening::Settles(token, lease) => {
                if let Some(lease) = lease {
                    self.vault.revoke(self.scenario, self.now, 0, lease);
                }
                if let Some(index) = self.unsettled.iter().position(|t| *t == token) {
                    self.unsettled.remove(index);
                }
                return self.step(Event::LateReply(token), None);
            }
            Happening::Login => return self.login(),
            Happening::Over(id, why) => return self.over(id, why),
            Happening::Fault(index) => return self.fault(index),
            Happening::Heal => {
                self.vault.faults.clear();
                self.calm = true;
            }
            Happening::Close => {
                if self.calm {
                    self.has_healed()?;
                }
                self.closed = true;
                self.step(Event::Close, None)?;
                for id in self.sessions.keys().copied().collect::<Vec<_>>() {
                    let at = self.now + self.dice.span(0.0, 20.0);
                    self.plan(at, Happening::Over(id, Why::Closed));
                }
                let longest = self.scenario.lease * self.scenario.renewed_for.max(1.0);
                let end = if self.calm { 100.0 } else { longest + self.scenario.token_ttl + 1200.0 };
                self.plan(self.now + secs(end), Happening::End);
            }
            Happening::TendFile => {
                let at = self.vault.tend_file(self.scenario, self.now);
                self.plan(at, Happening::TendFile);
            }
            Happening::End => {}
        }
        Ok(())
    }

    fn fault(&mut self, index: usize) -> Result<(), String> {
        let (_, fault, length) = self.scenario.faults[index];
        match fault {
            Fault::LeaseRevoked => {
                if let Some(held) = self.published.and_then(|number| self.held.get(&number)) {
                    self.vault.leases[held.lease].dead = true;
                    self.vault.leases[held.lease].killed = true;
                }
            }
            Fault::TokenRevoked => {
                if let Some(token) = self.published.and_then(|number| self.held.get(&number)).map(|h| h.token)
                {
                    self.vault.token(token).dead = true;
                    self.vault.token(token).killed = true;
                }
            }
            Fault::Crash if self.closed => {}
            Fault::Crash => return self.crash(),
            Fault::Rotate => return self.step(Event::Rotate(None), None),
            Fault::RotateWithDrain => {
                self.drain_commanded = !self.closed;
                let drain = if self.dice.chance(0.3) {
                    Drain::Default
                } else {
                    Drain::For(self.dice.span(0.0, length * self.scenario.lease))
                };
                return self.step(Event::Rotate(Some(drain)), None);
            }
            Fault::Denials => {
                if let Some(number) = self.published {
                    for _ in 0..3 {
                        self.step(Event::DenialSeen(number), None)?;
                    }
                }
            }
            // An hour shows what a week would, in fewer tries.
            fault => {
                let until = self.now + secs((length * self.scenario.lease).min(3600.0));
                self.vault.faults.push((fault, until));
            }
        }
        Ok(())
    }

    /// The process is gone with its sessions and whatever it waited for; what it had asked of Vault is done, or is not.
    /// The next one goes on from what was kept.
    fn crash(&mut self) -> Result<(), String> {
        let mut kept = self.keeper.kept();
        kept.generations.sort_by_key(|(_, kept)| kept.serves);
        let ids: Vec<u64> = self.happenings.keys().copied().collect();
        for id in ids {
            match self.happenings.get(&id).copied() {
                Some(Happening::Arrives { action, sent_at, .. }) => {
                    let by_token = matches!(action, Action::Issue(_) | Action::RevokeToken(_));
                    if by_token && self.dice.chance(0.5) {
                        self.vault.perform(self.scenario, self.now, sent_at, action);
                    }
                    self.happenings.remove(&id);
                }
                Some(Happening::Comes(..) | Happening::Settles(..)) => {
                    self.happenings.remove(&id);
                }
                _ => {}
            }
        }
        let mut held = std::mem::take(&mut self.held);
        for (number, (old, _)) in (1..).zip(&kept.generations) {
            let held = held.remove(old).ok_or("kept, and unknown")?;
            let asked_of_it = Held {
                told: None,
                published_at: None,
                proved: false,
                unprovable: false,
                cut: false,
                shut: false,
                stray: false,
                asked: 0,
                ..held
            };
            self.held.insert(number, asked_of_it);
        }
        self.tokens.retain(|id, _| kept.tokens.iter().any(|(kept, _)| kept == id));
        self.unsettled.clear();
        self.sessions.clear();
        self.pending.clear();
        (self.published, self.newest) = (None, 0);
        self.drain_commanded = false;
        self.lost_and_granted = None;
        self.reason = Reason::First;
        self.bucket = (3.0, self.now);
        self.keeper = Keeper::resume(self.scenario.settings(), self.now, &kept);
        self.step(Event::Tick, None)
    }

    fn login(&mut self) -> Result<(), String> {
        let again = self.now + self.dice.span(0.0, self.scenario.lease / 4.0);
        if !self.closed {
            self.plan(again, Happening::Login);
        }
        let Some(number) = self.published else { return Ok(()) };
        let held = &self.held[&number];
        promise!(!held.shut, "P2: generation {number} is published and closed to newcomers");
        if self.vault.has(Fault::DatabaseDown, self.now) {
            return Ok(());
        }
        let refuses = self.vault.has(Fault::DatabaseRefuses, self.now);
        if refuses || !self.vault.lease_lives(held.lease, self.now) {
            let crowd = if self.dice.chance(0.3) { 5 } else { 1 };
            for _ in 0..crowd {
                if let Some(held) = self.held.get_mut(&number) {
                    held.asked += 1;
                }
                self.step(Event::Suspected(number), None)?;
            }
            return Ok(());
        }
        self.counts.sessions += 1;
        let id = self.counts.sessions;
        self.sessions.insert(id, Session { number });
        let span = self.scenario.lease * if self.dice.chance(0.2) { 4.0 } else { 0.3 };
        let at = self.now + self.dice.span(0.0, span);
        self.plan(at, Happening::Over(id, Why::ByItself));
        Ok(())
    }

    fn over(&mut self, id: usize, why: Why) -> Result<(), String> {
        let Some(session) = self.sessions.get(&id) else { return Ok(()) };
        let held = self.held.get_mut(&session.number).ok_or("a session without a generation")?;
        if why == Why::Drained && held.told.is_none_or(|told| told.drain_from.is_none()) {
            return Ok(());
        }
        held.stray |= why == Why::Closed && held.strays;
        self.sessions.remove(&id);
        self.leave()
    }

    /// Generations that everybody has left.
    fn leave(&mut self) -> Result<(), String> {
        let open: BTreeSet<u64> = self.sessions.values().map(|session| session.number).collect();
        let numbers: Vec<u64> = self.held.keys().copied().collect();
        for number in numbers {
            if !self.keeper.may_empty(self.now, number) || open.contains(&number) {
                continue;
            }
            if let Some(held) = self.held.get_mut(&number).filter(|held| !held.shut) {
                held.shut = true;
                let event = Event::Empty { number, stray: held.stray };
                self.step(event, None)?;
            }
        }
        Ok(())
    }

    fn send(&mut self, action: Action, key: String, within: f64) -> Result<(), String> {
        promise!(self.pending.insert(key.clone()), "two of {key} in flight");
        if !key.starts_with("prove") {
            self.requests.push_back(self.now);
            while self.requests.front().is_some_and(|at| self.now.since(*at) > secs(10.0)) {
                self.requests.pop_front();
            }
            self.counts.most_requests = self.counts.most_requests.max(self.requests.len());
            promise!(self.requests.len() <= 50, "P7: {} requests in 10 s", self.requests.len());
        }
        let arrives_at = self.now + self.latency();
        let give_up_at = self.now + secs(within.min(CLIENT_TIMEOUT));
        self.plan(arrives_at, Happening::Arrives { action, sent_at: self.now, give_up_at });
        Ok(())
    }

    fn arrive(&mut self, action: Action, sent_at: Time, give_up_at: Time) {
        let now = self.now;
        let back = now + self.latency();
        if let Action::Prove(number) = action {
            let lives = self.held.get(&number).is_some_and(|held| self.vault.lease_lives(held.lease, now));
            let event = if self.vault.has(Fault::DatabaseDown, now) {
                Event::Unprovable(number)
            } else if lives && !self.vault.has(Fault::DatabaseRefuses, now) {
                Event::Proved(number)
            } else {
                Event::ProofRefused(number)
            };
            return self.plan(back, Happening::Comes(event, None));
        }
        if self.vault.has(Fault::Refuses, now) {
            return self.plan(back, Happening::Comes(failed(action, Failure::Transient), None));
        }
        let late = Happening::Comes(failed(action, Failure::TimedOut), None);
        if self.vault.has(Fault::Swallows, now) {
            self.plan(give_up_at, late);
            return self.settle(action, give_up_at + secs(CLIENT_TIMEOUT), None);
        }
        let leases = self.vault.leases.len();
        let event = match action {
            Action::RenewLease(number, ..) => match self.held.get(&number) {
                Some(held) => self.vault.renew(self.scenario, now, sent_at, number, held.lease),
                None => Event::LeaseRenewFailed(number, Failure::Gone),
            },
            Action::RevokeLease(number, _) => match self.held.get(&number) {
                Some(held) => self.vault.revoke(self.scenario, now, number, held.lease),
                None => Event::LeaseRevoked(number),
            },
            // What the database does not let go of stays.
            Action::LookUpLease(number, _) if self.vault.has(Fault::DatabaseDown, now) => {
                Event::LeaseLookedUp(number, Sight::There)
            }
            Action::LookUpLease(number, _) => Event::LeaseLookedUp(number, Sight::Gone),
            action => self.vault.perform(self.scenario, now, sent_at, action),
        };
        let lease = Some(leases).filter(|_| self.vault.leases.len() > leases);
        if self.vault.has(Fault::LosesReplies, now) {
            self.plan(give_up_at, late);
            return self.settle(action, give_up_at + secs(CLIENT_TIMEOUT), None);
        }
        let back = if self.vault.has(Fault::Slow, now) { now + self.dice.span(0.5, 15.0) } else { back };
        if back > give_up_at {
            self.plan(give_up_at, late);
            return self.settle(action, back.max(give_up_at), lease);
        }
        self.plan(back, Happening::Comes(event, lease));
    }

    /// A creds request that was given up comes to its end.
    fn settle(&mut self, action: Action, at: Time, lease: Option<usize>) {
        if let Action::Issue(token) = action {
            self.unsettled.push(token);
            self.plan(at, Happening::Settles(token, lease));
        }
    }

    fn step(&mut self, event: Event, lease: Option<usize>) -> Result<(), String> {
        self.counts.steps += 1;
        let event = match event {
            Event::LoggedIn(id, facts) if self.planted == Some(Planted::TokenEndLeftOut) => {
                Event::LoggedIn(id, crate::lease::TokenFacts { ttl: None, ..facts })
            }
            event => event,
        };
        self.learn(event)?;
        let before = self.keeper.latest();
        let mut actions = self.keeper.handle(self.now, event);
        if let (Event::Granted { sent_at, lease: span, .. }, Some(lease)) = (event, lease) {
            promise!(self.keeper.latest() == before + 1, "a grant was not taken in");
            self.grant(before + 1, lease, sent_at, span)?;
        }
        self.plant(event, &mut actions);
        let is_check = matches!(event, Event::Suspected(_) | Event::DenialSeen(_));
        for action in &actions {
            if let Action::Tell(number, ending) = action {
                self.tell(*number, *ending)?;
            }
        }
        let refused = actions.contains(&Action::RotateFailed);
        for action in actions {
            self.act(action, is_check)?;
        }
        if refused {
            self.drain_commanded = false;
        }
        let again = self.keeper.handle(self.now, Event::Tick);
        promise!(again.is_empty(), "a second look does more: {again:?}");
        let deadline = self.keeper.next_deadline();
        promise!(deadline > self.now, "the deadline {deadline:?} has passed");
        self.look()?;
        self.leave()
    }

    fn plant(&mut self, event: Event, actions: &mut Vec<Action>) {
        match (self.planted, event) {
            (Some(Planted::CappedRenewedAgain), Event::LeaseRenewed { number, sent_at, lease, .. })
                if actions.contains(&Action::Note(Note::LeaseCapped(number))) =>
            {
                if let Some(generation) = self.keeper.generations.get_mut(&number) {
                    generation.term = Term::new(sent_at, Some(lease), true, Jitter::NONE);
                }
                actions.extend(self.keeper.handle(self.now, Event::Tick));
            }
            (Some(Planted::DrainWithoutSuccessor), _) => {
                let Some(number) = self.keeper.current() else { return };
                let Some(generation) = self.keeper.generations.get(&number) else { return };
                let bound = self.keeper.bound(generation);
                let from = generation.would_drain_at(bound, self.keeper.settings.drain);
                if from <= self.now {
                    let hard_close_at = generation.hard_close_at(bound);
                    actions.push(Action::Tell(
                        number,
                        Ending { hard_close_at, drain_from: Some(from), closing: None },
                    ));
                }
            }
            _ => {}
        }
    }

    /// What the driver knows from a reply.
    fn learn(&mut self, event: Event) -> Result<(), String> {
        let key = match event {
            Event::LoggedIn(id, facts) => {
                let ends_at = facts.ttl.map_or(Time::NEVER, |ttl| facts.sent_at + ttl);
                let known = self.tokens.entry(id).or_default();
                if known.ends_at.is_none_or(|earlier| ends_at > earlier + secs(1.0)) {
                    *known = Known {
                        ends_at: Some(ends_at),
                        longest: facts.ttl.unwrap_or_default(),
                        capped: false,
                    };
                }
                "issue".to_owned()
            }
            Event::LogInFailed(_) | Event::Granted { .. } | Event::IssueFailed(_) => "issue".to_owned(),
            Event::Proved(number) | Event::ProofRefused(number) | Event::Unprovable(number) => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.proved = matches!(event, Event::Proved(_));
                    held.unprovable = matches!(event, Event::Unprovable(_));
                }
                format!("prove {number}")
            }
            Event::LeaseRenewed { number, sent_at, lease, .. } => {
                if let Some(held) = self.held.get_mut(&number) {
                    held.known.ends_at = Some(sent_at + lease);
                    held.known.capped |= lease + secs(1.0) < held.known.longest;
                    held.known.longest = held.known.longest.max(lease);
                }
                format!("renew {number}")
            }
            Event::LeaseRenewFailed(number, failure) => {
                if let Some(held) = self.held.get_mut(&number).filter(|_| failure == Failure::CannotExtend) {
                    held.known.capped = true;
                }
                format!("renew {number}")
            }
            Event::TokenRenewed { token, sent_at, ttl, .. } => {
                if let Some(known) = self.tokens.get_mut(&token) {
                    let ttl = ttl.unwrap_or(Duration::MAX);
                    known.ends_at = Some(sent_at + ttl);
                    known.capped |= ttl + secs(1.0) < known.longest;
                }
                format!("renew {token:?}")
            }
            Event::TokenRenewFailed(token, _) => format!("renew {token:?}"),
            Event::LeaseRevoked(number) | Event::LeaseRevokeFailed(number, _) => format!("revoke {number}"),
            Event::TokenRevoked(token) | Event::TokenRevokeFailed(token, _) => format!("revoke {token:?}"),
            Event::LeaseLookedUp(number, _) => format!("look up {number}"),
            _ => return Ok(()),
        };
        promise!(self.pending.remove(&key), "the world answers {key} twice");
        Ok(())
    }

    fn grant(&mut self, number: u64, lease: usize, sent_at: Time, span: Duration) -> Result<(), String> {
        let token = self.vault.leases[lease].token;
        let known = Known { ends_at: Some(sent_at + span), longest: span, capped: false };
        let strays = self.dice.chance(0.03);
        let held = Held {
            lease,
            token,
            issued_at: sent_at,
            known,
            told: None,
            published_at: None,
            proved: false,
            unprovable: false,
            cut: false,
            shut: false,
            stray: false,
            strays,
            asked: 0,
        };
        self.held.insert(number, held);
        if let Some(count) = &mut self.lost_and_granted {
            *count += 1;
            promise!(*count <= 1, "P5: {count} issuances for one lost lease");
        }
        if matches!(self.reason, Reason::Revoked | Reason::Refused) {
            let (left, since) = self.bucket;
            let left = (left + self.now.since(since).as_secs_f64() / 60.0).min(3.0) - 1.0;
            let has_room = left > -0.01;
            promise!(has_room, "bounds: the bucket of issuances is empty");
            self.bucket = (left, self.now);
        }
        Ok(())
    }

    fn tell(&mut self, number: u64, ending: Ending) -> Result<(), String> {
        let now = self.now;
        let successor = self.newest.max(self.keeper.current().unwrap_or(0)) > number;
        let commanded = self.drain_commanded || self.held.get(&number).is_some_and(|held| held.cut);
        let mine: Vec<usize> =
            self.sessions.iter().filter(|(_, session)| session.number == number).map(|(id, _)| *id).collect();
        let is_current = self.keeper.current() == Some(number);
        let held = self.held.get(&number).ok_or("told to nobody")?;
        if let Some(from) = ending.drain_from {
            promise!(!is_current, "P3: the current generation {number} is drained");
            promise!(successor && from <= now, "P3: generation {number} is drained without a successor");
        }
        let newly = held.told.is_none_or(|told| told.closing.is_none());
        if let Some(closing) = ending.closing.filter(|_| newly) {
            let token_end =
                self.tokens.get(&held.token).and_then(|known| known.ends_at).unwrap_or(Time::NEVER);
            let known_end = held.known.ends_at.unwrap_or(Time::NEVER).min(token_end);
            match closing.cause {
                Cause::LeaseEnd => promise!(
                    now + secs(6.0 + LATE) >= known_end,
                    "P3: generation {number} is closed, but its end is {known_end:?}"
                ),
                Cause::Lost => promise!(
                    !self.vault.lease_lives(held.lease, now),
                    "P3: generation {number} is closed as lost, but lives"
                ),
                Cause::CutShort => promise!(commanded, "P3: nobody cut generation {number} short"),
            }
            let true_end = self.vault.true_end(held.lease);
            promise!(
                closing.cause == Cause::Lost
                    || self.vault.was_killed(held.lease)
                    || now + secs(1.9) <= true_end && closing.gone_by <= true_end + secs(ROUNDING),
                "P4: generation {number} is closed too late: it ends at {true_end:?}"
            );
            for id in &mine {
                let at =
                    now + self.dice.span(0.0, (closing.gone_by.since(now).as_secs_f64() - ROUNDING).max(0.0));
                self.plan(at.max(now), Happening::Over(*id, Why::Closed));
            }
        } else if ending.drain_from.is_some() && ending.closing.is_none() {
            for id in &mine {
                if self.dice.chance(0.6) {
                    let at = now + self.dice.span(0.0, ending.hard_close_at.since(now).as_secs_f64());
                    self.plan(at, Happening::Over(*id, Why::Drained));
                }
            }
        }
        if let Some(held) = self.held.get_mut(&number) {
            held.told = Some(ending);
        }
        Ok(())
    }

    fn act(&mut self, action: Action, is_check: bool) -> Result<(), String> {
        let now = self.now;
        match action {
            Action::LogIn { within } => {
                promise!(!self.closed, "something is issued after the close");
                let within = within.map_or(CLIENT_TIMEOUT, |within| within.as_secs_f64());
                self.send(action, "issue".to_owned(), within)
            }
            Action::Issue(id) => {
                promise!(self.tokens.contains_key(&id) && !self.closed, "issued under {id:?}");
                self.send(action, "issue".to_owned(), CLIENT_TIMEOUT)
            }
            Action::Prove(number) => self.send(action, format!("prove {number}"), CLIENT_TIMEOUT),
            Action::RenewLease(number, _, within) => {
                let held = self.held.get(&number).ok_or("renewed, and unknown")?;
                promise!(is_check || !held.known.capped, "capped generation {number} is renewed again");
                let passes = self
                    .scenario
                    .settings()
                    .max_age
                    .is_some_and(|age| now + held.known.longest > held.issued_at + age);
                promise!(!passes, "generation {number} is renewed past max_age");
                self.send(action, format!("renew {number}"), within.as_secs_f64())
            }
            Action::RenewToken(id, within) => {
                let capped = self.tokens.get(&id).is_none_or(|known| known.capped);
                promise!(!capped, "capped token {id:?} is renewed again");
                self.send(action, format!("renew {id:?}"), within.as_secs_f64())
            }
            Action::RevokeLease(number, _) => {
                let open = self.sessions.values().any(|session| session.number == number);
                let held = self.held.get(&number).ok_or("revoked, and unknown")?;
                promise!(!open && !held.stray, "P4: generation {number} is revoked under its sessions");
                promise!(self.published != Some(number), "P2: generation {number} is revoked and published");
                if let (None, Some(count)) = (held.published_at, &mut self.lost_and_granted) {
                    *count = (*count - 1).max(0);
                }
                self.send(action, format!("revoke {number}"), CLIENT_TIMEOUT)
            }
            Action::RevokeToken(id) => {
                promise!(self.scenario.tokens == Tokens::Login, "P6: token {id:?} is not ours to revoke");
                promise!(!self.unsettled.contains(&id), "P6: token {id:?} is revoked before its late grant");
                promise!(!self.held.values().any(|held| held.token == id), "P4: token {id:?} is in use");
                self.send(action, format!("revoke {id:?}"), CLIENT_TIMEOUT)
            }
            Action::LookUpLease(number, id) => {
                promise!(self.tokens.contains_key(&id), "P6: {id:?} looks, and is forgotten");
                promise!(
                    !self.held.contains_key(&number),
                    "P6: generation {number} is looked for while held"
                );
                self.send(action, format!("look up {number}"), CLIENT_TIMEOUT)
            }
            Action::Publish(number) => self.publish(number),
            Action::Unpublish => {
                self.published = None;
                Ok(())
            }
            Action::Tell(..) | Action::TooEarly(_) | Action::RotateFailed | Action::RotateDone(_) => Ok(()),
            Action::Forget(number) => {
                let open = self.sessions.values().any(|session| session.number == number);
                promise!(!open, "generation {number} is forgotten with sessions");
                promise!(self.published != Some(number), "generation {number} is forgotten and published");
                self.held.remove(&number);
                Ok(())
            }
            Action::ForgetToken(id) => {
                promise!(
                    !self.held.values().any(|held| held.token == id),
                    "token {id:?} is forgotten in use"
                );
                self.tokens.remove(&id);
                Ok(())
            }
            Action::Answer(number, verdict) => {
                if let Some(held) = self.held.get_mut(&number) {
                    promise!(held.asked > 0, "nobody asked about generation {number}");
                    held.asked = 0;
                    // One whose sessions are being closed is lost to a login, however long its lease lives on.
                    let closing = held.told.is_some_and(|told| told.closing.is_some());
                    let lives = self.vault.lease_lives(held.lease, now) && !closing;
                    promise!(!(verdict == Verdict::Lost && lives), "P3: {number} is called lost, but lives");
                    if verdict != Verdict::Lost && self.dice.chance(0.5) {
                        self.plan(now, Happening::Comes(Event::Replace(number), None));
                    }
                }
                Ok(())
            }
            Action::Note(note) => {
                match note {
                    Note::Issuing(reason) => self.reason = reason,
                    Note::Published { reason: Reason::TakenUp, .. } => self.counts.taken_up += 1,
                    Note::Published { reason: Reason::Standby, .. } => self.counts.promoted += 1,
                    Note::Lost(number) if self.published == Some(number) => self.lost_and_granted = Some(0),
                    _ => {}
                }
                Ok(())
            }
        }
    }

    fn publish(&mut self, number: u64) -> Result<(), String> {
        let now = self.now;
        let cut = std::mem::take(&mut self.drain_commanded);
        let lease = self.scenario.lease;
        let drain = self.scenario.drain.unwrap_or(0.1).min(0.25) * lease;
        let previous =
            self.held.range(..number).rev().find(|(_, held)| held.told.is_some_and(|t| t.closing.is_none()));
        let presses = previous.is_none_or(|(_, held)| {
            held.cut || held.told.is_some_and(|told| told.hard_close_at.since(now) <= secs(drain + 0.1))
        });
        let held = self.held.get(&number).ok_or("published, and unknown")?;
        let is_new = held.published_at.is_none();
        promise!(
            held.proved || !is_new || (held.unprovable && presses),
            "P2: generation {number} is published without a proof"
        );
        promise!(!held.shut, "P2: generation {number} is published, and closed to newcomers");
        for (n, held) in &mut self.held {
            held.cut |= cut && *n < number && held.published_at.is_some();
        }
        if let Some(held) = self.held.get_mut(&number) {
            held.published_at.get_or_insert(now);
        }
        self.published = Some(number);
        self.newest = self.newest.max(number);
        if is_new {
            self.counts.published += 1;
            self.lost_and_granted = None;
        }
        Ok(())
    }

    /// What holds at any time.
    fn look(&mut self) -> Result<(), String> {
        let now = self.now;
        for session in self.sessions.values() {
            let held = self.held.get(&session.number).ok_or("a session without a generation")?;
            promise!(
                self.vault.lease_lives(held.lease, now) || self.vault.was_killed(held.lease),
                "P4: a session outlives the lease of generation {}",
                session.number
            );
        }
        let usable = |held: &Held| {
            held.published_at.is_some()
                && !held.cut
                && !held.shut
                && held.told.is_some_and(|told| told.closing.is_none() && now < told.hard_close_at)
        };
        let newest = self.held.iter().rev().find(|(_, held)| usable(held)).map(|(number, _)| *number);
        promise!(
            self.published == newest.filter(|_| !self.closed),
            "P2: {:?} is published, the newest usable is {newest:?}",
            self.published
        );
        promise!(self.keeper.current() == self.published, "the keeper and the driver disagree");
        Ok(())
    }

    /// With everything in order for a lease and 20 minutes, logins get in, and nobody is in a lost generation.
    fn has_healed(&self) -> Result<(), String> {
        let now = self.now;
        let lives =
            |number: u64| self.held.get(&number).is_some_and(|held| self.vault.lease_lives(held.lease, now));
        let has_no_token = self.scenario.tokens == Tokens::Fixed;
        promise!(
            has_no_token || self.published.is_some_and(lives),
            "P5: no login gets in: {:?}",
            self.keeper
        );
        let lost = self.sessions.values().find(|session| !lives(session.number));
        promise!(lost.is_none(), "P5: a session goes on in a lost generation");
        Ok(())
    }

    fn at_the_end(&mut self) -> Result<(), String> {
        let scenario = self.scenario;
        promise!(self.sessions.is_empty(), "{} sessions after the close", self.sessions.len());
        let owned = scenario.tokens == Tokens::Login;
        let by_token = owned && scenario.may_revoke_self;
        let strays = self.held.values().any(|held| held.stray);
        if self.calm && !strays {
            promise!(self.keeper.is_empty(), "P6: something is left: {:?}", self.keeper);
        }
        for (index, lease) in self.vault.leases.iter().enumerate() {
            // What lapses does so by Vault's clock, a reply's way later than by ours.
            let left = self.vault.lease_lives(index, self.now + secs(2.0));
            let lapses = !(by_token || scenario.may_revoke) || !self.calm || lease.killed || strays;
            // A grant whose reply was lost goes with its login's token, or lapses.
            let loses = |fault: &Fault| matches!(fault, Fault::LosesReplies | Fault::Slow | Fault::Crash);
            let lost = !by_token && scenario.faults.iter().any(|(_, fault, _)| loses(fault));
            promise!(!left || lapses || lost, "P6: lease {index} is left behind");
        }
        Ok(())
    }
}

fn failed(action: Action, failure: Failure) -> Event {
    match action {
        Action::LogIn { .. } => Event::LogInFailed(failure),
        Action::Issue(_) => Event::IssueFailed(failure),
        Action::RenewLease(number, ..) => Event::LeaseRenewFailed(number, failure),
        Action::RenewToken(id, _) => Event::TokenRenewFailed(id, failure),
        Action::RevokeLease(number, _) => Event::LeaseRevokeFailed(number, failure),
        Action::RevokeToken(id) => Event::TokenRevokeFailed(id, failure),
        Action::LookUpLease(number, _) => Event::LeaseLookedUp(number, Sight::Unclear),
        other => unreachable!("{other:?}"),
    }
}
