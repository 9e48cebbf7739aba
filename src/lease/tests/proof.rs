//! The proof of a candidate.

use super::script::*;
use crate::lease::{
    Action, Event, Failure, GenerationId, NotRotated, Note, Reason, Settings, TokenId, Verdict,
};

const LEASE: f64 = 105.0;

/// Generation 1 serves; 2 is a candidate since second 10.
fn story() -> Story {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LEASE, endless());
    story.at(10.0, Event::Tick);
    story.at(10.0, Event::LoggedIn(T2, own(10_000.0)));
    story.granted(10.0, G2, LEASE);
    story
}

#[test]
fn a_refused_candidate_is_tried_for_half_its_usable_life_then_revoked() {
    let mut story = story();
    // Half of 99 s: until second 59.5.
    let mut now = 10.0;
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        story.at(now, Event::ProofRefused(G2)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([Action::Prove(G2)]);
    }
    story.at(now, Event::ProofRefused(G2)).does([]);
    story.at(59.5, Event::Tick).does([Action::Prove(G2)]);
    story.at(59.5, Event::ProofRefused(G2)).does([Action::RevokeLease(G2, T2)]);
    story.notes(Note::CandidateRefused(G2));
    assert_eq!(story.role.current(), Some(G1));
}

#[test]
fn a_refused_candidate_is_tried_for_a_minute_at_most() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, endless()));
    story.granted(0.0, G1, 3600.0);
    let mut now = 0.0;
    while now < 60.0 {
        story.at(now, Event::ProofRefused(G1)).does([]);
        let (when, action) = story.pass(now + 4.0)[0];
        assert_eq!(action, Action::Prove(G1));
        now = when.as_nanos() as f64 / 1e9;
    }
    assert!(now <= 60.0, "{now}");
    story.at(now, Event::ProofRefused(G1)).does([Action::RevokeLease(G1, T1)]);
}

#[test]
fn while_nothing_is_usable_a_refused_candidate_is_followed_within_half_a_minute_and_by_the_bucket() {
    let mut story = Story::new(Settings { issue_burst: 2, issue_interval: secs(120.0), ..settings() });
    story.at(0.0, Event::Tick);
    let mut now = 0.0;
    // The third waits for the bucket, which had its first out at second 50.
    for (number, wait) in [(1, 5.0), (2, 65.0), (3, 20.0)] {
        let (token, number) = (TokenId(number), GenerationId::new(number));
        story.at(now, Event::LoggedIn(token, crate::lease::TokenFacts { sent_at: at(now), ..endless() }));
        story.granted(now, number, LEASE);
        now += 50.0;
        story.at(now, Event::ProofRefused(number)).does([Action::RevokeLease(number, token)]);
        story.at(now, Event::LeaseRevoked(number)).does([Action::Forget(number), Action::RevokeToken(token)]);
        story.at(now, Event::TokenRevoked(token)).does([Action::ForgetToken(token)]);
        now += wait;
        if number < G3 {
            story.at(now, Event::Tick).does([LOG_IN]);
        }
    }
    story.at(now, Event::Tick).does([]);
    story.at(now + 1.0, Event::Rotate(None)).does([LOG_IN]);
}

#[test]
fn a_back_off_of_minutes_ends_within_half_a_minute_once_nothing_is_usable() {
    let mut story = Story::serving(settings(), LEASE, endless());
    let mut now = 1.0;
    for number in 2..=8 {
        story.at(now, Event::Rotate(None)).does([log_in(24.75)]);
        let (token, number) = (TokenId(number), GenerationId::new(number));
        story.at(now, Event::LoggedIn(token, crate::lease::TokenFacts { sent_at: at(now), ..endless() }));
        story.granted(now, number, 12.0);
        now += 5.0;
        story.at(now, Event::ProofRefused(number)).notes(Note::CandidateRefused(number));
        story.at(now, Event::LeaseRevoked(number));
        story.at(now, Event::TokenRevoked(token));
    }
    // Five minutes from second 36 on.
    story.at(40.0, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    story.at(40.0, not_renewed(G1, Failure::CannotExtend));
    assert_eq!(story.pass(128.0), [(at(99.0), Action::Unpublish)]);
    story.at(129.0, Event::Tick).does([LOG_IN]);
}

#[test]
fn a_command_does_not_wait_for_a_candidate_that_is_refused() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, endless()));
    story.granted(0.0, G1, 3600.0);
    story.at(0.0, Event::ProofRefused(G1)).does([]);
    story.at(0.1, Event::Rotate(None)).does([Action::RevokeLease(G1, T1), LOG_IN]);
    story.notes(Note::CandidateRefused(G1));
}

