//! What is remembered of a route, and how much room that takes. Time is an argument, so an hour takes no time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;

use super::*;
use crate::credentials::machine::Row;
use crate::lease::{Cause, GenerationId, Reason};
use crate::metrics::CAUSES;
use crate::secret::Secret;
use crate::vault::Lease;

const SECOND: Duration = Duration::from_secs(1);

/// The bound that the documents state.
const MOST_BYTES: usize = 128 * 1024;

fn at(second: u64) -> Time {
    // Within a bin, not at its begin.
    Time::from_nanos(0) + Duration::from_secs(1_000_003 + second)
}

fn generation(number: u64) -> Arc<Generation> {
    let lease = Lease::new(format!("database/creds/app/lease{number:08}"), "database/creds/app");
    let name = format!("v-approle-app-role-{number:044}");
    assert_eq!(name.len(), 63, "the longest that a server takes");
    let left = Arc::new(Notify::new());
    Generation::new(
        GenerationId::new(number),
        name,
        Secret::new("secret".to_owned()),
        lease,
        Time::NEVER,
        left,
    )
}

fn view(generation: &Arc<Generation>, state: &'static str, issued: u64) -> GenerationView {
    let row = Row {
        number: generation.number(),
        state,
        may_serve: false,
        issued_at: at(issued),
        ends_at: at(issued + 3600),
        lease_ends_at: at(issued + 3605),
        lease_for: Some(Duration::from_secs(3605)),
        drain_at: None,
        renewals: 0,
    };
    GenerationView { generation: Arc::clone(generation), row }
}

fn look(generations: &[GenerationView]) -> Look<'_> {
    let runs_until = generations.last().map(|view| view.row.ends_at);
    Look { generations, runs_until, unserved: generations.is_empty(), tally: Tally::default() }
}

fn published(number: u64) -> Note {
    let number = GenerationId::new(number);
    Note::Published { number, reason: Reason::Schedule, proved: true, successor: true }
}

impl History {
    fn size(&self) -> usize {
        size_of::<Self>() + self.lives.size() + self.events.size() + self.bins.size()
    }

    fn json(&self, now: Time) -> Value {
        serde_json::to_value(self.document("app", now)).unwrap()
    }
}

fn kinds(json: &Value) -> Vec<&str> {
    json["events"].as_array().unwrap().iter().map(|event| event["kind"].as_str().unwrap()).collect()
}

#[test]
fn what_has_gone_is_remembered_for_an_hour_and_then_forgotten() {
    let mut history = History::default();
    let (first, second) = (generation(1), generation(2));
    history.see(at(0), &look(&[view(&first, "current", 0)]));
    history.note(at(60), published(2), Some(&second));
    history.see(at(60), &look(&[view(&first, "retiring", 0), view(&second, "current", 60)]));
    history.note(at(90), Note::Closing(GenerationId::new(1), Cause::LeaseEnd), Some(&first));
    history.see(at(90), &look(&[view(&second, "current", 60)]));

    let json = history.json(at(100));

    assert_eq!(kinds(&json), ["published", "closing"]);
    let lives = json["generations"].as_array().unwrap();
    assert_eq!((lives[0]["state"].as_str(), lives[1]["state"].as_str()), (Some("gone"), Some("current")));
    assert_eq!(lives[0]["closed_cause"], "lease_end");
    assert_eq!((&lives[1]["reason"], &lives[1]["proved"]), (&Value::from("schedule"), &Value::from(true)));
    assert!(lives[0]["retired_at"].is_string() && lives[0]["gone_at"].is_string(), "{json}");

    history.see(at(3700), &look(&[view(&second, "current", 60)]));

    let json = history.json(at(3700));
    assert_eq!(kinds(&json), Vec::<&str>::new());
    assert_eq!(json["generations"].as_array().unwrap().len(), 1);
    assert_eq!(json["bins"]["sessions"].as_array().unwrap().len(), 361, "the gap is filled");
}

