//! Simulates a fleet and its Vault in windows of time. In each window the sidecars run in parallel; then Vault answers
//! their requests in the order of sending. This repeats until no sidecar has an event left in the window. Floor 6.
//!
//! A sidecar with an open request does not continue before its answer, so each sidecar goes through its own time in
//! order, and nothing is rounded to windows. Only the length of Vault's queue may differ by requests of other sidecars
//! that were sent a little earlier in the same window; windows are short while there is a queue. Equal scenarios give
//! equal results with any number of threads.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use super::dice::Dice;
use super::scenario::{BEGIN, Scenario, Starts};
use super::servers::{Answer, Call, Vault};
use super::shard::Shard;
use super::sidecar::Sidecar;
use super::tally::Tally;
use super::verdicts::Verdicts;
use super::wheel::SLOT;
use crate::time::Time;

/// The number of parts that run in parallel.
const SHARDS: u32 = 2;
/// Fewer active sidecars than this run on the calling thread.
const WORTH_A_THREAD: usize = 256;
/// The most slots of a window, and the number of due sidecars at which it ends earlier.
const LONGEST: u64 = 60;
const CROWD: usize = 512;

/// The remaining life of credentials at one moment, in seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Runway {
    pub(super) at: Time,
    pub(super) mean: f64,
    /// What 99 % of the credentials have at least.
    pub(super) most_have: f64,
    pub(super) least: f64,
}

/// Vault's queue at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backlog {
    pub(super) at: Time,
    pub(super) waiting: u32,
    pub(super) wait: Duration,
}

/// The result of a simulation.
pub(super) struct Outcome {
    pub(super) tally: Tally,
    pub(super) runways: Vec<Runway>,
    pub(super) backlogs: Vec<Backlog>,
}

/// Runs a simulation.
pub(super) fn run(scenario: &Scenario) -> Outcome {
    let verdicts = &Verdicts::new();
    let (shards, runways, backlogs) = std::thread::scope(|scope| {
        let (jobs, for_second) = sync_channel::<Job>(1);
        let (done, by_second) = sync_channel(1);
        let second = move || {
            for Job { mut shard, until } in for_second {
                shard.go_on(until, scenario, verdicts);
                if done.send(shard).is_err() {
                    break;
                }
            }
        };
        scope.spawn(second);
        let mut world = World::new(scenario, verdicts, Second { jobs, done: by_second });
        while world.now < scenario.ends_at() {
            let until = world.window();
            world.pass(until);
        }
        let World { shards, runways, backlogs, .. } = world;
        (shards, runways, backlogs)
    });
    let mut tally = Tally::new(scenario.span, scenario.bin);
    for shard in &shards {
        tally.add(&shard.tally);
    }
    Outcome { tally, runways, backlogs }
}

/// A shard that runs on the second thread, up to this time.
struct Job {
    shard: Shard,
    until: Time,
}

/// The second thread.
struct Second {
    jobs: SyncSender<Job>,
    done: Receiver<Shard>,
}