#[test]
fn after_refused_candidates_the_back_off_grows_to_five_minutes() {
    let settings = Settings { rotate_after: Some(secs(1.0)), ..settings() };
    let mut story = Story::serving(settings, 100_005.0, endless());
    let mut now = 1.0;
    story.at(now, Event::Tick).does([log_in(24_999.75)]);
    for (number, wait) in
        [(2, 5.0), (3, 10.0), (4, 20.0), (5, 40.0), (6, 80.0), (7, 160.0), (8, 300.0), (9, 300.0)]
    {
        let (token, number) = (TokenId(number), GenerationId::new(number));
        story.at(now, Event::LoggedIn(token, crate::lease::TokenFacts { sent_at: at(now), ..endless() }));
        story.granted(now, number, LEASE);
        now += 50.0;
        story.at(now, Event::ProofRefused(number)).does([Action::RevokeLease(number, token)]);
        story.at(now, Event::LeaseRevoked(number)).does([Action::Forget(number), Action::RevokeToken(token)]);
        story.at(now, Event::TokenRevoked(token)).does([Action::ForgetToken(token)]);
        now += wait;
        story.at(now, Event::Tick).does([log_in(24_999.75)]);
    }
}

#[test]
fn an_unprovable_candidate_is_tried_again_and_never_issued_again() {
    let mut story = story();
    let mut now = 10.0;
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        story.at(now, Event::Unprovable(G2)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([Action::Prove(G2)]);
    }
    story.at(now, Event::Proved(G2));
    assert_eq!(story.role.current(), Some(G2));
}

#[test]
fn an_unprovable_candidate_is_published_unproved_when_nothing_is_usable() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, endless()));
    story.granted(0.0, G1, LEASE);
    story.at(1.0, Event::Unprovable(G1)).does([Action::Publish(G1)]);
    story.notes(Note::Published { number: G1, reason: Reason::First, proved: false, successor: false });
}

#[test]
fn an_unprovable_candidate_is_published_unproved_when_the_drain_of_the_old_one_has_come() {
    let mut story = story();
    let mut now = 10.0;
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        story.at(now, Event::Unprovable(G2)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([Action::Prove(G2)]);
    }
    story.at(now, Event::Unprovable(G2)).does([]);
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(now + 30.0, Event::Tick).does([Action::Prove(G2)]);
    // The next try would come after the drain of the first has begun, at 88.5: that moment does not wait for it.
    story.at(now + 30.5, Event::Unprovable(G2)).does([]);
    story.at(88.5, Event::Tick);
    assert_eq!(story.role.current(), Some(G2));
    assert_eq!(story.told(G1).drain_from, Some(at(88.5)));
}

#[test]
fn an_unprovable_candidate_is_published_unproved_at_once_when_the_current_one_is_lost() {
    let mut story = story();
    for (now, _) in [(10.0, ()), (10.5, ()), (11.5, ()), (13.5, ())] {
        story.at(now, Event::Tick);
        story.at(now, Event::Unprovable(G2)).does([]);
    }
    story.at(13.6, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    story.at(13.6, not_renewed(G1, Failure::Gone));
    assert_eq!(story.role.current(), Some(G2));
}

#[test]
fn a_refused_candidate_makes_way_for_a_fresh_one_when_the_current_one_is_lost() {
    let mut story = story();
    story.at(10.0, Event::ProofRefused(G2)).does([]);
    story.at(10.1, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    story.at(10.1, not_renewed(G1, Failure::Gone)).does([
        Action::Unpublish,
        Action::RevokeLease(G2, T2),
        Action::Answer(G1, Verdict::Lost),
        LOG_IN,
    ]);
    story.notes(Note::Issuing(Reason::Revoked));
}

#[test]
fn a_candidate_that_is_refused_after_the_loss_makes_way_too() {
    let mut story = story();
    story.at(10.1, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    story
        .at(10.1, not_renewed(G1, Failure::Gone))
        .does([Action::Unpublish, Action::Answer(G1, Verdict::Lost)]);
    story.at(10.2, Event::ProofRefused(G2)).does([Action::RevokeLease(G2, T2), LOG_IN]);
    // The fresh credential gets its own time for proofs.
    story.at(10.2, Event::LoggedIn(T3, own(10_000.0)));
    story.granted(10.2, G3, LEASE);
    story.at(10.3, Event::ProofRefused(G3)).does([]);
}

#[test]
fn the_back_off_after_a_refused_candidate_ends_when_the_current_one_is_lost() {
    let mut story = story();
    story.at(59.5, Event::ProofRefused(G2)).does([Action::RevokeLease(G2, T2)]);
    story.at(59.6, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    story.at(59.6, not_renewed(G1, Failure::Gone)).does([
        Action::Unpublish,
        Action::Answer(G1, Verdict::Lost),
        LOG_IN,
    ]);
}

#[test]
fn a_refused_candidate_is_not_published_unproved() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, endless()));
    story.granted(0.0, G1, LEASE);
    story.at(1.0, Event::ProofRefused(G1)).does([]);
    story.at(1.5, Event::Tick).does([Action::Prove(G1)]);
}

#[test]
fn a_candidate_that_ends_unproved_is_given_back() {
    // The renewals of the first go on, so nothing presses.
    let mut story = story();
    let mut proofs = 0;
    while story.now < at(108.9) {
        let due = story.role.next_deadline();
        let second = due.as_nanos() as f64 / 1e9;
        if second > 108.9 {
            break;
        }
        for (_, action) in story.pass(second) {
            match action {
                Action::RenewLease(G1, ..) => drop(story.at(second, renewed(G1, second, LEASE))),
                Action::Prove(G2) => {
                    proofs += 1;
                    story.at(second, Event::Unprovable(G2)).does([]);
                }
                other => panic!("{other:?}"),
            }
        }
        if proofs == 0 {
            story.at(second, Event::Unprovable(G2));
        }
    }
    story.at(109.0, Event::Tick).does([Action::RevokeLease(G2, T2)]);
    assert_eq!(story.role.current(), Some(G1));
}

#[test]
fn an_unprovable_candidate_of_a_command_is_given_back_and_the_command_fails() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Rotate(None));
    story.at(10.0, Event::LoggedIn(T2, endless()));
    story.granted(10.0, G2, LEASE);
    story
        .at(10.0, Event::Unprovable(G2))
        .does([Action::RevokeLease(G2, T2), Action::RotateFailed(NotRotated::Unprovable)]);
}

