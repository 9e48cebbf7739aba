//! A driver over simulated time, in a random world.

mod requests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use super::known::Request;
use super::script::secs;
use super::watch::{LATE, Planted, ROUNDING, Watch, promise, stored};
use super::world::{Dice, Fault, Scenario, Tokens, beginning};
use crate::lease::Ending;
use crate::lease::{
    Action, DrainSpan, DynamicRole, Event, Failure, GenerationId, LeaseLookup, Note, Reason, TokenId, Verdict,
};
use crate::time::Time;

/// The counters of a run.
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
    world.live().map_err(|broken| format!("at {:?}: {broken}", world.watch.now))?;
    world.counts.seconds = world.watch.now.since(beginning()).as_secs_f64();
    Ok(world.counts)
}

const CLIENT_TIMEOUT: f64 = 10.0;

#[derive(Clone, Copy, Debug)]
enum Happening {
    /// A request reaches Vault, or the database.
    Arrives(Request),
    /// A reply reaches the driver, with the index of a granted lease.
    Comes(Event, Option<usize>),
    /// A creds request that was given up is settled.
    Settles(TokenId, Option<usize>),
    Login,
    NotRenewed(usize, Why),
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

struct World<'a> {
    scenario: &'a Scenario,
    dice: Dice,
    watch: Watch,
    heap: BinaryHeap<Reverse<(Time, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    next: u64,
    reason: Reason,
    bucket: (f64, Time),
    requests: VecDeque<Time>,
    calm: bool,
    counts: Counts,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, planted: Option<Planted>) -> Self {
        let owned = scenario.tokens == Tokens::Login;
        let drain = secs(scenario.drain.unwrap_or(0.1).min(0.25) * scenario.lease);
        let role = DynamicRole::new(scenario.settings());
        let mut watch = Watch::new(beginning(), role, owned, drain, planted);
        watch.proves_published = true;
        Self {
            scenario,
            dice: Dice(scenario.seed),
            watch,
            heap: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            next: 0,
            reason: Reason::First,
            bucket: (3.0, beginning()),
            requests: VecDeque::new(),
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
        let file = self.watch.vault.tend_file(self.scenario, self.watch.now);
        self.plan(file, Happening::TendFile);
        let mut at = self.watch.now;
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
        self.plan(self.watch.now, Happening::Login);
        self.step(Event::Tick, None)?;
        let mut same = 0;
        loop {
            let deadline = self.watch.role.next_deadline();
            let tick_at = deadline.max(self.watch.now) + self.dice.span(0.0, LATE);
            let next = self.heap.peek().map(|Reverse(next)| *next);
            let before = self.watch.now;
            match next {
                Some((at, id)) if at <= tick_at => {
                    self.heap.pop();
                    self.watch.now = at.max(self.watch.now);
                    match self.happenings.remove(&id) {
                        Some(Happening::End) => return self.at_the_end(),
                        Some(happening) => self.happen(happening)?,
                        None => {}
                    }
                }
                _ => {
                    self.watch.now = tick_at;
                    self.step(Event::Tick, None)?;
                }
            }
            same = if self.watch.now == before { same + 1 } else { 0 };
            promise!(same < 500, "hot loop");
            // A token that ends is looked up every 30 s until there is another token, which may take most of its weeks.
            promise!(self.counts.steps < 400_000, "too many steps");
            if self.watch.closed && self.calm && self.watch.role.is_empty() && self.watch.pending.is_empty() {
                return self.at_the_end();
            }
        }
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Arrives(request) => self.arrive(request),
            Happening::Comes(event, lease) => return self.step(event, lease),
            Happening::Settles(token, lease) => {
                if let Some(lease) = lease {
                    let span = secs(self.scenario.lease);
                    let sent_at = self.watch.now;
                    self.step(Event::LeaseLeft { token, sent_at, lease: span }, Some(lease))?;
                }
                if let Some(index) = self.watch.unsettled.iter().position(|t| *t == token) {
                    self.watch.unsettled.remove(index);
                }
                return self.step(Event::LateReply(token), None);
            }
            Happening::Login => return self.login(),
            Happening::NotRenewed(id, why) => return self.over(id, why),
            Happening::Fault(index) => return self.fault(index),
            Happening::Heal => {
                self.watch.vault.faults.clear();
                self.calm = true;
            }
            Happening::Close => {
                if self.calm {
                    self.has_healed()?;
                }
                self.watch.closed = true;
                self.step(Event::Close, None)?;
                for id in self.watch.sessions.keys().copied().collect::<Vec<_>>() {
                    let at = self.watch.now + self.dice.span(0.0, 20.0);
                    self.plan(at, Happening::NotRenewed(id, Why::Closed));
                }
                let longest = self.scenario.lease * self.scenario.renewed_for.max(1.0);
                let end = if self.calm { 100.0 } else { longest + self.scenario.token_ttl + 1200.0 };
                self.plan(self.watch.now + secs(end), Happening::End);
            }
            Happening::TendFile => {
                let at = self.watch.vault.tend_file(self.scenario, self.watch.now);
                self.plan(at, Happening::TendFile);
            }
            Happening::End => {}
        }
        Ok(())
    }