struct World<'a> {
    scenario: &'a Scenario,
    verdicts: &'a Verdicts,
    shards: Vec<Shard>,
    second: Second,
    vault: Vault,
    now: Time,
    turning_points: Vec<Time>,
    runways: Vec<Runway>,
    sampled_at: Time,
    backlogs: Vec<Backlog>,
    calls: Vec<Call>,
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, verdicts: &'a Verdicts, second: Second) -> Self {
        let mut dice = Dice::new(scenario.seed, 0);
        let mut parts: Vec<Vec<Sidecar>> = (0..SHARDS).map(|_| Vec::new()).collect();
        for number in 0..scenario.sidecars {
            let span = match scenario.starts {
                Starts::Grown(span) | Starts::Within(span) => span,
            };
            let sidecar = Sidecar::new(number, scenario, BEGIN + dice.of(span));
            if let Some(part) = parts.get_mut((number % SHARDS) as usize) {
                part.push(sidecar);
            }
        }
        let shards = (0..SHARDS).zip(parts).map(|(index, part)| Shard::new(index, SHARDS, part, scenario));
        Self {
            scenario,
            verdicts,
            shards: shards.collect(),
            second,
            vault: Vault::new(),
            now: BEGIN,
            turning_points: scenario.turning_points(),
            runways: Vec::new(),
            sampled_at: BEGIN,
            backlogs: Vec::new(),
            calls: Vec::new(),
        }
    }

    /// The end of the next window. Windows are short while there is a queue, and never pass a turning point.
    fn window(&mut self) -> Time {
        let (_, wait) = self.vault.queue(self.now);
        let is_tense = wait > Duration::from_millis(20) || self.scenario.vault.quota.is_some();
        let first = self.now.as_nanos() / slot_nanos();
        let mut slots = 0;
        let mut crowd = 0;
        while slots < 1 || (slots < LONGEST && crowd < CROWD && !is_tense) {
            crowd += self.shards.iter().map(|shard| shard.crowd(first + slots)).sum::<usize>();
            slots += 1;
        }
        let end = Time::from_nanos((first + slots) * slot_nanos());
        let next = self.turning_points.iter().filter(|at| **at > self.now).min();
        next.map_or(end, |at| end.min(*at)).min(self.scenario.ends_at())
    }

    fn pass(&mut self, until: Time) {
        self.vault.begin_window();
        for shard in &mut self.shards {
            shard.wake(until);
        }
        while self.shards.iter().any(|shard| shard.active() > 0) {
            self.go_on(until);
            self.answer();
        }
        self.now = until;
        self.sample();
    }

    /// Runs all active sidecars.
    fn go_on(&mut self, until: Time) {
        let (scenario, verdicts) = (self.scenario, self.verdicts);
        if self.shards.iter().map(Shard::active).sum::<usize>() < WORTH_A_THREAD {
            for shard in &mut self.shards {
                shard.go_on(until, scenario, verdicts);
            }
            return;
        }
        // A shard that was handed over comes back, unless its thread has panicked, which ends the simulation anyway.
        let is_away =
            self.shards.pop().is_some_and(|shard| self.second.jobs.send(Job { shard, until }).is_ok());
        for shard in &mut self.shards {
            shard.go_on(until, scenario, verdicts);
        }
        if is_away {
            self.shards.extend(self.second.done.recv());
        }
    }

    /// Lets Vault answer the requests.
    fn answer(&mut self) {
        for shard in &mut self.shards {
            self.calls.append(&mut shard.calls);
        }
        self.calls.sort_unstable_by_key(|call| (call.at, call.sidecar, call.task));
        for call in self.calls.drain(..) {
            debug_assert!(call.at + SLOT >= self.now, "requests are sent in the window of their time");
            let answer: Answer = self.vault.answer(self.scenario, &call);
            if let Some(shard) = self.shards.get_mut((call.sidecar % SHARDS) as usize) {
                shard.answers.push((call, answer));
            }
        }
    }

    /// Samples the queue each minute, and the remaining life of credentials some hundred times.
    fn sample(&mut self) {
        let (waiting, wait) = self.vault.queue(self.now);
        let minute = |at: Time| at.since(BEGIN).as_secs() / 60;
        match self.backlogs.last_mut().filter(|last| minute(last.at) == minute(self.now)) {
            Some(last) => {
                last.waiting = last.waiting.max(waiting);
                last.wait = last.wait.max(wait);
            }
            None => self.backlogs.push(Backlog { at: self.now, waiting, wait }),
        }
        if self.now < self.sampled_at {
            return;
        }
        self.sampled_at = self.now + (self.scenario.span / SAMPLES).max(Duration::from_secs(10));
        let now = self.now;
        let mut all: Vec<f64> = self
            .shards
            .iter()
            .flat_map(|shard| shard.runways(now))
            .map(|runway| runway.as_secs_f64())
            .collect();
        if all.is_empty() {
            return;
        }
        let hundredth = all.len() / 100;
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let (below, most_have, _) = all.select_nth_unstable_by(hundredth, f64::total_cmp);
        let least = below.iter().copied().fold(*most_have, f64::min);
        self.runways.push(Runway { at: now, mean, most_have: *most_have, least });
    }
}

const SAMPLES: u32 = 400;

fn slot_nanos() -> u64 {
    u64::try_from(SLOT.as_nanos()).unwrap_or(1)
}