#[test]
fn a_late_proof_of_a_candidate_that_is_gone_does_nothing() {
    let mut story = story();
    story.at(11.0, Event::Close).does([Action::Unpublish, Action::RevokeLease(G2, T2)]);
    story.at(12.0, Event::Proved(G2)).does([]);
}

#[test]
fn a_candidate_that_servers_do_not_know_yet_is_tried_as_long_as_it_lives() {
    let mut story = story();
    let mut now = 10.0;
    // The waits are longer than those of a refused candidate.
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        story.at(now, Event::ProofLags(G2)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([Action::Prove(G2)]);
    }
    story.at(now, Event::ProofLags(G2)).does([]);
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(now + 30.0, Event::Tick).does([Action::Prove(G2)]);
    story.at(now + 30.5, Event::Proved(G2));
    assert_eq!(story.role.current(), Some(G2));
}

#[test]
fn a_command_waits_for_servers_that_lag_but_not_for_ever() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Rotate(None));
    story.at(10.0, Event::LoggedIn(T2, endless()));
    story.granted(10.0, G2, LEASE);
    let mut now = 10.0;
    for wait in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0] {
        story.at(now, Event::ProofLags(G2)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([Action::Prove(G2)]);
    }
    story.at(now, Event::ProofLags(G2)).does([]);
    // Half of 99 s of usable life.
    story.at(59.5, Event::Tick).does([Action::Prove(G2)]);
    story
        .at(59.5, Event::ProofLags(G2))
        .does([Action::RevokeLease(G2, T2), Action::RotateFailed(NotRotated::Unprovable)]);
}

#[test]
fn a_predecessor_is_kept_until_a_server_has_accepted_what_was_published_unproved() {
    let mut story = story();
    story.at(10.0, Event::Unprovable(G2)).does([]);
    for tick in [10.5, 11.5, 13.5, 17.5, 25.5, 41.5] {
        story.at(tick, Event::Tick).does([Action::Prove(G2)]);
        story.at(tick, Event::Unprovable(G2)).does([]);
    }
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(66.0, not_renewed(G1, Failure::CannotExtend));
    story.at(71.5, Event::Tick).does([Action::Prove(G2)]);
    story.at(88.5, Event::Unprovable(G2));
    assert_eq!(story.role.current(), Some(G2));

    // No session is in it, and there is a single address.
    assert!(!story.ends_when_empty.contains(&G1));
    story.at(89.0, Event::Accepted(G2));
    assert!(story.ends_when_empty.contains(&G1));
}

#[test]
fn a_predecessor_that_a_command_has_ended_is_kept_for_nobody() {
    let mut story = Story::serving(Settings { standby: false, ..settings() }, LEASE, endless());
    story.at(1.0, Event::Rotate(Some(crate::lease::DrainSpan::For(secs(5.0)))));
    story.at(1.0, Event::LoggedIn(T2, endless()));
    story.granted(1.0, G2, LEASE);
    story.at(2.0, Event::Proved(G2));
    assert!(story.ends_when_empty.contains(&G1));
    assert!(story.role.is_accepted(G2));
}