    fn login(&mut self) -> Result<(), String> {
        let again = self.watch.now + self.dice.span(0.0, self.scenario.lease / 4.0);
        if !self.watch.closed {
            self.plan(again, Happening::Login);
        }
        let Some(number) = self.watch.published else { return Ok(()) };
        let held = &self.watch.held[&number];
        promise!(!held.shut, "P2: generation {number} is published and closed to newcomers");
        if self.watch.vault.has(Fault::DatabaseDown, self.watch.now) {
            return Ok(());
        }
        let refuses = self.watch.vault.has(Fault::DatabaseRefuses, self.watch.now);
        if refuses || !self.watch.vault.lease_lives(held.lease, self.watch.now) {
            let crowd = if self.dice.chance(0.3) { 5 } else { 1 };
            for _ in 0..crowd {
                if let Some(held) = self.watch.held.get_mut(&number) {
                    held.asked += 1;
                }
                self.step(Event::Suspected(number), None)?;
            }
            return Ok(());
        }
        self.counts.sessions += 1;
        let id = self.counts.sessions;
        self.watch.sessions.insert(id, number);
        let span = self.scenario.lease * if self.dice.chance(0.2) { 4.0 } else { 0.3 };
        let at = self.watch.now + self.dice.span(0.0, span);
        self.plan(at, Happening::NotRenewed(id, Why::ByItself));
        Ok(())
    }

    fn over(&mut self, id: usize, why: Why) -> Result<(), String> {
        let Some(number) = self.watch.sessions.get(&id).copied() else { return Ok(()) };
        let held = self.watch.held.get_mut(&number).ok_or("a session without a generation")?;
        if why == Why::Drained && held.told.is_none_or(|told| told.drain_from.is_none()) {
            return Ok(());
        }
        held.open_upstream |= why == Why::Closed && held.strays;
        self.watch.sessions.remove(&id);
        self.leave()
    }

    /// Ends generations without sessions.
    fn leave(&mut self) -> Result<(), String> {
        while let Some(event) = self.watch.left() {
            self.step(event, None)?;
        }
        Ok(())
    }

    fn step(&mut self, event: Event, lease: Option<usize>) -> Result<(), String> {
        self.counts.steps += 1;
        let grant = lease.filter(|_| matches!(event, Event::Granted { .. }));
        let strays = grant.is_some() && self.dice.chance(0.03);
        let closing: BTreeSet<GenerationId> =
            self.watch.held.iter().filter(|(_, held)| held.is_closing()).map(|(number, _)| *number).collect();
        let reason = self.reason;
        let actions = self.watch.take_in(event, lease)?;
        if let Some(number) = stored(&actions).filter(|_| grant.is_some()) {
            self.watch.held.entry(number).and_modify(|held| held.strays = strays);
            self.draw(reason)?;
        }
        for action in &actions {
            if let Action::NotifySessions(number, ending) = action {
                self.tell(*number, *ending, closing.contains(number));
            }
        }
        for action in actions {
            self.act(action)?;
        }
        self.watch.look()?;
        self.leave()
    }

