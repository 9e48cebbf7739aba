//! Renewals of tokens, and what their ends mean for leases.

use super::renewal::{LEASE, PATIENCE};
use super::script::*;
use crate::lease::{Action, Event, Failure, Note, Reason, TokenFacts};

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
    for wait in [0.5, 4.0, 10.75] {
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
fn a_token_whose_renewal_was_refused_is_asked_for_again_too() {
    let mut story = Story::serving(settings(), 1005.0, own(45.0));
    story.pass(28.0);
    let again = |token| Action::RenewToken(token, secs(41.75) / 4);
    story.at(28.0, Event::TokenRenewFailed(T1, Failure::Forbidden)).does([log_in(249.75)]);
    story.at(28.0, Event::LogInFailed(Failure::Refused)).does([]);
    story.at(28.25, Event::Tick).does([again(T1)]);
    story.at(28.25, token_renewed(T1, 28.25, 45.0)).does([]);
    story.at(29.0, Event::Tick).does([]);
}

#[test]
fn a_token_renewal_that_fails_after_a_refusal_does_not_put_off_the_replacement() {
    let mut story = Story::serving(settings(), 1005.0, own(45.0));
    story.pass(28.0);
    story.at(28.0, Event::TokenRenewFailed(T1, Failure::Forbidden)).does([log_in(249.75)]);
    story.at(28.0, Event::LogInFailed(Failure::Transient)).does([]);
    story.at(28.25, Event::Tick).does([Action::RenewToken(T1, secs(41.75) / 4)]);
    story.at(28.25, Event::TokenRenewFailed(T1, Failure::TimedOut)).does([]);
    story.at(28.5, Event::Tick).does([log_in(249.75)]).notes(Note::Issuing(Reason::Token));
}
