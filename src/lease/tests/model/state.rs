//! A state of the machine and its world, and the events that may happen next.

use std::time::Duration;

use super::super::watch::{Planted, Watch, promise};
use super::super::world::Lease;
use super::replies::{LEASE, MOST, Reply};
use crate::lease::{Action, DrainSpan, DynamicRole, Event, GenerationId, Settings};
use crate::time::Time;

/// The drain of a rotation on command.
const DRAIN: Duration = Duration::from_secs(5);
/// It is larger than any other number in a state: the hash recognises times by their size.
pub(super) const BEGINNING: Time = Time::from_nanos(1_000_000_000_000_000_000);

/// The machine, the driver and the world, and which of the events that may happen once have happened.
#[derive(Clone, Hash)]
pub(super) struct State {
    pub(super) watch: Watch,
    rotated: bool,
    /// A lease was revoked by hand.
    killed: bool,
    /// Vault refused to revoke a token: its leases expire.
    pub(super) lapses: bool,
}

/// The next event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Choice {
    /// No event until the next time at which the machine or the world has something to do.
    Wait,
    /// The answer to the request in this place.
    Answer(u8, Reply),
    /// A creds request that was given up is settled. A lease that it made could not be given back.
    Settle { granted: bool },
    /// A session opens in the published generation.
    Open,
    /// The session of this generation ends.
    Leave(u8),
    /// An operator revokes the published generation's lease by hand.
    Kill,
    /// A rotation on command.
    Rotate { drain: bool },
    /// The shutdown.
    Close,
}

impl State {
    /// A route without credentials, at its first event. The settings have no jitter and no age.
    pub(super) fn new(settings: Settings, planted: Option<Planted>) -> Self {
        // The drain of a lease of 60 s is a tenth of it.
        let drain = LEASE / 10;
        let watch = Watch::new(BEGINNING, DynamicRole::new(settings), true, drain, planted);
        let mut state = Self { watch, rotated: false, killed: false, lapses: false };
        state.watch.take_in(Event::Tick, None).expect("the first event asks for a login");
        state.settle_counts();
        state
    }

    /// Whether the route has ended.
    pub(super) fn is_end(&self) -> bool {
        let watch = &self.watch;
        watch.closed && watch.role.is_empty() && watch.pending.is_empty() && watch.unsettled.is_empty()
    }

    /// All events that may happen next.
    pub(super) fn choices(&self, choices: &mut Vec<Choice>) {
        choices.clear();
        if self.is_end() {
            return;
        }
        let watch = &self.watch;
        for (place, request) in watch.pending.iter().enumerate() {
            let place = u8::try_from(place).expect("a handful of requests");
            choices.extend(self.replies(request).iter().map(|reply| Choice::Answer(place, *reply)));
        }
        if let Some(token) = watch.unsettled.first() {
            choices.push(Choice::Settle { granted: false });
            if watch.vault.leases.len() < MOST && watch.vault.token_lives(*token, watch.now) {
                choices.push(Choice::Settle { granted: true });
            }
        }
        if let Some(number) = watch.published {
            if !watch.sessions.contains_key(&(number.get() as usize)) {
                choices.push(Choice::Open);
            }
            if !self.killed {
                choices.push(Choice::Kill);
            }
        }
        choices.extend(watch.sessions.values().map(|number| Choice::Leave(number.get() as u8)));
        if !watch.closed {
            if !self.rotated {
                choices.extend([Choice::Rotate { drain: false }, Choice::Rotate { drain: true }]);
            }
            choices.push(Choice::Close);
        }
        if self.due().is_some() {
            choices.push(Choice::Wait);
        }
    }

    /// The next time at which anything has to be done; `None` while an answer is due.
    fn due(&self) -> Option<Time> {
        let watch = &self.watch;
        let give_ups = watch.pending.iter().map(|request| request.give_up_at);
        if give_ups.clone().any(|at| at <= watch.now) {
            return None;
        }
        let true_ends = watch.held.values().map(|held| watch.vault.true_end(held.lease));
        let gone_by = watch.sessions.values().filter_map(|number| self.gone_by(*number));
        let all = give_ups.chain(true_ends).chain(gone_by).filter(|at| *at > watch.now);
        all.chain([watch.role.next_deadline()]).min().filter(|at| *at != Time::NEVER)
    }

    /// When the sessions of a generation are gone at the latest.
    fn gone_by(&self, number: GenerationId) -> Option<Time> {
        Some(self.watch.held.get(&number)?.told?.closing?.gone_by)
    }

