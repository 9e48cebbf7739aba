//! What has happened to a route, as the admin address says it. Times are RFC 3339 in UTC. Floor 3.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;

use super::events::{Event, What};
use super::lives::Life;
use super::{BIN, History};
use crate::clock;
use crate::lease::{Cause, GenerationId, Note, Outcome, Reason};
use crate::metrics::Closed;
use crate::time::Time;

/// What is remembered of one route.
#[derive(Debug, Serialize)]
pub(crate) struct RouteHistory {
    name: String,
    /// When it began; null before the first look.
    since: Option<String>,
    generations: Vec<GenerationHistory>,
    events: Vec<EventHistory>,
    bins: BinsHistory,
    /// How many generations and events of the hour are missing, as there were too many.
    left_out: u64,
}

/// One generation.
#[derive(Debug, Serialize)]
struct GenerationHistory {
    generation: u64,
    /// As in the status, or `gone`.
    state: &'static str,
    username: String,
    lease_id: String,
    issued_at: String,
    reason: Option<&'static str>,
    proved: Option<bool>,
    published_at: Option<String>,
    retired_at: Option<String>,
    drain_at: Option<String>,
    /// Null where it has no end.
    ends_at: Option<String>,
    renewals: u32,
    closed_at: Option<String>,
    closed_cause: Option<&'static str>,
    gone_at: Option<String>,
    /// How its lease was given back.
    outcome: Option<&'static str>,
    sessions: usize,
    /// The most sessions in each bin from that time on; missing without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    density: Option<Density>,
}

#[derive(Debug, Serialize)]
struct Density {
    from: String,
    sessions: Vec<u32>,
}

/// One event. What an event of its kind does not have is missing.
#[derive(Debug, Default, Serialize)]
struct EventHistory {
    at: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    /// A reason, a cause or an outcome: a word of the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    word: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sessions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl_seconds: Option<u64>,
    /// What has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_at: Option<String>,
}

/// What was counted and sampled. Each list has one number a bin, oldest first.
#[derive(Debug, Serialize)]
struct BinsHistory {
    from: Option<String>,
    seconds: u64,
    sessions: Vec<u32>,
    opened: Vec<u32>,
    login_failures: Vec<u32>,
    /// Null where there is no end.
    runway_seconds: Vec<Option<u32>>,
    /// By cause; one that did not occur is missing.
    closed: BTreeMap<&'static str, Vec<u32>>,
}

impl History {
    /// As it is now.
    pub(in crate::credentials) fn document(&self, name: &str, now: Time) -> RouteHistory {
        let wall = Wall { now, wall: clock::wall() };
        RouteHistory {
            name: name.to_owned(),
            since: self.since.and_then(|since| wall.says(since)),
            generations: self.lives.all().map(|life| self.generation(life, &wall)).collect(),
            events: self.events.all().map(|event| event_history(event, &wall)).collect(),
            bins: self.bins_history(&wall),
            left_out: self.lives.left_out() + self.events.left_out(),
        }
    }

    fn generation(&self, life: &Life, wall: &Wall) -> GenerationHistory {
        let at = |time: Option<Time>| time.and_then(|time| wall.says(time));
        let density = self.bins.of(life.number);
        GenerationHistory {
            generation: life.number.get(),
            state: if life.gone_at.is_some() { "gone" } else { life.state },
            username: life.username.to_string(),
            lease_id: life.lease_id.to_string(),
            issued_at: wall.says(life.issued_at).unwrap_or_default(),
            reason: life.reason.map(Reason::as_str),
            proved: life.proved,
            published_at: at(life.published_at),
            retired_at: at(life.retired_at),
            drain_at: at(life.drain_at),
            ends_at: wall.says(life.ends_at),
            renewals: life.renewals,
            closed_at: at(life.closed.map(|(closed, _)| closed)),
            closed_cause: life.closed.map(|(_, cause)| word_of_cause(cause)),
            gone_at: at(life.gone_at),
            outcome: life.outcome.map(word_of_outcome),
            sessions: life.sessions,
            density: density.and_then(|(from, sessions)| Some(Density { from: wall.says(from)?, sessions })),
        }
    }

