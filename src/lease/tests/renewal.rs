//! Renewals of leases.
//!
//! The usual lease has 105 s: its margin is 5.25 → 5 s, its usable life 99 s, two thirds are second 66, a quarter is
//! 24.75 s.

use super::script::*;
use crate::lease::Cause;
use crate::lease::{Action, Event, Failure, Note, Reason, Settings};

pub(super) const LEASE: f64 = 105.0;
pub(super) const PATIENCE: f64 = 24.75;

/// It serves.
pub(super) fn story() -> Story {
    Story::serving(settings(), LEASE, endless())
}

#[test]
fn lease_is_renewed_at_two_thirds_of_its_usable_life() {
    let mut story = story();
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(67.0, renewed(G1, 66.0, LEASE)).does([]);
    story.at(132.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
}

#[test]
fn jitter_makes_a_renewal_only_earlier() {
    for seed in 1..50 {
        let mut story = Story::serving(Settings { seed, ..settings() }, LEASE, endless());
        let (when, action) = next(&mut story);
        assert_eq!(action, renew(G1, T1, PATIENCE));
        // The first renewal is at a random time, so that leases granted together are not renewed together.
        assert!((8.25..=66.0).contains(&when), "{when}");
        story.at(when, renewed(G1, when, LEASE));
        let (again, action) = next(&mut story);
        assert_eq!(action, renew(G1, T1, PATIENCE));
        assert!((59.4..=66.001).contains(&(again - when)), "{when} {again}");
    }
}

/// The next request, and its time.
fn next(story: &mut Story) -> (f64, Action) {
    loop {
        let second = story.role.next_deadline().since(at(0.0)).as_secs_f64();
        if let Some((_, action)) = story.pass(second).first() {
            return (second, *action);
        }
    }
}

#[test]
fn a_renewal_after_one_that_failed_is_spread_like_the_first() {
    let after = |seed| {
        let mut story = Story::serving(Settings { seed, ..settings() }, LEASE, endless());
        let (when, _) = next(&mut story);
        story.at(when, not_renewed(G1, Failure::Transient));
        let (when, _) = next(&mut story);
        story.at(when, renewed(G1, when, LEASE));
        next(&mut story).0 - when
    };
    let all: Vec<f64> = (1..50).map(after).collect();
    assert!(all.iter().all(|after| (8.25..=66.001).contains(after)), "{all:?}");
    assert!(all.iter().filter(|after| **after < 40.0).count() > 15, "{all:?}");
}

#[test]
fn a_renewal_counts_from_its_sending() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(80.0, renewed(G1, 66.0, LEASE));
    assert_eq!(story.hard_close_at(G1), at(66.0 + 99.0));
}

#[test]
fn a_second_less_is_not_capped() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(66.0, renewed(G1, 66.0, LEASE - 1.0)).does([]);
    // 104 s, of which 98.2 are usable.
    assert!(story.pass(200.0).iter().any(|(_, action)| matches!(action, Action::RenewLease(G1, ..))));
}

fn renewal(lease: f64, capped: bool) -> Note {
    Note::Renewed { number: G1, lease: secs(lease), capped }
}

#[test]
fn capped_rotates_and_is_never_renewed_again() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(66.0, renewed(G1, 66.0, 60.0)).does([log_in(13.5)]).notes(renewal(60.0, true));
    story.at(66.0, Event::LogInFailed(Failure::Transient));
    for (_, action) in story.pass(119.0) {
        assert!(!matches!(action, Action::RenewLease(..)), "{action:?}");
    }
}

#[test]
fn shrinking_by_less_than_a_second_each_time_is_capped_in_the_end() {
    let mut story = story();
    let mut now = 66.0;
    for lease in [104.4, 103.8] {
        story.at(now, Event::Suspected(G1)).does([renew(
            G1,
            T1,
            if lease > 104.0 { PATIENCE } else { 24.6 },
        )]);
        story.at(now, renewed(G1, now, lease));
        now += 10.0;
    }
    story.notes(renewal(103.8, true));
}