    /// Carries out the event, and what the driver does at once because of it.
    pub(super) fn step(&mut self, choice: Choice) -> Result<Vec<Action>, String> {
        let (event, lease) = match choice {
            Choice::Wait => {
                self.watch.now = self.due().expect("a choice only where something is due");
                let over =
                    |number: &GenerationId| self.gone_by(*number).is_some_and(|at| at <= self.watch.now);
                let over: Vec<usize> =
                    self.watch.sessions.iter().filter(|(_, n)| over(n)).map(|(id, _)| *id).collect();
                for id in over {
                    self.watch.sessions.remove(&id);
                }
                (Event::Tick, None)
            }
            Choice::Answer(place, reply) => {
                let request = self.watch.pending[usize::from(place)];
                self.answer(&request, reply)
            }
            Choice::Settle { granted } => {
                let token = self.watch.unsettled.remove(0);
                if granted {
                    self.grant(token, self.watch.now);
                }
                (Event::LateReply(token), None)
            }
            Choice::Open => (self.open()?, None),
            Choice::Leave(number) => {
                self.watch.sessions.remove(&usize::from(number));
                (Event::Tick, None)
            }
            Choice::Kill => {
                self.killed = true;
                let number = self.watch.published.expect("a choice only where one is published");
                let lease = self.watch.held[&number].lease;
                self.watch.vault.leases[lease].dead = true;
                self.watch.vault.leases[lease].killed = true;
                (Event::Tick, None)
            }
            Choice::Rotate { drain } => {
                self.rotated = true;
                self.watch.drain_commanded = drain;
                (Event::Rotate(drain.then_some(DrainSpan::For(DRAIN))), None)
            }
            Choice::Close => {
                self.watch.closed = true;
                (Event::Close, None)
            }
        };
        // The requests that this event makes fail.
        let failed = match choice {
            Choice::Answer(place, reply) if !matches!(reply, Reply::Done | Reply::Capped) => {
                Some(self.watch.pending[usize::from(place)].action)
            }
            _ => None,
        };
        let mut actions = self.watch.take_in(event, lease)?;
        let is_again = failed.is_some_and(|failed| actions.contains(&failed));
        promise!(!is_again, "P7: what failed is asked for again in the same moment");
        while let Some(left) = self.watch.left() {
            actions.extend(self.watch.take_in(left, None)?);
        }
        self.settle_counts();
        Ok(actions)
    }

    /// A login: it leads to a session, or to a suspicion.
    fn open(&mut self) -> Result<Event, String> {
        let number = self.watch.published.expect("a choice only where one is published");
        let held = self.watch.held.get_mut(&number).ok_or("published, and unknown")?;
        if self.watch.vault.lease_lives(held.lease, self.watch.now) {
            self.watch.sessions.insert(number.get() as usize, number);
            return Ok(Event::Accepted(number));
        }
        held.asked += 1;
        Ok(Event::Suspected(number))
    }

    /// Checks what must hold in each state, in addition to the checks after each step.
    pub(super) fn look(&mut self) -> Result<(), String> {
        self.watch.look()?;
        let watch = &self.watch;
        if let Some(held) = watch.published.and_then(|number| watch.held.get(&number)) {
            let lives = watch.vault.lease_lives(held.lease, watch.now) || watch.vault.was_killed(held.lease);
            promise!(lives, "P2: what is published has ended");
        }
        let waits = !watch.pending.is_empty()
            || !watch.unsettled.is_empty()
            || watch.role.next_deadline() != Time::NEVER;
        let serves = watch.published.is_some() || watch.closed;
        promise!(serves || waits, "P5: no login gets in, and nothing will be done about it");
        let is_left = watch.closed && !watch.role.is_empty() && watch.sessions.is_empty();
        promise!(!is_left || waits, "P6: something is left, and nothing will be done about it");
        if self.is_end() {
            promise!(watch.sessions.is_empty(), "a session is left");
            let lives = |lease: &usize| watch.vault.lease_lives(*lease, watch.now);
            let left = (0..watch.vault.leases.len()).find(lives).filter(|_| !self.lapses);
            promise!(left.is_none(), "P6: a lease is left behind");
            let left = watch.vault.tokens.iter().any(|token| !token.dead && watch.now < token.ends_at);
            promise!(!left || self.lapses, "P6: a token is left behind");
        }
        Ok(())
    }

    /// Makes values equal that no decision depends on: counters, and the ends of what is over.
    fn settle_counts(&mut self) {
        let watch = &mut self.watch;
        watch.role.forget_counts();
        for held in watch.held.values_mut() {
            held.issued_at = Time::NEVER;
            held.published_at = held.published_at.map(|_| Time::NEVER);
        }
        let (held, now) = (&watch.held, watch.now);
        for (index, lease) in watch.vault.leases.iter_mut().enumerate() {
            if (lease.dead || lease.ends_at <= now) && !held.values().any(|held| held.lease == index) {
                *lease = Lease { ends_at: now, max_ends_at: now, dead: true, ..*lease };
            }
        }
        for token in &mut watch.vault.tokens {
            if token.dead {
                (token.ends_at, token.max_ends_at) = (now, now);
            }
        }
    }
}
