//! The state of the driver and of the world, over which each step has to keep the promises (`watch/promises.rs`).
//!
//! The events are random (`simulation`) or all possible events (`model`).

mod promises;

use std::collections::BTreeMap;
use std::time::Duration;

use super::known::{Held, Known, Request};
use super::script::secs;
use super::world::{Fault, Vault};
use crate::lease::schedule::Jitter;
use crate::lease::term::Term;
use crate::lease::{Action, DynamicRole, Event, GenerationId, Note, Snapshot, TokenFacts, TokenId, Verdict};
use crate::lease::{Cause, Ending};
use crate::time::Time;

/// A bug that is planted on purpose, to see that the checks find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Planted {
    /// A capped renewal is renewed again.
    CappedRenewedAgain,
    /// A token's end is left out of `end_at`.
    TokenEndLeftOut,
    /// The current generation is drained.
    DrainWithoutSuccessor,
}

/// Ticks come this late at most.
pub(super) const LATE: f64 = 0.05;
/// A lease may end this much earlier than Vault's whole seconds say.
pub(super) const ROUNDING: f64 = 1.05;
const CLIENT_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone, Hash)]
pub(super) struct Watch {
    pub(super) now: Time,
    pub(super) role: DynamicRole,
    pub(super) vault: Vault,
    pub(super) held: BTreeMap<GenerationId, Held>,
    pub(super) tokens: BTreeMap<TokenId, Known>,
    /// Tokens with a creds request that was given up and is not settled.
    pub(super) unsettled: Vec<TokenId>,
    /// The generation of each session.
    pub(super) sessions: BTreeMap<usize, GenerationId>,
    pub(super) published: Option<GenerationId>,
    /// The newest generation that was ever published.
    newest: Option<GenerationId>,
    pub(super) pending: Vec<Request>,
    /// Whether the proof of a published credential is answered at once; otherwise it stays in flight.
    pub(super) proves_published: bool,
    /// The result of such a proof.
    found: Vec<Event>,
    pub(super) drain_commanded: bool,
    pub(super) lost_and_granted: Option<i32>,
    pub(super) closed: bool,
    /// Whether its tokens are revoked.
    owned: bool,
    /// The longest drain.
    drain: Duration,
    planted: Option<Planted>,
}

macro_rules! promise {
    ($that:expr, $($words:tt)+) => {
        if !$that {
            return Err(format!($($words)+));
        }
    };
}
pub(super) use promise;

/// The generation of a grant.
pub(super) fn stored(actions: &[Action]) -> Option<GenerationId> {
    actions.iter().find_map(|action| match action {
        Action::Store(number) => Some(*number),
        _ => None,
    })
}

impl Watch {
    pub(super) fn new(
        now: Time,
        role: DynamicRole,
        owned: bool,
        drain: Duration,
        planted: Option<Planted>,
    ) -> Self {
        Self {
            now,
            role,
            vault: Vault::new(),
            held: BTreeMap::new(),
            tokens: BTreeMap::new(),
            unsettled: Vec::new(),
            sessions: BTreeMap::new(),
            published: None,
            newest: None,
            pending: Vec::new(),
            proves_published: false,
            found: Vec::new(),
            drain_commanded: false,
            lost_and_granted: None,
            closed: false,
            owned,
            drain,
            planted,
        }
    }

