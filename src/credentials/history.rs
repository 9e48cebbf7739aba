//! What has happened to a route in the last hour, whether somebody watched or not. Floor 3.
//!
//! The driver of the route writes it at each of its steps, and at least once a second; the admin address reads it. No
//! session does either. Each list has a bound, so that all of it takes at most 128 KiB a route, however many sessions
//! come and go. It begins with the process and ends with it.

mod bins;
mod document;
mod events;
mod lives;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::Generation;
use super::view::GenerationView;
use crate::lease::Note;
use crate::metrics::Tally;
use crate::time::Time;
use bins::Bins;
pub(crate) use document::RouteHistory;
use events::{Events, What};
use lives::Lives;

/// How long things are remembered.
pub(crate) const SPAN: Duration = Duration::from_hours(1);

/// What is counted or sampled is kept in bins of this length.
pub(crate) const BIN: Duration = Duration::from_secs(10);

/// What is remembered of one route.
#[derive(Default)]
pub(super) struct History {
    /// When it began.
    since: Option<Time>,
    lives: Lives,
    events: Events,
    bins: Bins,
    /// The counts at the latest look.
    tally: Option<Tally>,
    unserved: bool,
}

/// The route at one moment.
pub(super) struct Look<'a> {
    pub(super) generations: &'a [GenerationView],
    /// The latest hard close of a usable generation.
    pub(super) runs_until: Option<Time>,
    /// Whether it is meant to have a credential that lets sessions in, and has none.
    pub(super) unserved: bool,
    pub(super) tally: Tally,
}

impl History {
    /// Takes in what is to be seen now.
    pub(super) fn see(&mut self, now: Time, look: &Look<'_>) {
        self.since.get_or_insert(now);
        let before = self.tally.replace(look.tally).unwrap_or(look.tally);
        self.lives.see(now, look.generations);
        self.bins.see(now, look, before);
        if self.unserved != look.unserved {
            self.unserved = look.unserved;
            self.events.add(now, if look.unserved { What::Unserved } else { What::Served });
        }
        let first = now - SPAN;
        self.lives.forget(first);
        self.events.forget(first);
    }

    /// Takes in what the machine reports, of this generation if it is held.
    pub(super) fn note(&mut self, now: Time, note: Note, generation: Option<&Generation>) {
        let sessions = generation.map_or(0, Generation::sessions);
        self.lives.note(now, note, generation);
        self.events.add(now, What::Noted(note, u32::try_from(sessions).unwrap_or(u32::MAX)));
    }

    /// Something has failed: one line without secrets.
    pub(super) fn failed(&mut self, now: Time, line: &str) {
        self.events.failed(now, line);
    }
}
