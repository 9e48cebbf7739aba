//! What follows for leases and tokens that are not needed any more.

use super::script::*;
use crate::lease::Cause;
use crate::lease::{Action, Event, Failure, LeaseLookup, NotRotated, Note, Outcome, Settings, TokenFacts};

const LEASE: f64 = 105.0;

/// Generation 1 under token 1 is retired by 2 under token 2 at second 10.
fn rotated(settings: Settings, first: TokenFacts) -> Story {
    let mut story = Story::serving(settings, LEASE, first);
    story.at(10.0, Event::Rotate(None)).does([log_in(24.75)]);
    story.issued(10.0, G2, T2, own(100_000.0), LEASE);
    story
}

#[test]
fn a_retired_generation_without_sessions_is_revoked_by_its_lease_then_its_token() {
    let mut story = rotated(settings(), endless());
    story.at(11.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story.at(12.0, Event::LeaseRevoked(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
    story.notes(Note::Returned(G1, Outcome::Lease));
    story.at(13.0, Event::TokenRevoked(T1)).does([Action::ForgetToken(T1)]);
}

#[test]
fn where_the_policy_forbids_that_its_own_token_is_revoked() {
    let mut story = rotated(settings(), endless());
    story.at(11.0, empty(G1));
    story
        .at(12.0, Event::LeaseRevokeFailed(G1, Failure::Forbidden))
        .does([Action::DropCredential(G1), Action::RevokeToken(T1)]);
    story
        .at(13.0, Event::TokenRevoked(T1))
        .does([Action::ForgetToken(T1)])
        .does_not_note(Note::Returned(G1, Outcome::Token));
    // The outcome of the lease is looked up with its successor's token.
    story.at(14.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story.at(14.0, Event::LeaseLookedUp(G1, LeaseLookup::Missing)).notes(Note::Returned(G1, Outcome::Token));
}

#[test]
fn where_both_are_forbidden_it_lapses() {
    let mut story = rotated(settings(), endless());
    story.at(11.0, empty(G1));
    story.at(12.0, Event::LeaseRevokeFailed(G1, Failure::Forbidden));
    story
        .at(13.0, Event::TokenRevokeFailed(T1, Failure::Forbidden))
        .does([Action::Forget(G1), Action::ForgetToken(T1)]);
    story.notes(Note::Returned(G1, Outcome::Forbidden));
}

#[test]
fn a_handed_token_is_never_revoked() {
    let mut story = rotated(settings(), handed(10_000.0));
    story.at(11.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story
        .at(12.0, Event::LeaseRevokeFailed(G1, Failure::Forbidden))
        .does([Action::Forget(G1), Action::ForgetToken(T1)]);
    story.notes(Note::Returned(G1, Outcome::Forbidden));
}

#[test]
fn a_shared_token_is_revoked_only_after_its_last_generation() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LEASE, own(1000.0));
    story.at(10.0, Event::Tick).does([log_in(24.75)]);
    // The login is refused: the next lease is requested under the token that lives.
    story.at(10.0, Event::LogInFailed(Failure::Refused)).does([Action::Issue(T1)]);
    story.granted(10.0, G2, LEASE);
    story.at(10.0, Event::Proved(G2)).does([Action::Publish(G2)]);
    story.at(11.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story.at(12.0, Event::LeaseRevokeFailed(G1, Failure::Forbidden)).does([Action::DropCredential(G1)]);
    story.at(13.0, Event::Close).does([Action::Unpublish]);
    story.at(14.0, empty(G2)).does([Action::RevokeLease(G2, T1)]);
    story
        .at(15.0, Event::LeaseRevokeFailed(G2, Failure::Forbidden))
        .does([Action::DropCredential(G2), Action::RevokeToken(T1)]);
    story.at(16.0, Event::TokenRevoked(T1)).does([
        Action::ForgetToken(T1),
        Action::Forget(G1),
        Action::Forget(G2),
    ]);
    story.notes(Note::Returned(G1, Outcome::Unverified)).notes(Note::Returned(G2, Outcome::Unverified));
    assert!(story.role.is_empty());
}

#[test]
fn a_token_is_renewed_until_its_last_generation_has_ended() {
    let mut story = rotated(settings(), own(45.0));
    let renewals = story.pass(40.0);
    assert!(renewals.iter().any(|(_, action)| matches!(action, Action::RenewToken(T1, _))), "{renewals:?}");
    story.at(40.0, token_renewed(T1, 40.0, 45.0));
    story.at(41.0, empty(G1));
    story.at(41.0, Event::LeaseRevoked(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
}

#[test]
fn a_lease_with_a_stray_session_is_left_to_lapse_and_its_token_with_it() {
    let mut story = rotated(settings(), own(100_000.0));
    story
        .at(11.0, Event::Empty { number: G1, open_upstream: true })
        .does([])
        .notes(Note::Returned(G1, Outcome::Failed));
    story.at(76.0, Event::Tick).does([renew(G2, T2, 24.75)]);
    story.at(76.0, renewed(G2, 76.0, 10_000.0)).does([]);
    story.at(105.0, Event::Tick).does([Action::Forget(G1), Action::RevokeToken(T1)]);
}

#[test]
fn a_revocation_that_fails_is_tried_again_until_the_lease_lapses() {
    let mut story = rotated(settings(), endless());
    story.at(11.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    let mut now = 11.0;
    for wait in [0.5, 1.0, 2.0, 4.0] {
        story.at(now, Event::LeaseRevokeFailed(G1, Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([Action::RevokeLease(G1, T1)]);
    }
    story.at(76.0, Event::Tick).does([renew(G2, T2, 24.75)]);
    story.at(76.0, renewed(G2, 76.0, 10_000.0)).does([]);
    story.at(104.9, Event::LeaseRevokeFailed(G1, Failure::TimedOut)).does([]);
    story.at(105.0, Event::Tick).does([Action::Forget(G1), Action::RevokeToken(T1)]);
}

#[test]
fn with_several_addresses_giving_back_waits_until_the_successor_is_old_enough() {
    let mut story = rotated(Settings { replica_grace: secs(30.0), ..settings() }, endless());
    assert!(!story.ends_when_empty.contains(&G1));
    // The role wakes when the time has come, so that the driver looks again.
    story.at(40.0, Event::Tick);
    assert!(story.ends_when_empty.contains(&G1));
}

#[test]
fn after_the_close_nothing_waits_for_replicas() {
    let mut story = rotated(Settings { replica_grace: secs(30.0), ..settings() }, endless());
    story.at(11.0, Event::Close).does([Action::Unpublish]);
    assert!([G1, G2].iter().all(|number| story.ends_when_empty.contains(number)));
}

#[test]
fn the_current_generation_does_not_end_when_it_is_empty() {
    let story = rotated(settings(), endless());
    assert!(!story.ends_when_empty.contains(&G2) && story.ends_when_empty.contains(&G1));
}

#[test]
fn the_token_of_a_creds_request_that_timed_out_is_held_until_that_is_settled() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::LoggedIn(T1, own(1000.0))).does([Action::Issue(T1)]);
    story.at(10.0, Event::IssueFailed(Failure::TimedOut)).does([]);
    story.at(10.5, Event::Tick).does([LOG_IN]);
    story.at(11.0, Event::LateReply(T1)).does([Action::RevokeToken(T1)]);
}

#[test]
fn a_lease_that_came_without_a_credential_is_given_back() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(10.0, Event::Rotate(None)).does([log_in(24.75)]);
    story.at(10.0, Event::LoggedIn(T2, own(1000.0))).does([Action::Issue(T2)]);
    story
        .at(10.1, Event::IssueFailed(Failure::Unusable))
        .does([Action::RotateFailed(NotRotated::Issue(Failure::Unusable))]);
    let left = Event::LeaseLeft { token: T2, sent_at: at(10.0), lease: secs(3600.0) };
    story.at(10.2, left).does([Action::RevokeLease(G2, T2)]);
    story.at(10.2, Event::LateReply(T2)).does([]);
    // It is tried again, like any other lease that is given back.
    story.at(10.3, Event::LeaseRevokeFailed(G2, Failure::Transient)).does([]);
    story.at(10.8, Event::Tick).does([Action::RevokeLease(G2, T2)]);
    story.at(10.9, Event::LeaseRevoked(G2)).does([Action::Forget(G2), Action::RevokeToken(T2)]);
    story.notes(Note::Returned(G2, Outcome::Lease));
}

#[test]
fn a_lease_in_another_namespace_does_not_go_with_its_token() {
    let mut story = rotated(settings(), own(1000.0));
    story.at(11.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story.at(11.1, Event::LeaseStays(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
    story.notes(Note::Returned(G1, Outcome::Forbidden));
    story.at(11.2, Event::TokenRevoked(T1)).does([Action::ForgetToken(T1)]);
}

#[test]
fn a_login_refused_issues_under_the_living_token() {
    let mut story = rotated(settings(), own(1000.0));
    story.at(20.0, Event::Rotate(None)).does([log_in(24.75)]);
    story.at(20.0, Event::LogInFailed(Failure::Refused)).does([Action::Issue(T2)]);
}

#[test]
fn a_dead_token_is_not_a_living_one() {
    let mut story = Story::serving(settings(), LEASE, own(1000.0));
    story.at(66.0, Event::Tick);
    story.at(66.0, not_renewed(G1, Failure::TokenDead)).does([Action::Unpublish, LOG_IN]);
    story.at(66.0, Event::LogInFailed(Failure::Refused)).does([]);
}

#[test]
fn a_login_kept_for_the_next_try_is_used_and_revoked_in_the_end() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::LoggedIn(T1, own(1000.0))).does([Action::Issue(T1)]);
    story.at(0.0, Event::IssueFailed(Failure::Transient)).does([]);
    story.at(0.5, Event::Tick).does([Action::Issue(T1)]);
    story.at(0.5, Event::IssueFailed(Failure::Transient)).does([]);
    story.at(0.6, Event::Close).does([Action::RevokeToken(T1)]);
}

#[test]
fn the_close_gives_everything_back_and_issues_nothing() {
    let mut story = rotated(settings(), endless());
    story.at(15.0, Event::Close).does([Action::Unpublish]);
    story.at(15.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story.at(15.0, Event::LeaseRevoked(G1)).does([Action::Forget(G1), Action::RevokeToken(T1)]);
    story.at(15.0, Event::TokenRevoked(T1)).does([Action::ForgetToken(T1)]);
    // Renewals go on while there are sessions, and no rotation comes.
    story.at(76.0, Event::Tick).does([renew(G2, T2, 24.75)]);
    story.at(76.0, not_renewed(G2, Failure::CannotExtend)).does([]);
    story.at(109.0, Event::Tick).does([]).is_closing(G2, Cause::LeaseEnd);
    story.at(110.0, empty(G2)).does([Action::RevokeLease(G2, T2)]);
    story.at(110.0, Event::LeaseRevoked(G2)).does([Action::Forget(G2), Action::RevokeToken(T2)]);
    story.at(110.0, Event::TokenRevoked(T2)).does([Action::ForgetToken(T2)]);
    assert!(story.role.is_empty());
}

#[test]
fn an_issuance_in_flight_at_the_close_is_given_back() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::LoggedIn(T1, own(1000.0))).does([Action::Issue(T1)]);
    story.at(0.0, Event::Close).does([]);
    assert!(!story.role.is_empty());
    story.at(1.0, granted(0.0, LEASE, true)).does([Action::RevokeLease(G1, T1)]);
}

#[test]
fn a_login_in_flight_at_the_close_is_given_back() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::Close).does([]);
    story.at(1.0, Event::LoggedIn(T1, own(1000.0))).does([Action::RevokeToken(T1)]);
}

#[test]
fn a_stale_word_about_a_token_in_use_does_not_drop_it() {
    let mut story = rotated(settings(), own(45.0));
    story.at(11.0, Event::TokenRevoked(T1)).does([]);
    story.at(11.0, Event::TokenRevokeFailed(T1, Failure::TokenDead)).does([]);
    assert_eq!(story.hard_close_at(G1), at(41.75));
}