    fn bins_history(&self, wall: &Wall) -> BinsHistory {
        let bins = || self.bins.all();
        let closed = Closed::ALL.iter().enumerate().filter_map(|(at, cause)| {
            let counts: Vec<u32> =
                bins().map(|bin| bin.closed.get(at).copied().unwrap_or_default()).collect();
            counts.iter().any(|count| *count > 0).then_some((cause.as_str(), counts))
        });
        BinsHistory {
            from: self.bins.from().and_then(|from| wall.says(from)),
            seconds: BIN.as_secs(),
            sessions: bins().map(|bin| bin.sessions).collect(),
            opened: bins().map(|bin| bin.opened).collect(),
            login_failures: bins().map(|bin| bin.login_failures).collect(),
            runway_seconds: bins().map(|bin| bin.runway).collect(),
            closed: closed.collect(),
        }
    }
}

fn event_history(event: &Event, wall: &Wall) -> EventHistory {
    let at = wall.says(event.at).unwrap_or_default();
    match &event.what {
        What::Noted(note, sessions) => EventHistory { at, ..noted(*note, *sessions) },
        What::Failed { line, count, last_at } => EventHistory {
            at,
            kind: "failed",
            line: Some(line.to_string()),
            count: Some(*count),
            last_at: wall.says(*last_at),
            ..EventHistory::default()
        },
        What::Unserved => EventHistory { at, kind: "unserved", ..EventHistory::default() },
        What::Served => EventHistory { at, kind: "served", ..EventHistory::default() },
    }
}

fn noted(note: Note, sessions: u32) -> EventHistory {
    let of = |kind, number: GenerationId| EventHistory {
        kind,
        generation: Some(number.get()),
        ..EventHistory::default()
    };
    let word = |word: &'static str, event: EventHistory| EventHistory { word: Some(word), ..event };
    match note {
        Note::Issuing(reason) => {
            EventHistory { kind: "issuing", word: Some(reason.as_str()), ..EventHistory::default() }
        }
        Note::Published { number, reason, proved, .. } => {
            word(reason.as_str(), of(if proved { "published" } else { "published_unproved" }, number))
        }
        Note::StandsBy(number) => of("stands_by", number),
        Note::Renewed { number, lease, capped } => EventHistory {
            ttl_seconds: Some(lease.as_secs()),
            ..of(if capped { "renewed_capped" } else { "renewed" }, number)
        },
        Note::TokenEnding(_) => EventHistory { kind: "token_ending", ..EventHistory::default() },
        Note::TokenOfNoUse(_) => EventHistory { kind: "token_of_no_use", ..EventHistory::default() },
        Note::Lost(number) => of("lost", number),
        Note::TooShort(number) => of("too_short", number),
        Note::CandidateRefused(number) => of("refused", number),
        Note::NotTakenUp(number) => of("not_taken_up", number),
        Note::Closing(number, cause) => {
            let event = word(word_of_cause(cause), of("closing", number));
            EventHistory { sessions: Some(sessions), ..event }
        }
        Note::Returned(number, outcome) => word(word_of_outcome(outcome), of("returned", number)),
        Note::Recalled(number) => of("recalled", number),
        Note::WantedAgain(number) => of("wanted_again", number),
    }
}

fn word_of_cause(cause: Cause) -> &'static str {
    Closed::from(cause).as_str()
}

fn word_of_outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Lease => "lease",
        Outcome::Token => "token",
        Outcome::Unverified => "unverified",
        Outcome::Stays => "stays",
        Outcome::Forbidden => "forbidden",
        Outcome::Failed => "failed",
    }
}

/// The wall clock at one moment of the other.
struct Wall {
    now: Time,
    wall: SystemTime,
}

impl Wall {
    /// None for what never comes.
    fn says(&self, at: Time) -> Option<String> {
        if at == Time::NEVER {
            return None;
        }
        let wall = if at >= self.now {
            self.wall.checked_add(at.since(self.now))?
        } else {
            self.wall.checked_sub(self.now.since(at))?
        };
        Some(humantime::format_rfc3339_millis(wall).to_string())
    }
}
