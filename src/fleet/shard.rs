//! A part of the fleet: its sidecars, and which of them has an event when. Floor 6.

use std::time::Duration;

use super::scenario::{BEGIN, Scenario};
use super::servers::{Answer, Call};
use super::sidecar::{Context, Sidecar};
use super::tally::Tally;
use super::verdicts::Verdicts;
use super::wheel::Wheel;
use crate::time::Time;

/// Every n-th sidecar of the fleet.
pub(super) struct Shard {
    sidecars: Vec<Sidecar>,
    /// When each sidecar has its next event, unless it is in `active` or waits for Vault.
    wheel: Wheel,
    active: Vec<u32>,
    pub(super) calls: Vec<Call>,
    pub(super) answers: Vec<(Call, Answer)>,
    pub(super) tally: Tally,
    shards: u32,
}

impl Shard {
    /// The part with this index, of `shards` parts.
    pub(super) fn new(index: u32, shards: u32, sidecars: Vec<Sidecar>, scenario: &Scenario) -> Self {
        debug_assert!(index < shards);
        let mut shard = Self {
            wheel: Wheel::new(BEGIN, sidecars.len()),
            active: Vec::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            tally: Tally::new(scenario.span, scenario.bin),
            shards,
            sidecars,
        };
        for local in 0..u32::try_from(shard.sidecars.len()).unwrap_or(0) {
            let at = shard.sidecars.get_mut(local as usize).map_or(Time::NEVER, Sidecar::next_at);
            shard.wheel.plan(local, at);
        }
        shard
    }

    /// The number of sidecars that may have an event in this slot.
    pub(super) fn crowd(&self, slot: u64) -> usize {
        self.wheel.crowd(slot)
    }

    pub(super) fn active(&self) -> usize {
        self.active.len() + self.answers.len()
    }

    /// Makes each sidecar active that has an event before `until`.
    pub(super) fn wake(&mut self, until: Time) {
        self.wheel.wake(until, &mut self.active);
    }

    /// Delivers Vault's answers. Each active sidecar then runs until it waits for another answer, or has no event
    /// before `until`.
    pub(super) fn go_on(&mut self, until: Time, scenario: &Scenario, verdicts: &Verdicts) {
        let mut answers = std::mem::take(&mut self.answers);
        for (call, answer) in answers.drain(..) {
            let local = call.sidecar / self.shards;
            let Some(sidecar) = self.sidecars.get_mut(local as usize) else { continue };
            sidecar.take_answer(&call, answer);
            if !sidecar.is_waiting() {
                self.active.push(local);
            }
        }
        self.answers = answers;
        let mut active = std::mem::take(&mut self.active);
        for local in active.drain(..) {
            self.run(local, until, scenario, verdicts);
        }
        self.active = active;
    }

    fn run(&mut self, local: u32, until: Time, scenario: &Scenario, verdicts: &Verdicts) {
        let Some(sidecar) = self.sidecars.get_mut(local as usize) else { return };
        let (tally, calls) = (&mut self.tally, &mut self.calls);
        let mut context = Context { now: BEGIN, scenario, verdicts, tally, calls };
        let at = loop {
            let at = sidecar.next_at();
            if at >= until {
                break at;
            }
            context.now = at.max(context.now);
            sidecar.step(&mut context);
            if sidecar.is_waiting() {
                return;
            }
        };
        self.wheel.plan(local, at);
    }

    /// The remaining life of each credential.
    pub(super) fn runways(&self, now: Time) -> impl Iterator<Item = Duration> {
        self.sidecars.iter().filter_map(move |sidecar| sidecar.runway(now))
    }
}
