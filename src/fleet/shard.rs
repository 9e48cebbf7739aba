//! A part of the fleet, and a timer wheel of its sidecars. Floor 6.

use std::time::Duration;

use super::scenario::{BEGIN, Scenario};
use super::servers::{Answer, Call};
use super::sidecar::{Context, Sidecar};
use super::tally::Tally;
use super::verdicts::Verdicts;
use crate::time::Time;

/// The length of a slot of the wheel.
pub(super) const SLOT: Duration = Duration::from_millis(500);
const SLOTS: usize = 8192;

/// Every n-th sidecar of the fleet.
pub(super) struct Shard {
    sidecars: Vec<Sidecar>,
    /// When each sidecar has its next event.
    due_at: Vec<Time>,
    /// The sidecars that may have an event in a slot. Each sidecar is in one slot, or in `active`, or waits for Vault.
    wheel: Vec<Vec<u32>>,
    active: Vec<u32>,
    pub(super) calls: Vec<Call>,
    pub(super) answers: Vec<(Call, Answer)>,
    pub(super) tally: Tally,
    shards: u32,
    /// The next slot to check.
    slot: u64,
}

impl Shard {
    /// The part with this index, of `shards` parts.
    pub(super) fn new(index: u32, shards: u32, sidecars: Vec<Sidecar>, scenario: &Scenario) -> Self {
        debug_assert!(index < shards);
        let mut shard = Self {
            due_at: vec![Time::NEVER; sidecars.len()],
            wheel: vec![Vec::new(); SLOTS],
            active: Vec::new(),
            calls: Vec::new(),
            answers: Vec::new(),
            tally: Tally::new(scenario.span, scenario.bin),
            shards,
            slot: slot_of(BEGIN),
            sidecars,
        };
        for local in 0..u32::try_from(shard.sidecars.len()).unwrap_or(0) {
            let at = shard.sidecars.get(local as usize).map_or(Time::NEVER, Sidecar::next_at);
            shard.plan(local, at);
        }
        shard
    }

    /// The number of sidecars that may have an event in this slot.
    pub(super) fn crowd(&self, slot: u64) -> usize {
        self.wheel.get(place(slot)).map_or(0, Vec::len)
    }

    pub(super) fn active(&self) -> usize {
        self.active.len() + self.answers.len()
    }

    /// Makes each sidecar active that has an event before `until`.
    pub(super) fn wake(&mut self, until: Time) {
        let last = slot_of(until);
        while self.slot < last {
            let Some(slot) = self.wheel.get_mut(place(self.slot)) else { break };
            let due_at = &self.due_at;
            let is_due = |local: &u32| due_at.get(*local as usize).is_some_and(|at| *at < until);
            let (due, later): (Vec<u32>, Vec<u32>) = slot.iter().copied().partition(is_due);
            *slot = later;
            self.active.extend(due);
            self.slot += 1;
        }
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
        self.plan(local, at);
    }

    fn plan(&mut self, local: u32, at: Time) {
        if let Some(due_at) = self.due_at.get_mut(local as usize) {
            *due_at = at;
        }
        // A time beyond the wheel's span is put into the farthest slot, and is skipped there until it is due.
        let slot = slot_of(at).clamp(self.slot, self.slot + SLOTS as u64 - 1);
        let slot = if at == Time::NEVER { self.slot.saturating_sub(1) } else { slot };
        if let Some(slot) = self.wheel.get_mut(place(slot)) {
            slot.push(local);
        }
    }

    /// The remaining life of each credential.
    pub(super) fn runways(&self, now: Time) -> impl Iterator<Item = Duration> {
        self.sidecars.iter().filter_map(move |sidecar| sidecar.runway(now))
    }
}

fn slot_of(at: Time) -> u64 {
    u64::try_from(at.since(Time::from_nanos(0)).as_nanos() / SLOT.as_nanos()).unwrap_or(u64::MAX)
}

fn place(slot: u64) -> usize {
    usize::try_from(slot % SLOTS as u64).unwrap_or(0)
}