    /// A grant out of turn uses the limit.
    fn draw(&mut self, reason: Reason) -> Result<(), String> {
        if matches!(reason, Reason::Revoked | Reason::Refused) {
            let (left, since) = self.bucket;
            let left = (left + self.watch.now.since(since).as_secs_f64() / 60.0).min(3.0) - 1.0;
            let has_room = left > -0.01;
            promise!(has_room, "bounds: the bucket of issuances is empty");
            self.bucket = (left, self.watch.now);
        }
        Ok(())
    }

    /// Notifies the sessions of a generation of its end.
    fn tell(&mut self, number: GenerationId, ending: Ending, closes_already: bool) {
        let now = self.watch.now;
        let mine: Vec<usize> =
            self.watch.sessions.iter().filter(|(_, open)| **open == number).map(|(id, _)| *id).collect();
        if let Some(closing) = ending.closing.filter(|_| !closes_already) {
            for id in &mine {
                let at =
                    now + self.dice.span(0.0, (closing.gone_by.since(now).as_secs_f64() - ROUNDING).max(0.0));
                self.plan(at.max(now), Happening::NotRenewed(*id, Why::Closed));
            }
        } else if ending.drain_from.is_some() && ending.closing.is_none() {
            for id in &mine {
                if self.dice.chance(0.6) {
                    let at = now + self.dice.span(0.0, ending.hard_close_at.since(now).as_secs_f64());
                    self.plan(at, Happening::NotRenewed(*id, Why::Drained));
                }
            }
        }
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::LogIn { .. }
            | Action::Issue(_)
            | Action::Prove(_)
            | Action::RenewLease(..)
            | Action::RenewToken(..)
            | Action::RevokeLease(..)
            | Action::RevokeToken(_)
            | Action::LookUpLease(..) => return self.send(action),
            Action::Answer(number, verdict) => {
                let is_renewed = verdict != Verdict::Lost && self.watch.held.contains_key(&number);
                if is_renewed && self.dice.chance(0.5) {
                    self.plan(self.watch.now, Happening::Comes(Event::Replace(number), None));
                }
            }
            Action::Note(Note::Issuing(reason)) => self.reason = reason,
            Action::Note(Note::Published { reason, .. }) => {
                self.counts.published += 1;
                self.counts.taken_up += usize::from(reason == Reason::TakenUp);
                self.counts.promoted += usize::from(reason == Reason::Standby);
            }
            _ => {}
        }
        Ok(())
    }

    /// After the duration of a lease and 20 minutes without a fault, logins succeed, and no session is in a lost
    /// generation.
    fn has_healed(&self) -> Result<(), String> {
        let now = self.watch.now;
        let lives = |number: GenerationId| {
            self.watch.held.get(&number).is_some_and(|held| self.watch.vault.lease_lives(held.lease, now))
        };
        let has_no_token = self.scenario.tokens == Tokens::Fixed;
        promise!(
            has_no_token || self.watch.published.is_some_and(lives),
            "P5: no login gets in: {:?}",
            self.watch.role
        );
        let lost = self.watch.sessions.values().find(|number| !lives(**number));
        promise!(lost.is_none(), "P5: a session goes on in a lost generation");
        Ok(())
    }

    fn at_the_end(&mut self) -> Result<(), String> {
        let scenario = self.scenario;
        promise!(self.watch.sessions.is_empty(), "{} sessions after the close", self.watch.sessions.len());
        let owned = scenario.tokens == Tokens::Login;
        let by_token = owned && scenario.may_revoke_self;
        let strays = self.watch.held.values().any(|held| held.open_upstream);
        if self.calm && !strays {
            promise!(self.watch.role.is_empty(), "P6: something is left: {:?}", self.watch.role);
        }
        for (index, lease) in self.watch.vault.leases.iter().enumerate() {
            // A lease expires by Vault's clock, which is later than ours by the time of a reply.
            let left = self.watch.vault.lease_lives(index, self.watch.now + secs(2.0));
            let lapses = !(by_token || scenario.may_revoke) || !self.calm || lease.killed || strays;
            // A grant whose reply was lost goes with its login's token, or lapses.
            let loses = |fault: &Fault| matches!(fault, Fault::LosesReplies | Fault::Slow | Fault::Crash);
            let lost = !by_token && scenario.faults.iter().any(|(_, fault, _)| loses(fault));
            promise!(!left || lapses || lost, "P6: lease {index} is left behind");
        }
        Ok(())
    }
}
