//! The hard close, and the notices to sessions.

use super::script::*;
use crate::lease::{Action, DrainSpan, Event, Failure, NotRotated, Note, TokenFacts};
use crate::lease::{Cause, Closing};

#[test]
fn the_hard_close_is_a_second_before_the_margin() {
    for (lease, margin) in [(10.0, 2.0), (60.0, 3.0), (3600.0, 5.0)] {
        let story = Story::serving(settings(), lease, endless());
        assert_eq!(story.hard_close_at(G1), at(lease - margin - 1.0));
    }
}

#[test]
fn at_the_hard_close_sessions_get_a_second_and_the_upstream_until_the_end_of_the_lease() {
    let mut story = Story::serving(settings(), 60.0, endless());
    story.at(37.0, Event::Tick);
    story.pass(55.9);
    story.at(56.0, Event::Tick);
    assert_eq!(
        story.told(G1).closing,
        Some(Closing { cause: Cause::LeaseEnd, cut_at: at(57.0), gone_by: at(60.0) })
    );
}

#[test]
fn the_upstream_is_waited_for_five_seconds_at_most() {
    let mut story = Story::serving(settings(), 3600.0, endless());
    story.pass(3593.9);
    story.at(3594.0, Event::Tick);
    assert_eq!(story.told(G1).closing.map(|closing| closing.gone_by), Some(at(3599.0)));
}

#[test]
fn the_end_of_the_token_ends_its_sessions() {
    let mut story = Story::serving(settings(), 3600.0, own(60.0));
    story.pass(55.0);
    story.at(56.0, Event::Tick);
    assert_eq!(
        story.told(G1).closing,
        Some(Closing { cause: Cause::LeaseEnd, cut_at: at(57.0), gone_by: at(60.0) })
    );
}

#[test]
fn a_command_that_ends_a_lease_just_before_its_end_does_not_wait_beyond_it() {
    let mut story = Story::serving(settings(), 60.0, endless());
    story.at(37.0, Event::Tick);
    story.pass(55.0);
    story.at(55.5, Event::Rotate(Some(DrainSpan::For(secs(0.0)))));
    let started = 55.5;
    story.at(started, Event::LoggedIn(T2, endless()));
    story.at(started, granted(started, 60.0, true));
    story.at(started, Event::Proved(G2));
    let closing = story.told(G1).closing.expect("closing");
    assert_eq!((closing.cause, closing.gone_by), (Cause::CutShort, at(60.0)));
}

#[test]
fn a_grant_with_less_than_two_seconds_of_usable_life_is_given_back() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, own(1000.0)));
    // 4.9 s, less the margin of 2 s and the second before it.
    story.at(0.0, granted(0.0, 4.9, true)).does([Action::RevokeLease(G1, T1)]).notes(Note::TooShort(G1));
    story.at(0.0, Event::LeaseRevoked(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
    // A failed issuance: with back-off.
    story.at(0.5, Event::Tick).does([LOG_IN]);
}

#[test]
fn a_grant_under_a_token_about_to_end_is_given_back() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, own(4.0)));
    story.at(0.0, granted(0.0, 1000.0, true)).does([Action::RevokeLease(G1, T1)]).notes(Note::TooShort(G1));
}

#[test]
fn five_seconds_are_enough() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick);
    story.at(0.0, Event::LoggedIn(T1, own(1000.0)));
    story.at(0.0, granted(0.0, 5.0, true)).does([Action::Prove(G1)]);
}

#[test]
fn after_a_suspend_beyond_the_end_everything_is_closed_at_once() {
    let mut story = Story::serving(settings(), 60.0, endless());
    story.role.handle(at(500.0), Event::Tick);
    assert_eq!(story.role.current(), None);
    story.now = at(500.0);
    story.at(500.0, empty(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
}

#[test]
fn a_renewal_that_comes_after_the_hard_close_brings_nothing_back() {
    let mut story = Story::serving(settings(), 60.0, endless());
    story.pass(55.9);
    story.at(56.0, Event::Tick);
    story.at(56.5, renewed(G1, 50.0, 60.0)).does([]);
    assert_eq!(story.role.current(), None);
}

#[test]
fn a_login_may_take_a_quarter_of_the_usable_life_and_two_seconds_at_least() {
    let mut story = Story::serving(settings(), 10.0, endless());
    story.at(1.0, Event::Rotate(None)).does([log_in(2.0)]);
    story
        .at(1.0, Event::LogInFailed(Failure::TimedOut))
        .does([Action::RotateFailed(NotRotated::LogIn(Failure::TimedOut))]);
}

#[test]
fn nothing_is_issued_under_a_handed_token_without_life_left() {
    let mut story = Story::serving(settings(), 1000.0, TokenFacts { renewable: false, ..handed(20.0) });
    // Of 20 s, 17 are usable.
    story.pass(17.0);
    story.at(17.0, Event::Empty { number: G1, open_upstream: false });
    let looked_up = TokenFacts { sent_at: at(17.5), renewable: false, ..handed(2.5) };
    story.at(17.5, Event::LoggedIn(T1, looked_up)).does([]).notes(Note::TokenOfNoUse(T1));
}
