//! A current credential that the server refuses: when it is proved, when it is replaced, and what waits for that.

use super::script::*;
use crate::lease::{Action, Event, Failure, GenerationId, NotRotated, Note, Reason, Settings, TokenId};

const LONG: f64 = 100_005.0;

fn long() -> Story {
    Story::serving(settings(), LONG, endless())
}

#[test]
fn a_refused_credential_is_replaced_once_a_minute_and_then_less_often() {
    let mut story = long();
    let mut number = 1;
    let mut replace = |story: &mut Story, now: f64| {
        let refused = GenerationId::new(number);
        story.at(now, Event::Replace(refused));
        if story.role.is_proving_refused(refused) {
            story.at(now, Event::ProofRefused(refused));
        }
        if story.role.issuance() == crate::lease::issuance::State::Idle {
            story.does([Action::TooEarly(refused)]);
            return false;
        }
        number += 1;
        story.issued(now, refused.next(), TokenId(number), endless(), LONG);
        story.at(now, empty(refused));
        true
    };
    // At once, then after 1, 2, 4, 8, 10, 10 minutes; not a moment before.
    let mut now = 100.0;
    assert!(replace(&mut story, now));
    for wait in [60.0, 120.0, 240.0, 480.0, 600.0, 600.0] {
        assert!(!replace(&mut story, now + wait - 0.1), "{wait}");
        now += wait;
        assert!(replace(&mut story, now), "{wait}");
    }
    // After another interval without a request the limit starts again.
    now += 1200.0;
    assert!(replace(&mut story, now));
    assert!(replace(&mut story, now + 60.0));
}

#[test]
fn a_credential_that_the_proof_lets_in_is_not_replaced_and_proved_every_five_seconds_at_most() {
    let mut story = long();
    story.at(10.0, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.at(10.1, Event::Replace(G1)).does([]);
    story.at(10.2, Event::Proved(G1)).does([Action::LetsIn(G1)]);
    for tenth in 0..50 {
        story.at(10.2 + f64::from(tenth) / 10.0, Event::Replace(G1)).does([Action::LetsIn(G1)]);
    }
    story.at(15.3, Event::Replace(G1)).does([Action::Prove(G1)]);
    // The limit was not used: a credential that is really refused is replaced at once.
    story.at(15.3, Event::ProofRefused(G1)).does([log_in(24_999.75)]).notes(Note::Issuing(Reason::Refused));
}

#[test]
fn what_no_server_can_say_of_a_refused_credential_does_not_keep_it() {
    let mut story = long();
    story.at(10.0, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.at(10.0, Event::Unprovable(G1)).does([log_in(24_999.75)]).notes(Note::Issuing(Reason::Refused));
}

#[test]
fn the_proof_of_a_credential_that_was_replaced_meanwhile_changes_nothing() {
    let mut story = long();
    story.at(10.0, Event::Rotate(None)).does([log_in(24_999.75)]);
    story.at(10.1, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.issued(10.2, G2, T2, endless(), LONG);
    story.at(10.3, Event::ProofRefused(G1)).does([]);
    story.at(10.4, Event::Replace(G2)).does([Action::Prove(G2)]);
}

/// A route whose refused credential was replaced at second 5: no other replacement is allowed yet.
fn replaced_lately(settings: Settings) -> Story {
    let mut story = Story::serving(settings, LONG, endless());
    story.at(5.0, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.at(5.0, Event::ProofRefused(G1)).does([log_in(24_999.75)]);
    story.issued(5.0, G2, T2, endless(), LONG);
    story.at(5.0, empty(G1));
    story
}

#[test]
fn a_refused_login_waits_for_an_issuance_under_way_whatever_it_is_for() {
    let begin: [(Settings, Event); 2] = [
        (settings(), Event::Rotate(None)),
        (Settings { rotate_after: Some(secs(15.0)), ..settings() }, Event::Tick),
    ];
    for (settings, begins) in begin {
        let mut story = replaced_lately(settings);
        story.at(20.0, begins).does([log_in(24_999.75)]);
        story.at(20.1, Event::Replace(G2)).does([Action::Prove(G2)]);
        story.at(20.1, Event::ProofRefused(G2)).does([]);
        story.at(20.2, Event::LoggedIn(T3, endless())).does([Action::Issue(T3)]);
        story.at(20.3, Event::Replace(G2)).does([]);
        story.granted(20.4, G3, LONG);
        story.at(20.5, Event::Replace(G2)).does([]);
        story.at(20.6, Event::Proved(G3)).does([Action::Publish(G3)]);
        // No request for a fresh credential is in flight.
        story.at(20.7, Event::Replace(G3)).does([Action::Prove(G3)]);
        story.at(20.7, Event::ProofRefused(G3)).does([Action::TooEarly(G3)]);
    }
}

#[test]
fn a_refused_login_waits_while_vault_is_asked_again_and_hears_when_nothing_comes_any_more() {
    let mut story = replaced_lately(Settings { rotate_after: Some(secs(15.0)), ..settings() });
    story.at(20.0, Event::Tick).does([log_in(24_999.75)]);
    story.at(20.1, Event::Replace(G2)).does([Action::Prove(G2)]);
    story.at(20.1, Event::ProofRefused(G2)).does([]);
    story.at(20.2, Event::LogInFailed(Failure::Transient)).does([]);
    story.at(20.7, Event::Tick).does([log_in(24_999.75)]);
    story.at(20.8, Event::LoggedIn(T3, endless())).does([Action::Issue(T3)]);
    story.at(20.9, Event::IssueFailed(Failure::Refused)).does([Action::TooEarly(G2)]);
    story.at(21.0, Event::Replace(G2)).does([Action::TooEarly(G2)]);
}

#[test]
fn a_refused_login_that_waits_for_a_command_hears_when_it_has_failed() {
    let mut story = replaced_lately(settings());
    story.at(20.0, Event::Rotate(None)).does([log_in(24_999.75)]);
    story.at(20.1, Event::Replace(G2)).does([Action::Prove(G2)]);
    story.at(20.1, Event::ProofRefused(G2)).does([]);
    story
        .at(20.2, Event::LogInFailed(Failure::Transient))
        .does([Action::RotateFailed(NotRotated::LogIn(Failure::Transient)), Action::TooEarly(G2)]);
}

#[test]
fn what_was_to_stand_by_serves_the_login_that_waits_for_it() {
    // The first standby is needed at once, but the limit allows no request.
    let mut story = Story::serving(Settings { standby: true, ..settings() }, LONG, endless());
    story.at(10.0, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.at(10.0, Event::ProofRefused(G1)).does([]);
    story.issued(10.0, G2, T2, endless(), LONG);
    story.at(10.0, Event::LoggedIn(T3, endless())).does([Action::Issue(T3)]);
    story.at(20.0, Event::Replace(G2)).does([Action::Prove(G2)]);
    story.at(20.0, Event::ProofRefused(G2)).does([]);
    story.granted(20.1, G3, LONG);
    story.at(20.2, Event::Proved(G3)).does([Action::Publish(G3), log_in(24_999.75)]);
}

#[test]
fn a_word_about_a_generation_that_is_not_current_replaces_nothing() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LONG, endless());
    story.at(10.0, Event::Tick);
    story.issued(10.0, G2, T2, endless(), LONG);
    story.at(11.0, Event::Replace(G1)).does([]);
}
