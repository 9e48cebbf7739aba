//! A model check: it runs not some random orders of events, but all orders up to a number of steps.
//!
//! | | |
//! |---|---|
//! | what may happen, in any order | answers to a login, a grant, a proof, and a renewal or revocation of lease or token: done, capped, forbidden, refused, transient, unprovable, timed out, dead; what was given up is settled, granted or not; sessions open and end; a lease is revoked by hand; `rotate`, with a drain or without; the shutdown; time goes on |
//! | to when | the next of: the machine's deadline, the end of a request's patience, of a lease or token at Vault, of a hard close. It is orders that are explored; times at random are what `properties` has |
//! | bounds | two tokens and two leases in all, one session a generation, one `rotate`, one revocation by hand, the depth |
//! | held to | what `watch` checks after each step, and what `state` checks beyond that: what is published lives, what failed is not asked for again in the same moment, the machine never waits for nothing, and nothing is left behind at the end |
//!
//! Two states are equal if they differ only by a shift in time, or in counts that no decision depends on. All new
//! states are explored breadth first, so a broken promise is found by its shortest path. Three bugs are planted on
//! purpose (`watch::Planted`): a capped renewal renewed again, a token's end left out of `end_at`, and a drain without
//! a successor.
//!
//! `MODEL_DEPTH` in the environment replaces [`DEPTH`].

mod explore;
mod replies;
mod state;

use self::explore::{Breach, Explored, explore};
use self::state::State;
use super::script::settings;
use super::watch::Planted;
use crate::lease::Settings;

/// About a million states; each further step triples them.
const DEPTH: usize = 12;

fn depth() -> usize {
    std::env::var("MODEL_DEPTH").map_or(DEPTH, |depth| depth.parse().expect("MODEL_DEPTH is a number"))
}

fn keeps_every_promise(settings: Settings, depth: usize) -> Explored {
    let explored = explore(&State::new(settings, None), depth).unwrap_or_else(|breach| panic!("{breach}"));
    let Explored { states, steps, levels, .. } = &explored;
    println!("to depth {depth}: {states} states by {steps} steps, {levels:?} new ones at each depth");
    println!("{:?}", explored.kinds);
    explored
}

#[test]
fn every_order_of_events_keeps_every_promise() {
    let explored = keeps_every_promise(settings(), depth());
    if depth() < DEPTH {
        return;
    }
    // The check has really explored the states.
    assert!(explored.states >= 1_000_000, "{} states", explored.states);
    let met = [
        "Published First",
        "Published Command",
        "Published Capped",
        "Published NotRenewable",
        "Published Token",
        "Published Revoked",
        "Draining",
        "Recalled",
        "Closing LeaseEnd",
        "Closing CutShort",
        "Closing Lost",
        "Returned Lease",
        "Returned Token",
        "Returned Forbidden",
        "RotateFailed",
        "Answer Lost",
        "Answer Silent",
    ];
    let missed: Vec<_> = met.iter().filter(|kind| !explored.kinds.contains(**kind)).collect();
    assert!(missed.is_empty(), "never met: {missed:?}");
}

/// With a standby as one of the two credentials there are fewer choices, and fewer states.
#[test]
fn every_order_of_events_with_a_standby_keeps_every_promise() {
    let explored = keeps_every_promise(Settings { standby: true, ..settings() }, depth());
    if depth() >= DEPTH {
        assert!(explored.kinds.contains("Published Standby"));
    }
}

/// The shortest path to a planted bug.
fn breach(planted: Planted) -> Breach {
    let breach = explore(&State::new(settings(), Some(planted)), DEPTH).err().expect("a planted bug");
    println!("{planted:?}: {breach}");
    breach
}

/// The first bug planted on purpose: a capped renewal is renewed again. Its lease has to come to its renewal twice.
#[test]
fn a_capped_renewal_renewed_again_is_found() {
    let breach = breach(Planted::CappedRenewedAgain);
    assert!(breach.promise.contains("renewed again") && breach.depth <= 10, "{breach}");
}

/// The second bug planted on purpose: a token's end is left out of `end_at`.
#[test]
fn a_tokens_end_left_out_of_the_end_is_found() {
    let breach = breach(Planted::TokenEndLeftOut);
    assert!(breach.promise.contains("P2: what is published has ended") && breach.depth <= 5, "{breach}");
}

/// The third bug planted on purpose: a drain without a successor.
#[test]
fn a_drain_without_a_successor_is_found() {
    let breach = breach(Planted::DrainWithoutSuccessor);
    assert!(breach.promise.contains("P3") && breach.depth <= 5, "{breach}");
}
