//! What a process leaves when it ends without a shutdown, and how the next process continues.

use std::time::Duration;

use super::script::*;
use crate::lease::Cause;
use crate::lease::{
    Action, DrainSpan, Event, Failure, GenerationId, LeaseLookup, Note, Outcome, Reason, Settings, Snapshot,
};

const LEASE: f64 = 105.0;

/// Generation 1 under token 1 serves since second 0; the process ends at second 20.
fn crashed(settings: Settings) -> Story {
    Story::serving(settings, LEASE, own(100_000.0)).crash(20.0)
}

fn serves(kept: &Snapshot) -> Vec<(GenerationId, bool)> {
    kept.generations.iter().map(|(number, kept)| (*number, kept.serves)).collect()
}

#[test]
fn the_current_generation_is_proved_and_published_and_nothing_is_issued() {
    let mut story = crashed(settings());
    let ends_at = story.hard_close_at(G1);
    story.at(20.0, Event::Tick).does([Action::Prove(G1)]);
    story.at(20.5, Event::Proved(G1)).does([Action::Publish(G1)]).notes(Note::Published {
        number: G1,
        reason: Reason::TakenUp,
        proved: true,
        successor: false,
    });
    assert_eq!((story.hard_close_at(G1), story.role.current()), (ends_at, Some(G1)));
    // Two thirds of the usable life of the grant of second 0, as without the crash.
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
}

#[test]
fn what_is_kept_is_what_comes_back() {
    let mut story = Story::serving(settings(), LEASE, own(100_000.0));
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(66.0, renewed(G1, 66.0, LEASE));
    let kept = story.role.snapshot();
    let mut story = story.crash(70.0);
    assert_eq!(story.role.snapshot(), kept);
    story.at(70.0, Event::Tick);
    assert_eq!(story.role.snapshot(), kept);
    story.at(71.0, Event::Proved(G1));
    assert_eq!(story.role.snapshot(), kept);
}

#[test]
fn a_renewal_that_was_in_flight_is_asked_for_again() {
    let mut story = Story::serving(settings(), LEASE, own(100_000.0));
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    let mut story = story.crash(67.0);
    story.at(67.0, Event::Tick).does([Action::Prove(G1)]);
    story.at(67.5, Event::Proved(G1)).does([Action::Publish(G1), renew(G1, T1, 24.75)]);
}

#[test]
fn one_that_is_refused_is_given_back_and_a_fresh_one_issued_at_once() {
    let mut story = crashed(settings());
    story.at(20.0, Event::Tick);
    story.at(20.5, Event::ProofRefused(G1)).does([Action::RevokeLease(G1, T1), LOG_IN]);
    story.notes(Note::NotTakenUp(G1)).notes(Note::Issuing(Reason::First));
    story.issued(21.0, G2, T2, own(100_000.0), LEASE);
}

#[test]
fn a_rotation_asked_for_meanwhile_brings_a_fresh_one() {
    let mut story = crashed(settings());
    story.at(20.0, Event::Tick).does([Action::Prove(G1)]);
    story.at(20.2, Event::Rotate(Some(DrainSpan::For(Duration::ZERO)))).does([]);
    story.at(20.5, Event::Proved(G1)).does([Action::Publish(G1), log_in(24.75)]);
    story.issued(21.0, G2, T2, own(100_000.0), LEASE);
    story.is_closing(G1, Cause::CutShort);
}

#[test]
fn one_that_is_younger_than_a_replica_may_lag_is_tried_again() {
    let grace = Settings { replica_grace: Duration::from_secs(30), ..settings() };
    let mut story = crashed(grace);
    story.at(20.0, Event::Tick).does([Action::Prove(G1)]);
    story.at(20.2, Event::ProofRefused(G1)).does([]);
    story.at(20.7, Event::Tick).does([Action::Prove(G1)]);
    story.at(31.0, Event::ProofRefused(G1)).does([Action::RevokeLease(G1, T1), LOG_IN]);
}

#[test]
fn one_that_nobody_can_judge_is_published_all_the_same() {
    let mut story = crashed(settings());
    story.at(20.0, Event::Tick);
    story.at(21.0, Event::Unprovable(G1)).does([Action::Publish(G1)]);
}

#[test]
fn one_with_less_than_two_seconds_left_is_given_back() {
    // The hard close is at 99.
    let mut story = Story::serving(settings(), LEASE, own(100_000.0)).crash(97.5);
    story.at(97.5, Event::Tick).does([Action::RevokeLease(G1, T1), LOG_IN]);
}

#[test]
fn one_that_has_lapsed_is_forgotten() {
    let mut story = Story::serving(settings(), LEASE, own(100_000.0)).crash(106.0);
    story.at(106.0, Event::Tick).does([LOG_IN, Action::Forget(G1)]);
    story.at(108.0, Event::Tick).does([Action::RevokeToken(T1)]);
}

