//! When a rotation begins, and when a retired generation is drained.

use super::script::*;
use crate::lease::Cause;
use crate::lease::{Action, DrainSpan, Event, Failure, NotRotated, Note, Reason, Settings, TokenFacts};

const LEASE: f64 = 105.0;

#[test]
fn the_first_credential_is_published_once_it_is_proved() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]).notes(Note::Issuing(Reason::First));
    story.at(1.0, Event::LoggedIn(T1, endless())).does([Action::Issue(T1)]);
    story.at(2.0, granted(1.0, LEASE, true)).does([Action::Prove(G1)]);
    story.at(3.0, Event::Proved(G1)).does([Action::Publish(G1)]);
    story.notes(Note::Published { number: G1, reason: Reason::First, proved: true, successor: false });
    assert_eq!(story.told(G1).hard_close_at, at(1.0 + 99.0));
}

#[test]
fn rotate_after_rotates_at_that_age() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(50.0)), ..settings() }, LEASE, endless());
    story.at(50.0, Event::Tick).does([log_in(24.75)]).notes(Note::Issuing(Reason::Schedule));
    story.issued(50.0, G2, T2, endless(), LEASE);
    // Counted from the sending of its creds request.
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(100.0, Event::Tick).does([log_in(24.75)]);
}

#[test]
fn a_retired_generation_is_renewed_as_long_as_it_has_sessions() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(50.0)), ..settings() }, LEASE, endless());
    story.at(50.0, Event::Tick);
    story.issued(50.0, G2, T2, endless(), LEASE);
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(66.0, renewed(G1, 66.0, LEASE)).does([]);
    story.at(70.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
}

#[test]
fn only_a_generation_with_a_published_successor_is_drained() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::CannotExtend)).does([log_in(24.75)]);
    // The drain would begin at 99 − 10.5, but nothing is there to take over.
    assert_eq!(story.drain_at(G1), None);
    story.at(66.0, Event::LogInFailed(Failure::Transient));
    story.pass(91.0);
    assert_eq!(story.drain_at(G1), None);
}

#[test]
fn the_drain_begins_at_its_time_when_the_successor_came_before() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::CannotExtend));
    story.issued(66.0, G2, T2, endless(), LEASE);
    assert_eq!(story.told(G1).drain_from, None);
    story.at(88.5, Event::Tick).does([]);
    assert_eq!(story.told(G1).drain_from, Some(at(88.5)));
}

#[test]
fn the_drain_begins_with_the_publication_of_a_late_successor() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::CannotExtend));
    story.at(67.0, Event::LoggedIn(T2, endless()));
    story.granted(67.0, G2, LEASE);
    story.at(95.0, Event::Proved(G2)).does([Action::Publish(G2)]);
    assert_eq!(story.told(G1).drain_from, Some(at(95.0)));
}

#[test]
fn a_drain_is_withdrawn_when_the_lease_is_renewed_after_all() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(50.0)), ..settings() }, LEASE, endless());
    story.at(50.0, Event::Tick);
    story.issued(50.0, G2, T2, endless(), LEASE);
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(88.5, Event::Tick);
    assert_eq!(story.told(G1).drain_from, Some(at(88.5)));
    story.at(90.0, renewed(G1, 89.0, LEASE)).does([]);
    assert_eq!(story.told(G1).drain_from, None);
}

#[test]
fn a_drain_is_never_more_than_a_quarter_of_the_usable_life() {
    let settings = Settings { drain: Some(secs(1000.0)), rotate_after: Some(secs(10.0)), ..settings() };
    let mut story = Story::serving(settings, LEASE, endless());
    story.at(10.0, Event::Tick);
    story.issued(10.0, G2, T2, endless(), LEASE);
    assert_eq!(story.drain_at(G1), Some(at(99.0 - 24.75)));
}

#[test]
fn the_current_generation_without_a_successor_serves_to_its_own_end() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(88.5, Event::Tick);
    story.at(99.0, Event::Tick).does([Action::Unpublish, LOG_IN]).is_closing(G1, Cause::LeaseEnd);
    story.notes(Note::Issuing(Reason::Schedule));
}

#[test]
fn an_earlier_generation_serves_again_when_its_successor_is_lost() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(50.0)), ..settings() }, LEASE, endless());
    story.at(50.0, Event::Tick);
    story.issued(50.0, G2, T2, endless(), LEASE);
    story.at(60.0, Event::Suspected(G2)).does([renew(G2, T2, 24.75)]);
    story.at(60.0, not_renewed(G2, Failure::Gone)).does([
        Action::Unpublish,
        Action::Answer(G2, super::super::Verdict::Lost),
        Action::Publish(G1),
        log_in(24.75),
    ]);
    story.notes(Note::Recalled(G1)).notes(Note::Issuing(Reason::Revoked));
    story.issued(60.0, G3, T3, endless(), LEASE);
    assert_eq!(story.role.current(), Some(G3));
}

