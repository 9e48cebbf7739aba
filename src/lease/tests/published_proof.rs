//! The proof of a credential that is published already.

use super::script::*;
use crate::lease::{Action, Barrier, Event};

const LEASE: f64 = 105.0;

/// A route whose first credential was published at second 1 without a proof.
fn published_unproved() -> Story {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::LoggedIn(T1, endless())).does([Action::Issue(T1)]);
    story.granted(0.0, G1, LEASE);
    story.at(1.0, Event::Unprovable(G1)).does([Action::Publish(G1)]);
    story
}

#[test]
fn what_was_published_unproved_is_proved_until_a_server_lets_it_in() {
    let mut story = published_unproved();
    story.at(2.0, Event::Tick).does([]);
    assert_eq!(story.published_proofs, [(at(2.0), G1)]);
    story.at(5.0, Event::PublishedProofEnded(G1));
    assert_eq!(story.published_proofs.len(), 1, "a second after the first has ended");
    story.at(6.0, Event::Tick);
    story.at(6.0, Event::PublishedProofEnded(G1));
    story.at(8.0, Event::Tick);
    assert_eq!(story.published_proofs[1..], [(at(6.0), G1), (at(8.0), G1)]);
    story.at(9.0, Event::Accepted(G1));
    story.at(9.0, Event::PublishedProofEnded(G1));
    story.at(60.0, Event::Tick);
    assert_eq!(story.published_proofs.len(), 3);
}

#[test]
fn where_no_session_can_log_in_the_current_credential_is_proved_until_one_can() {
    let mut story = published_unproved();
    story.at(1.5, Event::Accepted(G1));
    story.at(20.0, Event::Barred(Barrier::Unsuitable)).does([Action::Barred]);
    assert_eq!(story.published_proofs, []);
    story.at(21.0, Event::Tick);
    assert_eq!(story.published_proofs, [(at(21.0), G1)]);
    story.at(22.0, Event::Accepted(G1)).does([Action::Unbarred]);
    story.at(22.0, Event::Accepted(G1)).does([]);
}

#[test]
fn while_no_server_gives_sessions_the_current_credential_is_proved_and_nothing_is_barred() {
    for passing in [Barrier::Passing, Barrier::Lasting] {
        let mut story = published_unproved();
        story.at(1.5, Event::Accepted(G1));
        story.at(10.0, Event::Barred(passing)).does([]);
        assert_eq!(story.published_proofs, []);
        story.at(11.0, Event::Tick);
        assert_eq!(story.published_proofs, [(at(11.0), G1)], "{passing:?}");
        story.at(11.5, Event::Barred(passing)).does([]);
        story.at(11.5, Event::PublishedProofEnded(G1));
        story.at(12.5, Event::Tick);
        story.at(13.0, Event::Accepted(G1)).does([]);
        story.at(13.0, Event::PublishedProofEnded(G1));
        story.at(60.0, Event::Tick);
        assert_eq!(story.published_proofs.len(), 2, "{passing:?}");
    }
}