#[test]
fn a_token_bounds_it_as_before() {
    // The token ends at 30; two seconds of margin and a second for the cancel requests come before that.
    let mut story = Story::serving(settings(), LEASE, own(30.0)).crash(26.0);
    story.at(26.0, Event::Tick).does([Action::RevokeLease(G1, T1), LOG_IN]);
}

#[test]
fn retired_ones_and_candidates_are_given_back() {
    let mut story = Story::serving(settings(), LEASE, own(100_000.0));
    story.at(10.0, Event::Rotate(None)).does([log_in(24.75)]);
    story.issued(10.0, G2, T2, own(100_000.0), LEASE);
    story.at(15.0, Event::Rotate(Some(DrainSpan::Default))).does([log_in(24.75)]);
    story.at(15.0, Event::LoggedIn(T3, own(100_000.0)));
    story.granted(15.0, G3, LEASE);
    assert_eq!(serves(&story.role.snapshot()), [(G1, false), (G2, true), (G3, false)]);
    // The last generation is the generation that serves.
    let mut story = story.crash(20.0);
    story.at(20.0, Event::Tick).does([
        Action::RevokeLease(G1, T1),
        Action::RevokeLease(G2, T3),
        Action::Prove(G3),
    ]);
    story.at(20.2, Event::LeaseRevoked(G1)).does([Action::Forget(G1)]);
    let forbidden = Event::LeaseRevokeFailed(G2, Failure::Forbidden);
    story.at(20.3, forbidden).does([Action::DropCredential(G2)]);
    story.at(20.5, Event::Proved(G3)).does([Action::Publish(G3)]);
    story.at(22.0, Event::Tick).does([Action::RevokeToken(T1), Action::RevokeToken(T3)]);
    story.at(22.1, Event::TokenRevoked(T3)).does([Action::ForgetToken(T3)]);
    story.at(23.1, Event::Tick).does([Action::LookUpLease(G2, T2)]);
    story.at(23.2, Event::LeaseLookedUp(G2, LeaseLookup::Missing)).notes(Note::Returned(G2, Outcome::Token));
}

#[test]
fn the_first_candidate_is_taken_up_before_it_was_published() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, own(100_000.0)));
    story.granted(0.0, G1, LEASE);
    let mut story = story.crash(1.0);
    story.at(1.0, Event::Tick).does([Action::Prove(G1)]);
}

/// Not at once: Vault may still be making the lease, which would then outlive the token.
#[test]
fn a_token_whose_grant_never_came_is_revoked_with_what_it_owns() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, own(100_000.0))).does([Action::Issue(T1)]);
    let mut story = story.crash(1.0);
    story.at(1.0, Event::Tick).does([LOG_IN]);
    story.at(3.0, Event::Tick).does([Action::RevokeToken(T1)]);
}

#[test]
fn one_that_was_handed_to_us_is_only_forgotten() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, handed(100_000.0))).does([Action::Issue(T1)]);
    let mut story = story.crash(1.0);
    story.at(1.0, Event::Tick).does([LOG_IN, Action::ForgetToken(T1)]);
}

#[test]
fn a_lost_lease_is_not_kept_and_its_token_is() {
    let mut story = Story::serving(settings(), LEASE, own(100_000.0));
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::Gone));
    let kept = story.role.snapshot();
    assert_eq!((serves(&kept), kept.tokens.len()), (vec![], 1));
}

#[test]
fn a_lazy_route_takes_up_what_there_is_and_asks_for_nothing_else() {
    let lazy = Settings { lazy: Some(secs(10.0)), ..settings() };
    let mut story = Story::new(lazy.clone());
    story.at(0.0, Event::Wanted).does([LOG_IN]);
    story.issued(0.0, G1, T1, own(100_000.0), LEASE);
    let mut served = story.crash(20.0);
    served.at(20.0, Event::Tick).does([Action::Prove(G1)]);
    served.at(20.5, Event::Proved(G1)).does([Action::Publish(G1)]);
    served.at(30.5, Event::Tick).does([Action::Unpublish]);
    served.at(30.5, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    // It had been retired for want of sessions.
    let mut idle = served.crash(31.0);
    idle.at(31.0, Event::Tick).does([Action::RevokeLease(G1, T1)]);
    idle.at(31.5, Event::LeaseRevoked(G1)).does([Action::Forget(G1)]);
    idle.at(33.0, Event::Tick).does([Action::RevokeToken(T1)]);
    idle.at(33.5, Event::TokenRevoked(T1)).does([Action::ForgetToken(T1)]);
    assert!(idle.role.is_empty());
}