#[test]
fn a_recalled_generation_is_not_drained() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::CannotExtend));
    story.issued(66.0, G2, T2, endless(), LEASE);
    story.at(90.0, Event::Suspected(G2));
    story.at(90.0, not_renewed(G2, Failure::Gone));
    assert_eq!((story.role.current(), story.told(G1).drain_from), (Some(G1), None));
}

#[test]
fn a_generation_that_was_closed_to_newcomers_is_not_published_again() {
    // The driver saw it empty in the very moment in which its successor was lost.
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(50.0)), ..settings() }, LEASE, endless());
    story.at(50.0, Event::Tick);
    story.issued(50.0, G2, T2, endless(), LEASE);
    story.at(60.0, Event::Suspected(G2));
    story.at(60.0, not_renewed(G2, Failure::Gone));
    story.at(60.0, empty(G1)).does([Action::Unpublish, Action::RevokeLease(G1, T1)]);
}

#[test]
fn a_command_rotates_now_and_drains_nothing() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Rotate(None)).does([log_in(24.75)]).notes(Note::Issuing(Reason::Command));
    story.issued(10.0, G2, T2, endless(), LEASE);
    assert_eq!(story.hard_close_at(G1), at(99.0));
}

#[test]
fn a_lazy_route_that_is_wanted_again_has_lost_no_successor() {
    let mut story = Story::new(Settings { lazy: Some(secs(10.0)), ..settings() });
    story.at(0.0, Event::Wanted).does([LOG_IN]);
    story.issued(0.0, G1, T1, endless(), LEASE);
    story.at(10.0, Event::Tick).does([Action::Unpublish]);
    story.at(10.0, Event::Wanted).does([Action::Publish(G1)]).notes(Note::WantedAgain(G1));
    story.does_not_note(Note::Recalled(G1));
}

#[test]
fn a_command_to_a_lazy_route_without_a_session_takes_one_credential() {
    let mut story = Story::new(Settings { lazy: Some(secs(10.0)), ..settings() });
    story.at(0.0, Event::Tick).does([]);
    story.at(10.0, Event::Rotate(None)).does([LOG_IN]);
    story.at(10.0, Event::LoggedIn(T1, TokenFacts { sent_at: at(10.0), ..own(100_000.0) }));
    story.granted(10.0, G1, LEASE);
    story.at(10.0, Event::Proved(G1)).does([Action::Publish(G1)]);
    story.at(20.0, Event::Tick).does([Action::Unpublish]);
}

#[test]
fn a_lazy_route_keeps_its_credential_while_it_has_a_session() {
    let mut story = Story::new(Settings { lazy: Some(secs(10.0)), ..settings() });
    story.at(0.0, Event::Wanted).does([LOG_IN]);
    story.issued(0.0, G1, T1, endless(), LEASE);
    story.at(9.9, Event::InUse(true)).does([]);
    story.at(50.0, Event::InUse(false)).does([]);
    story.at(59.9, Event::InUse(true)).does([]);
    story.at(60.0, Event::InUse(false)).does([]);
    assert_eq!(story.role.next_deadline(), at(66.0), "its lease is renewed meanwhile");
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(66.0, renewed(G1, 66.0, LEASE)).does([]);
    story.at(70.0, Event::Tick).does([Action::Unpublish]);
}

#[test]
fn a_command_to_a_lazy_route_is_not_broken_off_for_want_of_a_session() {
    let mut story = Story::new(Settings { lazy: Some(secs(10.0)), ..settings() });
    story.at(0.0, Event::Wanted).does([LOG_IN]);
    story.issued(0.0, G1, T1, endless(), LEASE);
    story.at(9.0, Event::Rotate(None)).does([log_in(24.75)]);
    story.at(10.0, Event::Tick).does([]);
    story.issued(11.0, G2, T2, endless(), LEASE);
    story.at(12.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story.at(12.0, Event::LeaseRevoked(G1));
    story.at(12.0, Event::TokenRevoked(T1));
    story.at(21.0, Event::Tick).does([Action::Unpublish]);
}

#[test]
fn a_command_with_a_drain_cuts_every_earlier_generation_short() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(20.0)), ..settings() }, LEASE, endless());
    story.at(20.0, Event::Tick);
    story.issued(20.0, G2, T2, endless(), LEASE);
    story.at(30.0, Event::Rotate(Some(DrainSpan::For(secs(15.0))))).does([log_in(24.75)]);
    story.issued(32.0, G3, T3, endless(), LEASE);
    for number in [G1, G2] {
        let told = story.told(number);
        assert_eq!((told.hard_close_at, told.drain_from), (at(47.0), Some(at(32.0))), "{number}");
    }
    story.at(47.0, Event::Tick).does([]).is_closing(G1, Cause::CutShort).is_closing(G2, Cause::CutShort);
}

