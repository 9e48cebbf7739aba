//! Renewals of leases and tokens.
//!
//! The usual lease has 105 s: its margin is 5.25 → 5 s, its usable life 99 s, two thirds are second 66, a quarter is
//! 24.75 s.

use super::script::*;
use crate::lease::Cause;
use crate::lease::{Action, Event, Failure, Note, Reason, Settings, TokenFacts};

const LEASE: f64 = 105.0;
const PATIENCE: f64 = 24.75;

fn story() -> Story {
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
fn transient_failures_back_off_from_half_a_second_to_half_of_what_is_left_and_go_on() {
    let mut story = Story::serving(settings(), 1005.0, endless());
    // Usable 999 s; two thirds are second 666, the drain would begin at 999 − 100.5.
    let mut now = 666.0;
    for wait in [0.5, 4.0, 32.0, 148.25] {
        story.at(now, Event::Tick).does([renew(G1, T1, 249.75)]);
        story.at(now, not_renewed(G1, Failure::Transient)).does([]);
        now += wait;
    }
    story.at(now, Event::Tick).does([renew(G1, T1, 249.75)]);
    story.at(now, renewed(G1, now, 1005.0)).does([]);
    story.at(now + 666.0, Event::Tick).does([renew(G1, T1, 249.75)]);
}

#[test]
fn renewals_that_keep_failing_ask_for_a_fresh_lease_when_the_drain_would_begin() {
    let mut story = story();
    story.at(66.0, Event::Tick);
    // The drain is 10.5 s: from second 88.5 on.
    let mut sent_at = 66.0;
    for wait in [0.5, 4.0, 9.5, 6.333_333_333] {
        story.at(sent_at, not_renewed(G1, Failure::Transient)).does([]);
        sent_at += wait;
        story.at(sent_at, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    }
    story.at(sent_at, not_renewed(G1, Failure::Transient)).does([]);
    story.at(88.5, Event::Tick).does([log_in(PATIENCE)]).notes(Note::Issuing(Reason::NotRenewable));
}

#[test]
fn issuing_backs_off_to_three_seconds_with_no_usable_credential() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    let mut now = 0.0;
    for wait in [0.5, 1.0, 2.0, 3.0, 3.0, 3.0] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([LOG_IN]);
    }
}

#[test]
fn issuing_backs_off_to_thirty_seconds_with_a_usable_credential_and_to_three_once_it_has_ended() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LEASE, endless());
    story.at(10.0, Event::Tick).does([log_in(PATIENCE)]);
    let mut now = 10.0;
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(PATIENCE)]);
    }
    story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
    // In the midst of the next wait the lease is lost.
    story.at(now + 1.0, Event::Suspected(G1)).does([renew(G1, T1, PATIENCE)]);
    let lost = story.at(now + 2.0, not_renewed(G1, Failure::Gone)).role.next_deadline();
    assert_eq!(lost, at(now + 5.0));
    story.at(now + 5.0, Event::Tick).does([LOG_IN]);
}

#[test]
fn a_token_shorter_than_the_lease_is_not_ending() {
    let mut story = Story::serving(settings(), LEASE, own(45.0));
    // 45 s: margin 2.25, usable 41.75, two thirds 27.83.
    let (when, action) = story.pass(30.0)[0];
    assert_eq!((when, action), (at(0.0) + secs(83.5) / 3, Action::RenewToken(T1, secs(41.75) / 4)));
    story.at(28.0, token_renewed(T1, 28.0, 45.0)).does([]);
    // And both go on.
    let next: Vec<_> = story.pass(67.0).into_iter().map(|(_, action)| action).collect();
    assert_eq!(next, [Action::RenewToken(T1, secs(41.75) / 4), renew(G1, T1, PATIENCE)]);
}

#[test]
fn the_end_is_the_earlier_of_lease_and_token_and_moves_with_each_renewal() {
    let mut story = Story::serving(settings(), LEASE, own(45.0));
    assert_eq!(story.hard_close_at(G1), at(41.75));
    story.pass(28.0);
    story.at(28.0, token_renewed(T1, 28.0, 45.0));
    assert_eq!(story.hard_close_at(G1), at(28.0 + 41.75));
    assert_eq!(story.told(G1).hard_close_at, at(28.0 + 41.75));
}

#[test]
fn a_capped_token_rotates_under_a_fresh_login() {
    let mut story = Story::serving(settings(), LEASE, own(45.0));
    story.pass(28.0);
    story.at(28.0, token_renewed(T1, 28.0, 40.0)).does([log_in(PATIENCE)]);
    story.notes(Note::TokenEnding(T1)).notes(Note::Issuing(Reason::Token));
    story.issued(28.0, G2, T2, own(45.0), LEASE);
    // The old generation lasts until its own end: 28 + 40 − 2.25 − 1.
    assert_eq!(story.hard_close_at(G1), at(64.75));
}

