//! Breadth-first search of all states that can be reached in a number of steps.
//!
//! Of each state only its hash and the step that led to it are stored. To continue from a state, its steps are
//! repeated. Neighbouring states share most of their steps.

use std::collections::{BTreeSet, HashSet};
use std::fmt::{self, Write};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use super::state::{BEGINNING, Choice, State};
use crate::lease::{Action, Note};

/// The result of the search.
#[derive(Default)]
pub(super) struct Explored {
    /// The number of new states at each depth.
    pub(super) levels: Vec<usize>,
    pub(super) states: usize,
    pub(super) steps: usize,
    /// The kinds of actions of the machine.
    pub(super) kinds: BTreeSet<String>,
}

/// A broken promise.
pub(super) struct Breach {
    pub(super) depth: usize,
    pub(super) promise: String,
    /// The shortest path to it.
    pub(super) trace: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at step {}\n{}", self.promise, self.depth, self.trace)
    }
}

/// A state that was found: its predecessor, and the step that led to it.
struct Met {
    from: u32,
    choice: Choice,
}

/// Explores all states up to this depth. The error is the first broken promise at the least depth.
pub(super) fn explore(first: &State, depth: usize) -> Result<Explored, Breach> {
    let mut met = vec![Met { from: 0, choice: Choice::Wait }];
    let mut visited: HashSet<u128, BuildHasherDefault<Same>> = HashSet::default();
    visited.insert(fingerprint(first));
    let mut explored = Explored { levels: vec![1], ..Explored::default() };
    let mut way = vec![(0, first.clone())];
    let mut choices = Vec::new();
    let mut level = 0..1;
    for steps in 1..=depth {
        for from in level.clone() {
            go_to(&met, from, &mut way);
            let (_, state) = way.last().expect("the first state is never left");
            state.choices(&mut choices);
            for choice in &choices {
                let mut next = state.clone();
                explored.steps += 1;
                let breach = |promise| {
                    let trace = trace(first, &met, from, *choice);
                    Breach { depth: steps, promise, trace }
                };
                let actions = next.step(*choice).map_err(breach)?;
                if visited.insert(fingerprint(&next)) {
                    next.look().map_err(breach)?;
                    explored.note(&actions);
                    met.push(Met { from, choice: *choice });
                }
            }
        }
        level = level.end..u32::try_from(met.len()).expect("fewer states than that");
        explored.levels.push(level.len());
    }
    explored.states = met.len();
    Ok(explored)
}

/// Repeats the steps to a state, from the point where its path leaves the path of the previous state.
fn go_to(met: &[Met], to: u32, way: &mut Vec<(u32, State)>) {
    let path = path(met, to);
    let shared = path.iter().zip(way.iter()).take_while(|(id, (on, _))| *id == on).count();
    way.truncate(shared);
    for id in &path[shared..] {
        let mut state = way.last().expect("all begin with the first").1.clone();
        state.step(met[*id as usize].choice).expect("it was done before");
        way.push((*id, state));
    }
}

/// The states on the path, including the first.
fn path(met: &[Met], to: u32) -> Vec<u32> {
    let mut path = vec![to];
    let mut at = to;
    while at != 0 {
        at = met[at as usize].from;
        path.push(at);
    }
    path.reverse();
    path
}

/// A line for each step: its time, the event, and the actions.
fn trace(first: &State, met: &[Met], from: u32, last: Choice) -> String {
    let mut state = first.clone();
    let mut text = String::new();
    let choices = path(met, from).into_iter().skip(1).map(|id| met[id as usize].choice);
    for choice in choices.chain([last]) {
        let what = match choice {
            Choice::Answer(place, reply) => {
                format!("{:?} is answered: {reply:?}", state.watch.pending[usize::from(place)].action)
            }
            choice => format!("{choice:?}"),
        };
        let done = state.step(choice).map_or_else(|promise| promise, |actions| format!("{actions:?}"));
        let second = state.watch.now.since(BEGINNING).as_secs_f64();
        writeln!(text, "second {second:6.2}: {what}\n    -> {done}").expect("a string takes it");
    }
    text
}

impl Explored {
    fn note(&mut self, actions: &[Action]) {
        for action in actions {
            let kind = match action {
                Action::Note(Note::Published { reason, .. }) => format!("Published {reason:?}"),
                Action::Note(Note::Closing(_, cause)) => format!("Closing {cause:?}"),
                Action::Note(Note::Returned(_, outcome)) => format!("Returned {outcome:?}"),
                Action::Note(Note::Recalled(_)) => "Recalled".to_owned(),
                Action::NotifySessions(_, ending) if ending.drain_from.is_some() => "Draining".to_owned(),
                Action::Answer(_, verdict) => format!("Answer {verdict:?}"),
                Action::RotateFailed(_) => "RotateFailed".to_owned(),
                _ => continue,
            };
            self.kinds.insert(kind);
        }
    }
}

/// Two states that differ only by a shift in time have the same fingerprint.
fn fingerprint(state: &State) -> u128 {
    let mut hasher = Relative { now: state.watch.now.as_nanos(), hash: 0 };
    state.hash(&mut hasher);
    hasher.hash ^ (hasher.hash >> 67)
}

/// Hashes times relative to the time of the state. No other number is as large as a time, since the model begins late.
struct Relative {
    now: u64,
    hash: u128,
}

impl Relative {
    /// An odd number without other meaning.
    const FACTOR: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
}

impl Hasher for Relative {
    fn write_u64(&mut self, n: u64) {
        let is_time = n > BEGINNING.as_nanos() / 2 && n != u64::MAX;
        let n = if is_time { n.wrapping_sub(self.now) ^ 1 << 63 } else { n };
        self.hash = (self.hash ^ u128::from(n)).wrapping_mul(Self::FACTOR).rotate_left(53);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn write_isize(&mut self, n: isize) {
        self.write_u64(n as u64);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u8(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.hash as u64
    }
}

/// A hasher for keys that are hashes already.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes of 128 bits");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