#[test]
fn a_command_with_a_drain_of_zero_ends_them_at_once() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(30.0, Event::Rotate(Some(DrainSpan::For(secs(0.0)))));
    story.issued(30.0, G2, T2, endless(), LEASE);
    story.is_closing(G1, Cause::CutShort);
}

#[test]
fn a_generation_cut_short_never_serves_again() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Rotate(Some(DrainSpan::For(secs(50.0)))));
    story.issued(10.0, G2, T2, endless(), LEASE);
    story.at(20.0, Event::Suspected(G2));
    story.at(20.0, not_renewed(G2, Failure::Gone));
    assert_eq!(story.role.current(), None);
    // No generation accepts new sessions, so no wait is longer than 3 s.
    assert_eq!(story.role.runs_until(story.now), None);
}

#[test]
fn a_command_that_fails_drains_nothing() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Rotate(Some(DrainSpan::For(secs(0.0))))).does([log_in(24.75)]);
    story
        .at(10.0, Event::LogInFailed(Failure::Transient))
        .does([Action::RotateFailed(NotRotated::LogIn(Failure::Transient))]);
    assert_eq!((story.role.current(), story.hard_close_at(G1)), (Some(G1), at(99.0)));
    // And it is not tried again by itself.
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
}

#[test]
fn a_command_does_not_wait_for_a_back_off() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LEASE, endless());
    story.at(10.0, Event::Tick);
    story.at(10.0, Event::LogInFailed(Failure::Transient)).does([]);
    story.at(10.1, Event::Rotate(None)).does([log_in(24.75)]);
}

#[test]
fn a_command_during_a_vain_login_for_a_longer_token_is_obeyed() {
    let mut story = Story::serving(settings(), 1005.0, handed(45.0));
    story.pass(28.0);
    story.at(28.0, token_renewed(T1, 28.0, 40.0)).does([log_in(249.75)]);
    story.at(28.1, Event::Rotate(None)).does([]);
    let facts = TokenFacts { sent_at: at(28.0), ttl: Some(secs(40.0)), ..handed(0.0) };
    story.at(28.2, Event::LoggedIn(T1, facts)).does([Action::Issue(T1)]);
}

#[test]
fn a_command_after_the_close_fails() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Close).does([Action::Unpublish]);
    story.at(10.0, Event::Rotate(None)).does([Action::RotateFailed(NotRotated::Closed)]);
}

#[test]
fn what_was_asked_for_by_an_earlier_configuration_delays_the_present_one_by_nothing() {
    let asking = || {
        let mut story = Story::new(settings());
        story.at(0.0, Event::Tick).does([LOG_IN]);
        // Back-offs that have grown long.
        let mut now = 0.0;
        for wait in [0.5, 1.0, 2.0, 3.0, 3.0] {
            story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
            now += wait;
            story.at(now, Event::Tick).does([LOG_IN]);
        }
        story
    };
    let mut story = asking();
    story.at(20.0, Event::Reload).does([]);
    story.at(21.0, Event::LogInFailed(Failure::Transient)).does([LOG_IN]);
    story.at(22.0, Event::LoggedIn(T1, endless())).does([Action::Issue(T1)]);

    let mut story = asking();
    story.at(20.0, Event::Reload).does([]);
    story.at(21.0, Event::LoggedIn(T1, endless())).does([LOG_IN, Action::RevokeToken(T1)]);

    let mut story = asking();
    story.at(20.0, Event::LoggedIn(T1, endless())).does([Action::Issue(T1)]);
    story.at(21.0, Event::Reload).does([]);
    story.at(22.0, Event::IssueFailed(Failure::Refused)).does([LOG_IN, Action::RevokeToken(T1)]);
    story.at(23.0, Event::LoggedIn(T2, endless())).does([Action::Issue(T2)]);
    // What fails now fails by this configuration.
    story.at(24.0, Event::IssueFailed(Failure::Refused)).does([]);
}