#[test]
fn a_batch_token_is_replaced_at_two_thirds_of_its_life() {
    let mut story = Story::serving(settings(), 1005.0, batch(45.0));
    let (when, action) = story.pass(30.0)[0];
    assert_eq!((when, action), (at(0.0) + secs(83.5) / 3, log_in(249.75)));
    story.issued(28.0, G2, T2, batch(45.0), 1005.0);
}

#[test]
fn nothing_is_issued_under_a_token_that_would_not_end_later() {
    let mut story = Story::serving(settings(), 1005.0, handed(45.0));
    story.pass(28.0);
    story.at(28.0, token_renewed(T1, 28.0, 40.0)).does([log_in(249.75)]);
    // The file is unchanged: the same token, and what is left of it.
    let same = |second: f64| {
        Event::LoggedIn(T1, TokenFacts { sent_at: at(second), ttl: Some(secs(68.0 - second)), ..handed(0.0) })
    };
    let mut now = 28.0;
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0] {
        story.at(now, same(now)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(249.75)]);
    }
    // A new token in the file.
    story
        .at(now, Event::LoggedIn(T2, TokenFacts { sent_at: at(now), ..handed(45.0) }))
        .does([Action::Issue(T2)]);
}

#[test]
fn nothing_is_issued_again_and_again_under_a_batch_token_that_ends_with_its_leases() {
    // The lease is cut to the token's end, so each renewal is capped; a fresh lease would be cut just the same.
    let mut story = Story::serving(settings(), 105.0, batch(105.0));
    // The token ends, and the lease's own renewal is due.
    let (_, first) = story.pass(66.0)[0];
    assert_eq!(first, renew(G1, T1, PATIENCE));
    let mut tries = 0;
    story.at(66.0, renewed(G1, 66.0, 39.0));
    for _ in 0..100 {
        let Some(now) = Some(story.now).filter(|now| *now < at(98.0)) else { break };
        let second = now.as_nanos() as f64 / 1e9;
        let ttl = Some(secs(105.0 - second));
        story.at(second, Event::LoggedIn(T1, TokenFacts { sent_at: now, ttl, ..batch(0.0) })).does([]);
        tries += 1;
        if story.pass(98.5).is_empty() {
            break;
        }
    }
    assert!((3..15).contains(&tries), "{tries}");
}

#[test]
fn a_token_of_a_second_or_two_is_not_renewed_in_a_hot_loop() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, own(3.0)));
    let mut renewals = 0;
    let mut issuances = 1;
    story.at(0.0, Event::IssueFailed(Failure::Transient));
    while story.now < at(30.0) {
        let due = story.role.next_deadline();
        let second = due.as_nanos() as f64 / 1e9;
        for (_, action) in story.pass(second) {
            match action {
                Action::RenewToken(token, _) => {
                    renewals += 1;
                    story.at(second, token_renewed(token, second, 3.0));
                }
                Action::Issue(_) => {
                    issuances += 1;
                    story.at(second, Event::IssueFailed(Failure::Transient));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(renewals <= 35 && issuances > 5, "{renewals} renewals, {issuances} issuances in 30 s");
}

#[test]
fn a_handed_token_without_a_known_end_does_not_bound_the_lease() {
    let facts = TokenFacts { owned: false, ..endless() };
    let story = Story::serving(settings(), LEASE, facts);
    assert_eq!(story.hard_close_at(G1), at(99.0));
}

#[test]
fn a_token_whose_renewal_is_forbidden_rotates() {
    let mut story = Story::serving(settings(), LEASE, own(45.0));
    story.pass(28.0);
    story.at(28.0, Event::TokenRenewFailed(T1, Failure::Forbidden)).does([log_in(PATIENCE)]);
    story.notes(Note::TokenEnding(T1));
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

#[test]
fn tries_of_a_renewal_come_closer_as_the_end_draws_near() {
    // Of 30 s, 27 are usable: second 18. Then with back-off, but never longer than a third of what is left.
    let mut story = Story::serving(settings(), 30.0, endless());
    let mut now = 18.0;
    story.at(now, Event::Tick).does([renew(G1, T1, 6.75)]);
    for wait in [0.5, 2.833_333_333, 1.888_888_889] {
        story.at(now, not_renewed(G1, Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([renew(G1, T1, 6.75)]);
    }
}

#[test]
fn tries_of_an_issuance_come_closer_as_the_end_draws_near() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(70.0)), ..settings() }, LEASE, endless());
    story.at(66.0, Event::Tick).does([renew(G1, T1, PATIENCE)]);
    let mut now = 70.0;
    story.at(now, Event::Tick).does([log_in(PATIENCE)]);
    for wait in [0.5, 1.0, 2.0, 4.0, 7.166_666_666] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(PATIENCE)]);
    }
}