#[test]
fn not_renewable_rotates_at_two_thirds() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, endless()));
    story.at(0.0, granted(0.0, LEASE, false)).does([Action::Prove(G1)]);
    story.at(0.0, Event::Proved(G1));
    story.at(66.0, Event::Tick).does([log_in(PATIENCE)]).notes(Note::Issuing(Reason::NotRenewable));
}

#[test]
fn a_forbidden_renewal_rotates_at_two_thirds() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(66.5, not_renewed(G1, Failure::Forbidden)).does([log_in(PATIENCE)]);
    story.notes(Note::Issuing(Reason::NotRenewable));
}

#[test]
fn a_forbidden_check_early_in_its_life_does_not_rotate_before_two_thirds() {
    let mut story = story();
    story.at(1.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    story
        .at(1.0, not_renewed(G1, Failure::Forbidden))
        .does([Action::Answer(G1, super::super::Verdict::Silent)]);
    story.at(66.0, Event::Tick).does([log_in(PATIENCE)]).notes(Note::Issuing(Reason::NotRenewable));
}

#[test]
fn past_the_max_ttl_rotates_at_once_and_sessions_stay_until_its_end() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::CannotExtend)).does([log_in(PATIENCE)]);
    story.notes(Note::Issuing(Reason::Capped));
    story.issued(66.0, G2, T2, endless(), LEASE);
    assert_eq!(story.hard_close_at(G1), at(99.0));
    story.at(99.0, Event::Tick).does([]).is_closing(G1, Cause::LeaseEnd);
}

#[test]
fn gone_is_lost_and_sessions_are_closed_and_a_fresh_one_is_issued() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::Gone)).does([Action::Unpublish, LOG_IN]);
    story.notes(Note::Lost(G1)).notes(Note::Issuing(Reason::Revoked)).is_closing(G1, Cause::Lost);
    // A lease that is gone cannot be given back.
    story.at(67.0, empty(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
}

#[test]
fn a_dead_token_loses_every_lease_that_it_owned() {
    let mut story = Story::serving(settings(), LEASE, own(1000.0));
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::TokenDead)).does([Action::Unpublish, LOG_IN]);
    story.notes(Note::Lost(G1));
    // It is not revoked: it is dead.
    story.at(67.0, empty(G1)).does([Action::Forget(G1), Action::ForgetToken(T1)]);
}

