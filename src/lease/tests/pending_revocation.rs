//! Leases that were revoked with their token: they are looked up until they are gone, or are reported as staying.

use super::script::*;
use crate::lease::{Action, Event, Failure, LeaseLookup, Note, Outcome};

/// Generation 1 is retired by 2 at second 10, and its token is revoked at second 13.
fn finish_revocation() -> Story {
    let mut story = Story::serving(settings(), 1000.0, own(100_000.0));
    story.at(10.0, Event::Rotate(None));
    story.issued(10.0, G2, T2, own(100_000.0), 1000.0);
    story.at(11.0, empty(G1)).does([Action::RevokeLease(G1, T1)]);
    story
        .at(12.0, Event::LeaseRevokeFailed(G1, Failure::Forbidden))
        .does([Action::DropCredential(G1), Action::RevokeToken(T1)]);
    story.at(13.0, Event::TokenRevoked(T1)).does([Action::ForgetToken(T1)]);
    story
}

fn seen(lookup: LeaseLookup) -> Event {
    Event::LeaseLookedUp(G1, lookup)
}

#[test]
fn a_lease_that_is_gone_was_given_back_with_its_token() {
    let mut story = finish_revocation();
    story.at(14.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story
        .at(14.1, seen(LeaseLookup::Missing))
        .does([Action::Forget(G1)])
        .notes(Note::Returned(G1, Outcome::Token));
}

#[test]
fn a_lease_that_is_there_is_looked_up_four_times_and_said_to_stay() {
    let mut story = finish_revocation();
    for second in [14.0, 16.0, 20.0] {
        story.at(second, Event::Tick).does([Action::LookUpLease(G1, T2)]);
        story
            .at(second, seen(LeaseLookup::Present))
            .does([])
            .does_not_note(Note::Returned(G1, Outcome::Stays));
    }
    story.at(28.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story
        .at(28.0, seen(LeaseLookup::Present))
        .does([Action::Forget(G1)])
        .notes(Note::Returned(G1, Outcome::Stays));
    assert_eq!(story.pass(600.0), [], "nobody looks again");
}

#[test]
fn one_that_goes_at_a_later_look_was_given_back() {
    let mut story = finish_revocation();
    story.at(14.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story.at(14.0, seen(LeaseLookup::Present)).does([]);
    story.at(16.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story.at(16.0, seen(LeaseLookup::Missing)).notes(Note::Returned(G1, Outcome::Token));
}

#[test]
fn what_nobody_could_see_does_not_count_as_gone() {
    let mut story = finish_revocation();
    story.at(14.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story
        .at(14.0, seen(LeaseLookup::Forbidden))
        .does([Action::Forget(G1)])
        .notes(Note::Returned(G1, Outcome::Unverified));

    let mut story = finish_revocation();
    for second in [14.0, 16.0, 20.0, 28.0] {
        story.at(second, Event::Tick).does([Action::LookUpLease(G1, T2)]);
        story.at(second, seen(LeaseLookup::Unknown));
    }
    story.does([Action::Forget(G1)]).notes(Note::Returned(G1, Outcome::Unverified));
}

#[test]
fn nobody_waits_for_it_at_the_close() {
    let mut story = finish_revocation();
    story
        .at(13.5, Event::Close)
        .does([Action::Unpublish, Action::Forget(G1)])
        .notes(Note::Returned(G1, Outcome::Unverified));

    let mut story = finish_revocation();
    story.at(14.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story.at(14.2, Event::Close).notes(Note::Returned(G1, Outcome::Unverified));
    story.at(14.3, seen(LeaseLookup::Present)).does([]).does_not_note(Note::Returned(G1, Outcome::Stays));
}

#[test]
fn a_dead_tokens_lease_is_looked_up_as_well() {
    let mut story = Story::serving(settings(), 1000.0, own(100_000.0));
    story.at(10.0, Event::Rotate(None));
    story.issued(10.0, G2, T2, own(100_000.0), 1000.0);
    story.at(11.0, empty(G1));
    story
        .at(12.0, Event::LeaseRevokeFailed(G1, Failure::TokenDead))
        .does([Action::DropCredential(G1), Action::RevokeToken(T1)]);
    story.at(12.5, Event::TokenRevokeFailed(T1, Failure::TokenDead)).does([Action::ForgetToken(T1)]);
    story.at(13.0, Event::Tick).does([Action::LookUpLease(G1, T2)]);
    story.at(13.1, seen(LeaseLookup::Missing)).notes(Note::Returned(G1, Outcome::Token));
}
