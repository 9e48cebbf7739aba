//! What has happened, one after the other. Floor 3.

use std::collections::VecDeque;

use crate::lease::Note;
use crate::time::Time;

/// The events of the last hour, oldest first.
#[derive(Default)]
pub(super) struct Events {
    events: VecDeque<Event>,
    /// How many were left out as there were too many.
    left_out: u64,
}

/// An event.
pub(super) struct Event {
    pub(super) at: Time,
    pub(super) what: What,
}

/// What has happened.
pub(super) enum What {
    /// The machine's report, and the sessions that its generation had.
    Noted(Note, u32),
    /// Something has failed, so many times for the same reason.
    Failed { line: Box<str>, count: u32, last_at: Time },
    /// New sessions find no usable credential from now on.
    Unserved,
    /// They find one again.
    Served,
}

/// So many events are kept.
const EVENTS: usize = 512;
/// So many of them are failures.
const FAILURES: usize = 48;
/// A line is cut after so many bytes.
const LINE: usize = 240;

impl Events {
    pub(super) fn add(&mut self, at: Time, what: What) {
        if self.events.len() >= EVENTS {
            // Renewals are many, and each says little.
            let renewal = |event: &Event| matches!(event.what, What::Noted(Note::Renewed { .. }, _));
            self.leave_out(renewal);
        }
        self.events.push_back(Event { at, what });
    }

    /// The same failure again is only counted, as long as nothing else has happened but other failures.
    pub(super) fn failed(&mut self, at: Time, line: &str) {
        let line = line.get(..line.floor_char_boundary(LINE)).unwrap_or_default();
        let failures = self.events.iter_mut().rev().map_while(|event| match &mut event.what {
            What::Failed { line, count, last_at } => Some((line, count, last_at)),
            _ => None,
        });
        let mut same = failures.filter(|(known, ..)| ***known == *line);
        if let Some((_, count, last_at)) = same.next() {
            *count = count.saturating_add(1);
            *last_at = at;
            return;
        }
        let is_failure = |event: &Event| matches!(event.what, What::Failed { .. });
        if self.events.iter().filter(|event| is_failure(event)).count() >= FAILURES {
            self.leave_out(is_failure);
        }
        self.add(at, What::Failed { line: line.into(), count: 1, last_at: at });
    }

    /// The oldest of these goes, or else the oldest of all.
    fn leave_out(&mut self, first: impl Fn(&Event) -> bool) {
        let at = self.events.iter().position(first).unwrap_or(0);
        self.events.remove(at);
        self.left_out += 1;
    }

    /// Forgets what was before that.
    pub(super) fn forget(&mut self, first: Time) {
        let is_old = |event: &Event| match event.what {
            What::Failed { last_at, .. } => last_at < first,
            _ => event.at < first,
        };
        while self.events.front().is_some_and(is_old) {
            self.events.pop_front();
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    pub(super) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// What it takes, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        let lines = self.events.iter().map(|event| match &event.what {
            What::Failed { line, .. } => line.len(),
            _ => 0,
        });
        self.events.capacity() * size_of::<Event>() + lines.sum::<usize>()
    }
}