    /// Passes an event to the role, with the index of a granted lease, and checks that each action keeps the promises.
    pub(super) fn take_in(&mut self, event: Event, lease: Option<usize>) -> Result<Vec<Action>, String> {
        let event = match event {
            Event::LoggedIn(id, facts) if self.planted == Some(Planted::TokenEndLeftOut) => {
                Event::LoggedIn(id, TokenFacts { ttl: None, ..facts })
            }
            event => event,
        };
        self.learn(event)?;
        let mut actions = self.role.handle(self.now, event);
        if let (Event::Granted { sent_at, lease: span, .. }, Some(lease)) = (event, lease) {
            let number = stored(&actions).ok_or("a grant was not taken in")?;
            self.grant(number, lease, sent_at, span)?;
        }
        if let (Event::LeaseLeft { sent_at, lease: span, .. }, Some(lease)) = (event, lease) {
            let number = stored(&actions).ok_or("a lease that was left was not taken in")?;
            promise!(
                actions.iter().any(|action| matches!(action, Action::RevokeLease(n, _) if *n == number)),
                "P6: a lease that was left is not given back"
            );
            self.hold(number, lease, sent_at, span);
        }
        self.plant(event, &mut actions);
        let is_check = matches!(event, Event::Suspected(_) | Event::DenialSeen(_));
        for action in &actions {
            if let Action::NotifySessions(number, ending) = action {
                self.tell(*number, *ending)?;
            }
        }
        let refused = actions.iter().any(|action| matches!(action, Action::RotateFailed(_)));
        for action in &actions {
            self.act(*action, is_check)?;
        }
        if refused {
            self.drain_commanded = false;
        }
        Ok(actions)
    }

    /// The process ends with its sessions and requests. The next process continues from the snapshot.
    pub(super) fn crash(&mut self, kept: &Snapshot) -> Result<(), String> {
        let mut held = std::mem::take(&mut self.held);
        for (number, (old, _)) in GenerationId::all().zip(&kept.generations) {
            let held = held.remove(old).ok_or("kept, and unknown")?;
            let asked_of_it = Held {
                told: None,
                published_at: None,
                proved: false,
                unprovable: false,
                cut: false,
                shut: false,
                open_upstream: false,
                ends_when_empty: false,
                asked: 0,
                ..held
            };
            self.held.insert(number, asked_of_it);
        }
        self.tokens.retain(|id, _| kept.tokens.iter().any(|(kept, _)| kept == id));
        self.unsettled.clear();
        self.sessions.clear();
        self.pending.clear();
        self.found.clear();
        (self.published, self.newest) = (None, None);
        self.drain_commanded = false;
        self.lost_and_granted = None;
        self.role = DynamicRole::resume(self.role.settings().clone(), self.now, kept);
        Ok(())
    }

    /// The answer to a proof of the published credential, or else the next generation without sessions, which is closed
    /// to new sessions. The caller handles the event.
    pub(super) fn left(&mut self) -> Option<Event> {
        if !self.found.is_empty() {
            return Some(self.found.remove(0));
        }
        let sessions = &self.sessions;
        let is_left = |number: GenerationId, held: &Held| {
            !held.shut && held.ends_when_empty && !sessions.values().any(|open| *open == number)
        };
        let (number, held) = self.held.iter_mut().find(|(number, held)| is_left(**number, held))?;
        held.shut = true;
        Some(Event::Empty { number: *number, open_upstream: held.open_upstream })
    }

    fn plant(&mut self, event: Event, actions: &mut Vec<Action>) {
        match (self.planted, event) {
            (Some(Planted::CappedRenewedAgain), Event::LeaseRenewed { number, sent_at, lease, .. })
                if actions.contains(&Action::Note(Note::Renewed { number, lease, capped: true })) =>
            {
                let term = Term::new(sent_at, Some(lease), true, Jitter::NONE);
                self.role.plant_term(number, term);
                actions.extend(self.role.handle(self.now, Event::Tick));
            }
            (Some(Planted::DrainWithoutSuccessor), _) => {
                let Some(number) = self.role.current() else { return };
                let Some(from) = self.role.would_drain_at(self.now) else { return };
                if from <= self.now {
                    let current = self.role.generations().find(|(current, _)| *current == number);
                    let hard_close_at = current.map_or(from, |(_, current)| self.role.hard_close_at(current));
                    actions.push(Action::NotifySessions(
                        number,
                        Ending { hard_close_at, drain_from: Some(from), closing: None },
                    ));
                }
            }
            _ => {}
        }
    }
}