#[test]
fn a_renewal_that_would_pass_max_age_is_not_asked_for_and_the_current_one_rotates() {
    let mut story = Story::serving(Settings { max_age: Some(secs(240.0)), ..settings() }, LEASE, endless());
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(66.0, renewed(G1, 66.0, LEASE)).does([]);
    story.at(132.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(132.0, renewed(G1, 132.0, LEASE)).does([]);
    story.at(198.0, Event::Tick).does([log_in(PATIENCE)]).notes(Note::Issuing(Reason::Schedule));
}

#[test]
fn a_renewal_that_was_refused_is_asked_again_before_each_further_replacement() {
    let mut story = story();
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    // The policy allows neither.
    story.at(66.0, not_renewed(G1, Failure::Forbidden)).does([log_in(PATIENCE)]);
    story.at(66.0, Event::LoggedIn(T2, endless())).does([Action::Issue(T2)]);
    story.at(66.0, Event::IssueFailed(Failure::Forbidden)).does([Action::RevokeToken(T2)]);
    story.at(66.25, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(66.25, not_renewed(G1, Failure::Forbidden)).does([]);
    story.at(66.5, Event::Tick).does([log_in(PATIENCE)]);
    story.at(66.5, Event::LoggedIn(T3, endless())).does([Action::Issue(T3)]);
    story.at(66.5, Event::IssueFailed(Failure::Forbidden)).does([Action::RevokeToken(T3)]);
    // It is corrected before the next try, after 4 s.
    story.at(69.5, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(69.5, renewed(G1, 69.5, LEASE)).does([]);
    story.at(70.5, Event::Tick).does([]);
    story.at(135.5, Event::Tick).does([renew(G1, T1, PATIENCE)]);
}

#[test]
fn a_renewal_that_fails_after_a_refusal_does_not_put_off_the_replacement() {
    let mut story = story();
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(66.0, not_renewed(G1, Failure::Forbidden)).does([log_in(PATIENCE)]);
    let mut now = 66.0;
    for wait in [0.5, 4.0] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        let again_at = now + wait - f64::min(wait / 2.0, 1.0);
        story.at(again_at, Event::Tick).does([renew(G1, T1, PATIENCE)]);
        story.at(again_at, not_renewed(G1, Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(PATIENCE)]).notes(Note::Issuing(Reason::NotRenewable));
    }
}

#[test]
fn a_check_that_is_granted_after_a_refusal_is_a_renewal() {
    let mut story = story();
    story.at(1.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    story
        .at(1.0, not_renewed(G1, Failure::Forbidden))
        .does([Action::Answer(G1, super::super::Verdict::Silent)]);
    // The policy is corrected.
    story.at(10.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    story.at(10.0, renewed(G1, 10.0, LEASE)).does([Action::Answer(G1, super::super::Verdict::Alive)]);
    story.at(76.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
}

#[test]
fn a_check_that_is_granted_in_part_after_a_refusal_rotates() {
    let mut story = story();
    story.at(1.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    story.at(1.0, not_renewed(G1, Failure::Forbidden));
    story.at(10.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    story.at(10.0, renewed(G1, 10.0, 60.0));
    story.does([Action::Answer(G1, super::super::Verdict::Alive), log_in(13.5)]).notes(renewal(60.0, true));
}

#[test]
fn a_lease_that_is_not_renewable_is_not_asked_for_again() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    story.at(
        66.0,
        Event::LeaseRenewed { number: G1, sent_at: at(66.0), lease: secs(LEASE), renewable: false },
    );
    story.at(132.0, Event::Tick).does([log_in(PATIENCE)]);
    story.at(132.0, Event::LogInFailed(Failure::Transient)).does([]);
    story.at(132.25, Event::Tick).does([]);
    story.at(132.5, Event::Tick).does([log_in(PATIENCE)]);
}

#[test]
fn a_silent_check_leaves_the_plan_of_renewal_as_it_was() {
    let mut story = story();
    story.at(10.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    story
        .at(12.0, not_renewed(G1, Failure::TimedOut))
        .does([Action::Answer(G1, super::super::Verdict::Silent)]);
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
}

#[test]
fn a_silent_check_past_the_time_of_the_renewal_is_a_failed_renewal() {
    for failure in [Failure::Transient, Failure::TimedOut] {
        let mut story = story();
        story.at(60.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
        let mut now = 67.0;
        story.at(now, not_renewed(G1, failure)).does([Action::Answer(G1, super::super::Verdict::Silent)]);
        for wait in [0.5, 4.0] {
            now += wait;
            story.at(now, Event::Tick).does([renew(G1, T1, PATIENCE)]);
            story.at(now, not_renewed(G1, failure)).does([]);
        }
    }
}

#[test]
fn a_check_of_a_capped_lease_leaves_it_capped() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    story.at(66.0, renewed(G1, 66.0, 60.0)).does([log_in(13.5)]);
    story.issued(66.0, G2, T2, endless(), LEASE);
    story.at(80.0, Event::Suspected(G1)).does([renew(G1, T1, 13.5)]);
    story.at(80.0, renewed(G1, 80.0, 46.0)).does([Action::Answer(G1, super::super::Verdict::Alive)]);
    story.notes(renewal(46.0, false));
    for (_, action) in story.pass(119.0) {
        assert!(!matches!(action, Action::RenewLease(G1, ..)), "{action:?}");
    }
}