#[test]
fn sessions_are_counted_from_the_first_look_on_by_bin_and_cause() {
    let mut history = History::default();
    let tally = |opened, drained| {
        let mut closed = [0; CAUSES];
        closed[2] = drained;
        Tally { opened, login_failures: 0, closed }
    };
    // A route of the same name before it has counted too.
    for (second, opened, drained) in [(0, 7, 3), (1, 9, 3), (5, 9, 4), (12, 10, 6), (40, 10, 6)] {
        history.see(at(second), &Look { tally: tally(opened, drained), ..look(&[]) });
    }
    let bins = &history.json(at(40))["bins"];
    assert_eq!(bins["opened"], serde_json::json!([2, 1, 0, 0, 0]));
    assert_eq!(bins["closed"], serde_json::json!({"drain": [1, 2, 0, 0, 0]}));
}

#[test]
fn each_generation_has_its_own_density() {
    let mut history = History::default();
    let (first, second) = (generation(1), generation(2));
    let guards = [first.enter().unwrap(), first.enter().unwrap()];
    history.see(at(0), &look(&[view(&first, "current", 0)]));
    let [one, other] = guards;
    drop(other);
    let another = second.enter().unwrap();
    history.see(at(22), &look(&[view(&first, "retiring", 0), view(&second, "current", 20)]));
    drop((one, another));
    history.see(at(30), &look(&[view(&first, "retiring", 0), view(&second, "current", 20)]));

    let json = history.json(at(30));

    let densities: Vec<_> =
        json["generations"].as_array().unwrap().iter().map(|life| &life["density"]).collect();
    assert_eq!(densities[0]["sessions"], serde_json::json!([2, 0, 1]));
    assert_eq!(densities[1]["sessions"], serde_json::json!([1]));
}

#[test]
fn a_failure_that_repeats_is_one_event_until_something_else_happens() {
    let mut history = History::default();
    history.see(at(0), &look(&[]));
    for second in 1..=20 {
        history.failed(at(second), "renew: no answer in time");
        history.failed(at(second), "log in: no answer in time");
    }
    history.see(at(30), &look(&[view(&generation(1), "current", 30)]));
    history.failed(at(31), "renew: no answer in time");

    let json = history.json(at(40));

    assert_eq!(kinds(&json), ["unserved", "failed", "failed", "served", "failed"]);
    let counts: Vec<_> =
        json["events"].as_array().unwrap().iter().map(|event| event["count"].as_u64()).collect();
    assert_eq!(counts, [None, Some(20), Some(20), None, Some(1)]);
}

#[test]
fn renewals_make_room_for_what_says_more() {
    let mut history = History::default();
    history.note(at(0), published(1), Some(&generation(1)));
    for second in 1..1000 {
        let number = GenerationId::new(1);
        history.note(at(second), Note::Renewed { number, lease: SECOND, capped: false }, None);
    }
    let json = history.json(at(1000));
    assert_eq!(kinds(&json)[0], "published");
    assert_eq!(json["left_out"], 488);
}

#[test]
fn however_much_happens_it_takes_no_more_than_the_bound() {
    let mut history = History::default();
    let mut held = Vec::new();
    for second in 0..4000 {
        // A rotation each second, and thousands of sessions on each generation.
        let new = generation(second + 1);
        held.push(view(&new, "current", second));
        held.drain(..held.len().saturating_sub(12));
        let guards: Vec<_> = held.iter().filter_map(|view| view.generation.enter()).collect();
        history.note(at(second), published(second + 1), Some(&new));
        history.failed(at(second), &format!("{second}{}", "é".repeat(1000)));
        let tally = Tally { opened: second * 1000, login_failures: second, closed: [second * 100; CAUSES] };
        history.see(at(second), &Look { tally, ..look(&held) });
        assert!(history.size() < MOST_BYTES, "{} after {second}", history.size());
        drop(guards);
    }
    let text = serde_json::to_string(&history.document("app", at(4000))).unwrap();
    assert!(text.len() < 256 * 1024, "{}", text.len());
    assert!(!text.contains("secret"));
}
