//! The machine of a route: of a role that is leased, or of a static one. Floor 3.
//!
//! The driver tells it what has happened by [`Machine::handle`], and does what comes back. Everything else that it reads here
//! is for the status and the metrics, for the state file, or for the order in which requests to Vault wait; and
//! [`Machine::is_empty`] says when the driver ends.

use std::time::Duration;

use crate::lease::generation::State;
use crate::lease::{
    Action, Cause, DynamicRole, Event, GenerationId, NextAction, Settings, Snapshot, StaticRole, TokenId,
};
use crate::time::Time;
use crate::vault::RoleKind;

pub(super) enum Machine {
    Dynamic(Box<DynamicRole>),
    Static(Box<StaticRole>),
}

/// What is shown of a generation.
pub(super) struct Row {
    pub(super) number: GenerationId,
    /// Its state in the status and the metric.
    pub(super) state: &'static str,
    /// Whether it is retired, and serves where the current one is not known yet.
    pub(super) may_serve: bool,
    pub(super) issued_at: Time,
    /// [`Time::NEVER`] for a static role.
    pub(super) ends_at: Time,
    pub(super) lease_ends_at: Time,
    /// How long a renewal lasts at most; `None` without an end.
    pub(super) lease_for: Option<Duration>,
    pub(super) drain_at: Option<Time>,
    pub(super) renewals: u32,
}

impl Machine {
    pub(super) fn new(kind: RoleKind, settings: Settings) -> Self {
        match kind {
            RoleKind::Dynamic => Self::Dynamic(Box::new(DynamicRole::new(settings))),
            RoleKind::Static => Self::Static(Box::new(StaticRole::new(settings.seed))),
        }
    }

    /// A leased role whose earlier process has left this behind.
    pub(super) fn resume(settings: Settings, now: Time, left: &Snapshot) -> Self {
        Self::Dynamic(Box::new(DynamicRole::resume(settings, now, left)))
    }

    /// What the next process needs; nothing of a static role, whose password is read again.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        match self {
            Self::Dynamic(machine) => Some(machine.snapshot()),
            Self::Static(_) => None,
        }
    }

    pub(super) fn kind(&self) -> RoleKind {
        match self {
            Self::Dynamic(_) => RoleKind::Dynamic,
            Self::Static(_) => RoleKind::Static,
        }
    }

    pub(super) fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        match self {
            Self::Dynamic(machine) => machine.handle(now, event),
            Self::Static(machine) => machine.handle(now, event),
        }
    }

    pub(super) fn set_settings(&mut self, settings: Settings) {
        match self {
            Self::Dynamic(machine) => machine.set_settings(settings),
            // It has none but its seed.
            Self::Static(_) => {}
        }
    }

    pub(super) fn set_replica_grace(&mut self, grace: Duration) {
        match self {
            Self::Dynamic(machine) => machine.set_replica_grace(grace),
            // A static role's password changes in place.
            Self::Static(_) => {}
        }
    }

    pub(super) fn next_deadline(&self) -> Time {
        match self {
            Self::Dynamic(machine) => machine.next_deadline(),
            Self::Static(machine) => machine.next_deadline(),
        }
    }

    /// The generations that stand on this token.
    pub(super) fn owned_by(&self, token: TokenId) -> Vec<GenerationId> {
        match self {
            Self::Dynamic(machine) => {
                let owned = machine.generations().filter(|(_, generation)| generation.token() == token);
                owned.map(|(number, _)| number).collect()
            }
            Self::Static(machine) => machine.current().into_iter().collect(),
        }
    }

    pub(super) fn token_ends_at(&self, id: TokenId) -> Option<Time> {
        match self {
            Self::Dynamic(machine) => machine.token_ends_at(id),
            Self::Static(machine) => machine.token_ends_at(id),
        }
    }

    /// Whether an attempt at a fresh lease is under way. Nothing is decided by it.
    pub(super) fn is_issuing(&self) -> bool {
        match self {
            Self::Dynamic(machine) => machine.is_issuing(),
            // It has no attempts: its password is read at its times.
            Self::Static(_) => false,
        }
    }

    /// How often an issuance has failed since the latest that did not.
    pub(super) fn failures(&self) -> u32 {
        match self {
            Self::Dynamic(machine) => machine.failures(),
            Self::Static(machine) => machine.failures(),
        }
    }

    /// The end of a lease; `None` where it is not held, or has no end.
    pub(super) fn lease_ends_at(&self, number: GenerationId) -> Option<Time> {
        match self {
            Self::Dynamic(machine) => {
                let mut all = machine.generations();
                all.find(|(held, _)| *held == number).map(|(_, generation)| generation.lease_ends_at())
            }
            Self::Static(_) => None,
        }
    }

    /// Whether it is meant to have a credential.
    pub(super) fn is_wanted(&self) -> bool {
        match self {
            Self::Dynamic(machine) => machine.is_wanted(),
            Self::Static(machine) => machine.is_wanted(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Dynamic(machine) => machine.is_empty(),
            Self::Static(machine) => machine.is_empty(),
        }
    }

    pub(super) fn next_action(&self) -> (NextAction, Time) {
        match self {
            Self::Dynamic(machine) => machine.next_action(),
            Self::Static(machine) => machine.next_action(),
        }
    }

    /// The latest hard close of a usable generation; a static role's password has none.
    pub(super) fn runs_until(&self, now: Time) -> Option<Time> {
        match self {
            Self::Dynamic(machine) => machine.runs_until(now),
            Self::Static(machine) => machine.current().filter(|_| !machine.is_refused()).map(|_| Time::NEVER),
        }
    }

    /// Whether the server refuses the only credential there is. A leased one is replaced.
    pub(super) fn is_refused(&self) -> bool {
        match self {
            Self::Dynamic(_) => false,
            Self::Static(machine) => machine.is_refused(),
        }
    }

    /// What the status shows of the generations, oldest first. It is a view only: what the machine wants done comes as
    /// actions.
    pub(super) fn rows(&self) -> Vec<Row> {
        match self {
            Self::Dynamic(machine) => machine
                .generations()
                .map(|(number, generation)| Row {
                    number,
                    state: state_name(generation.state()),
                    may_serve: generation.may_stand_in(),
                    issued_at: generation.issued_at(),
                    ends_at: machine.hard_close_at(generation),
                    lease_ends_at: generation.lease_ends_at(),
                    lease_for: Some(machine.lease_for(generation)),
                    drain_at: machine.drain_at(generation),
                    renewals: generation.renewals(),
                })
                .collect(),
            Self::Static(machine) => machine
                .generations()
                .map(|(number, password)| Row {
                    number,
                    state: if machine.current() == Some(number) { "current" } else { "retiring" },
                    // An old password lets no session in.
                    may_serve: false,
                    issued_at: password.read_at,
                    ends_at: Time::NEVER,
                    lease_ends_at: Time::NEVER,
                    lease_for: None,
                    drain_at: None,
                    renewals: 0,
                })
                .collect(),
        }
    }
}

/// A generation that is being closed or given back is retiring.
fn state_name(state: State) -> &'static str {
    match state {
        State::Candidate => "candidate",
        State::Standby => "standby",
        State::Current { .. } => "current",
        State::Closing { cause: Cause::Lost, .. } => "lost",
        State::Retiring { .. } | State::Closing { .. } | State::Revoking(_) => "retiring",
    }
}
