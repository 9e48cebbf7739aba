//! What is counted and sampled, in bins of ten seconds. Floor 3.

use std::collections::VecDeque;

use super::{BIN, Look, SPAN};
use crate::lease::GenerationId;
use crate::metrics::{CAUSES, Tally};
use crate::time::Time;

/// The bins of the last hour, and the samples of each generation.
#[derive(Default)]
pub(super) struct Bins {
    /// The place of the latest bin, counted since the boot of the machine.
    latest: u32,
    bins: VecDeque<Bin>,
    samples: VecDeque<Sample>,
}

/// What has happened within one bin.
#[derive(Clone, Copy, Default)]
pub(super) struct Bin {
    /// The most sessions at a time that were seen.
    pub(super) sessions: u32,
    pub(super) opened: u32,
    pub(super) login_failures: u32,
    /// By cause, in the order of [`Closed::ALL`](crate::metrics::Closed::ALL).
    pub(super) closed: [u32; CAUSES],
    /// Seconds to the latest hard close of a usable generation at the latest look; `None` without an end.
    pub(super) runway: Option<u32>,
}

/// The most sessions at a time that one generation had within one bin. Without sessions there is none.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    pub(super) bin: u32,
    pub(super) generation: GenerationId,
    pub(super) sessions: u32,
}

/// So many bins hold an hour, and the one that is being filled.
const BINS: usize = (SPAN.as_secs() / BIN.as_secs()) as usize + 1;

/// The length of a bin.
const NANOS: u64 = BIN.as_secs() * 1_000_000_000;

/// Of five generations that have sessions at all times; the oldest samples go first.
const SAMPLES: usize = 2048;

impl Bins {
    pub(super) fn see(&mut self, now: Time, look: &Look<'_>, before: Tally) {
        let place = place(now);
        if self.bins.is_empty() {
            self.latest = place;
        }
        // After a suspend of the machine the bins in between are empty.
        let gap = usize::try_from(place.saturating_sub(self.latest)).unwrap_or(BINS).min(BINS);
        let new = if self.bins.is_empty() { 1 } else { gap };
        self.bins.extend(std::iter::repeat_n(Bin::default(), new));
        self.bins.drain(..self.bins.len().saturating_sub(BINS));
        self.latest = self.latest.max(place);
        self.fill(now, look, before);
        self.sample(look);
    }

    fn fill(&mut self, now: Time, look: &Look<'_>, before: Tally) {
        let Some(bin) = self.bins.back_mut() else { return };
        let sessions: usize = look.generations.iter().map(|view| view.generation.sessions()).sum();
        let grown = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        bin.sessions = bin.sessions.max(count(sessions));
        bin.opened = bin.opened.saturating_add(grown(look.tally.opened, before.opened));
        bin.login_failures =
            bin.login_failures.saturating_add(grown(look.tally.login_failures, before.login_failures));
        for ((sum, now), before) in bin.closed.iter_mut().zip(look.tally.closed).zip(before.closed) {
            *sum = sum.saturating_add(grown(now, before));
        }
        bin.runway = match look.runs_until {
            Some(Time::NEVER) => None,
            until => Some(until.map_or(0, |until| count(until.since(now).as_secs()))),
        };
    }

    fn sample(&mut self, look: &Look<'_>) {
        for view in look.generations {
            let (generation, sessions) = (view.generation.number(), count(view.generation.sessions()));
            if sessions == 0 {
                continue;
            }
            let mut of_this_bin = self.samples.iter_mut().rev().take_while(|known| known.bin == self.latest);
            if let Some(known) = of_this_bin.find(|known| known.generation == generation) {
                known.sessions = known.sessions.max(sessions);
                continue;
            }
            // Room is made first: a list that has grown does not shrink again.
            if self.samples.len() == SAMPLES {
                self.samples.pop_front();
            }
            self.samples.push_back(Sample { bin: self.latest, generation, sessions });
        }
        let first = self.latest.saturating_sub(count(BINS) - 1);
        while self.samples.front().is_some_and(|oldest| oldest.bin < first) {
            self.samples.pop_front();
        }
    }

    /// The bins, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Bin> {
        self.bins.iter()
    }

    /// When the first bin begins; `None` without bins.
    pub(super) fn from(&self) -> Option<Time> {
        let after = count(self.bins.len().checked_sub(1)?);
        Some(begin(self.latest.saturating_sub(after)))
    }

    /// Of one generation: when its first bin begins, and the sessions in that bin and each of the following.
    pub(super) fn of(&self, generation: GenerationId) -> Option<(Time, Vec<u32>)> {
        let mut own = self.samples.iter().filter(|sample| sample.generation == generation).peekable();
        let first = own.peek()?.bin;
        let mut sessions = Vec::new();
        for sample in own {
            sessions.resize(usize::try_from(sample.bin.saturating_sub(first)).unwrap_or(0).min(BINS), 0);
            sessions.push(sample.sessions);
        }
        Some((begin(first), sessions))
    }

    /// What it takes, in bytes.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.bins.capacity() * size_of::<Bin>() + self.samples.capacity() * size_of::<Sample>()
    }
}

fn place(at: Time) -> u32 {
    count(at.as_nanos() / NANOS)
}

fn begin(place: u32) -> Time {
    Time::from_nanos(u64::from(place).saturating_mul(NANOS))
}

fn count(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}
