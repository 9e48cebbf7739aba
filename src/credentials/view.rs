//! What the driver shows of its route. Floor 3.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Generation;
use super::machine::Row;
use super::settings::Serves;
use super::status::{GenerationStatus, LastError, RouteStatus};
use crate::clock;
use crate::lease::{GenerationId, NextAction};
use crate::time::Time;

/// A snapshot of a route, made after each step of its driver.
#[derive(Default)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) serves: Serves,
    pub(super) vault_path: String,
    pub(super) kind: &'static str,
    /// The latest hard close of a usable generation.
    pub(super) runs_until: Option<Time>,
    /// Whether it is meant to have a credential.
    pub(super) is_wanted: bool,
    pub(super) next_action: (NextAction, Option<Time>),
    /// A login that Vault has refused is not asked for before.
    pub(super) login_waits_until: Option<Time>,
    pub(super) last_error: Option<LastError>,
    /// The latest error since a fresh credential came that kept one from coming.
    pub(super) credential_error: Option<LastError>,
    pub(super) unsaved: bool,
    /// Why no session can log in with what is published.
    pub(super) barred: Option<LastError>,
    pub(super) generations: Vec<GenerationView>,
}

/// One generation in a snapshot.
pub(super) struct GenerationView {
    pub(super) generation: Arc<Generation>,
    pub(super) row: Row,
}

impl View {
    pub(super) fn usable_before(&self, now: Time, number: GenerationId) -> Option<Arc<Generation>> {
        self.generations
            .iter()
            .rev()
            .find(|view| {
                view.generation.number() < number && view.row.may_serve && view.generation.is_usable(now)
            })
            .map(|view| Arc::clone(&view.generation))
    }

    /// What is looked at earlier, whether there is another credential for the login, asks Vault nothing.
    fn next_action_at(&self) -> Option<Time> {
        match self.next_action {
            (NextAction::Issue, Some(at)) => Some(self.login_waits_until.map_or(at, |until| until.max(at))),
            (_, at) => at,
        }
    }

    pub(super) fn status(&self, now: Time, is_ready: bool) -> RouteStatus {
        let runway = self.runs_until.map_or(Duration::ZERO, |until| until.since(now));
        let endless = self.runs_until == Some(Time::NEVER);
        RouteStatus {
            name: self.name.clone(),
            user: self.serves.user.clone(),
            database: self.serves.database.clone(),
            upstream: self.serves.upstream.clone(),
            vault_path: self.vault_path.clone(),
            kind: self.kind.to_owned(),
            ready: is_ready,
            runway_seconds: (self.is_wanted && !endless).then(|| runway.as_millis() as f64 / 1000.0),
            sessions: self.generations.iter().map(|view| view.generation.sessions()).sum(),
            next_action: self.next_action.0,
            next_action_at: self.next_action_at().and_then(|at| clock::rfc3339(now, at)),
            last_error: self.barred.clone().or_else(|| self.last_error.clone()),
            credential_error: self.barred.clone().or_else(|| self.credential_error.clone()),
            upstream_error: None,
            unsaved: self.unsaved,
            generations: self.generations.iter().map(|view| view.status(now)).collect(),
        }
    }
}

impl GenerationView {
    fn status(&self, now: Time) -> GenerationStatus {
        GenerationStatus {
            generation: self.generation.number().get(),
            state: self.row.state.to_owned(),
            lease_id: self.generation.lease_id_tail().to_owned(),
            username: self.generation.username().to_owned(),
            issued_at: clock::rfc3339(now, self.row.issued_at).unwrap_or_default(),
            ends_at: clock::rfc3339(now, self.row.ends_at),
            drain_at: self.row.drain_at.and_then(|at| clock::rfc3339(now, at)),
            renewals: self.row.renewals,
            sessions: self.generation.sessions(),
        }
    }
}

/// The present time by the wall clock, as RFC 3339 in UTC.
pub(super) fn wall_now() -> String {
    humantime::format_rfc3339_millis(clock::wall()).to_string()
}

/// Seconds since 1970 by the wall clock; infinity for what never comes.
pub(super) fn unix_seconds(now: Time, at: Time) -> f64 {
    if at == Time::NEVER {
        return f64::INFINITY;
    }
    let wall = clock::wall() + at.since(now);
    wall.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |span| span.as_secs_f64())
}
