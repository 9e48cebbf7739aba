//! What the conversations have reached: types of messages, and steps of the phase tracker.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::answer::{Answer, Parts};
use super::script::{End, Script, Step};

/// How often each was there.
#[derive(Default)]
pub(super) struct Coverage {
    frontend: BTreeMap<String, u64>,
    backend: BTreeMap<String, u64>,
    /// From one place of the tracker to the next.
    transitions: BTreeMap<(String, String), u64>,
    ends: BTreeMap<String, u64>,
    /// The server takes a GSSENCRequest at its word, so none was sent.
    no_gss: bool,
}

impl Coverage {
    pub(super) fn new(no_gss: bool) -> Self {
        Self { no_gss, ..Self::default() }
    }

    pub(super) fn note(&mut self, script: &Script, answer: &Answer) {
        let asks = script.start.asks.chars();
        let asked = asks.map(|ask| if ask == 'S' { "SSLRequest" } else { "GSSENCRequest" });
        let cancels = script.steps.iter().filter(|step| **step == Step::Cancel).map(|_| "CancelRequest");
        for packet in asked.chain(["StartupMessage"]).chain(cancels) {
            *self.frontend.entry(packet.to_owned()).or_default() += 1;
        }
        for (of_client, tag, _) in &answer.trace {
            if *of_client {
                *self.frontend.entry(char::from(*tag).to_string()).or_default() += 1;
            }
        }
        if script.end == End::Terminate {
            *self.frontend.entry("X".to_owned()).or_default() += 1;
        }
        for frame in Parts::of(&answer.bytes, script.start.asks.len()).frames {
            *self.backend.entry(frame.tag.to_string()).or_default() += 1;
        }
        for places in leasehold::places(&answer.trace).windows(2) {
            let words = |place: &str| place.split(' ').map(str::to_owned).collect::<Vec<_>>();
            let (from, to) = (words(&places[0]), words(&places[1]));
            // Each part of a place for itself: its mode, its status, what was since, whether it is unsure.
            for at in 0..4 {
                let part = |place: &[String]| place.get(at).map_or("sure", String::as_str).to_owned();
                let (from, to) = (part(&from), part(&to));
                if from != to {
                    *self.transitions.entry((from, to)).or_default() += 1;
                }
            }
        }
        *self.ends.entry(format!("{:?}", script.end)).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: Self) {
        let into = |all: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>| {
            more.into_iter().for_each(|(what, count)| *all.entry(what).or_default() += count);
        };
        into(&mut self.frontend, other.frontend);
        into(&mut self.backend, other.backend);
        into(&mut self.ends, other.ends);
        for (what, count) in other.transitions {
            *self.transitions.entry(what).or_default() += count;
        }
    }

    /// The types of messages that were there, in hundredths of all that there are.
    pub(super) fn types(&self) -> usize {
        let all = FRONTEND.len() + BACKEND.len() - usize::from(self.no_gss);
        (all - self.missing_types().len()) * 100 / all
    }

    pub(super) fn missing_types(&self) -> Vec<String> {
        let possible = FRONTEND.iter().filter(|what| !(self.no_gss && **what == "GSSENCRequest"));
        let frontend = possible.filter(|what| !self.frontend.contains_key(**what));
        let backend = BACKEND.iter().filter(|what| !self.backend.contains_key(**what));
        frontend
            .map(|what| format!("client's {what}"))
            .chain(backend.map(|what| format!("server's {what}")))
            .collect()
    }

    pub(super) fn missing_transitions(&self) -> BTreeSet<(&'static str, &'static str)> {
        let there = |(from, to): &(&str, &str)| {
            self.transitions.contains_key(&((*from).to_owned(), (*to).to_owned()))
        };
        TRANSITIONS.iter().copied().filter(|step| !there(step)).collect()
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, u64>| {
            counts.iter().map(|(what, count)| format!("{what} {count}")).collect::<Vec<_>>().join(", ")
        };
        writeln!(f, "types of messages: {} %, missing: {:?}", self.types(), self.missing_types())?;
        writeln!(f, "  of the client: {}", list(&self.frontend))?;
        writeln!(f, "  of the server: {}", list(&self.backend))?;
        let steps =
            self.transitions.iter().map(|((from, to), count)| (format!("{from} > {to}"), *count)).collect();
        writeln!(f, "steps of the phase: {}", list(&steps))?;
        write!(f, "ends: {}", list(&self.ends))
    }
}

/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>, without those of authentication: a client of
/// leasehold has none.
const FRONTEND: &[&str] = &[
    "StartupMessage",
    "SSLRequest",
    "GSSENCRequest",
    "CancelRequest",
    "P",
    "B",
    "D",
    "E",
    "C",
    "H",
    "S",
    "Q",
    "F",
    "d",
    "c",
    "f",
    "X",
];
/// CopyBothResponse is the one that is left out: what a server streams for replication is never the same twice.
const BACKEND: &[&str] = &[
    "R", "K", "S", "Z", "1", "2", "3", "C", "D", "E", "G", "H", "I", "N", "A", "T", "V", "c", "d", "n", "s",
    "t", "v",
];
/// Those of the charts in `postgres::protocol::phase`.
const TRANSITIONS: &[(&str, &str)] = &[
    ("answering", "copy_in"),
    ("answering", "skipping"),
    ("answering", "lost"),
    ("copy_in", "answering"),
    ("copy_in", "skipping"),
    ("copy_in", "lost"),
    ("skipping", "answering"),
    ("skipping", "lost"),
    ("idle", "in_transaction"),
    ("in_transaction", "idle"),
    ("nothing", "requests"),
    ("requests", "nothing"),
    ("requests", "extended_replies"),
    ("extended_replies", "requests"),
    ("extended_replies", "nothing"),
    ("sure", "unsure"),
    ("unsure", "sure"),
];
