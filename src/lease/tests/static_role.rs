//! A static role: its password is read again when it is due, when a login is refused, and when an operator asks.

use std::time::Duration;

use super::script::{G1, G2};
use crate::lease::{
    Action, Barrier, Event, Failure, NotRotated, Note, StaticRole, TokenFacts, TokenId, Verdict,
};
use crate::time::Time;

const TOKEN: TokenId = TokenId(1);

fn at(seconds: u64) -> Time {
    Time::from_nanos(1_000_000_000_000) + Duration::from_secs(seconds)
}

fn facts(now: Time) -> TokenFacts {
    TokenFacts { sent_at: now, ttl: Some(Duration::from_secs(100_000)), renewable: true, owned: true }
}

fn is_read(actions: &[Action]) -> bool {
    actions.contains(&Action::Issue(TOKEN))
}

fn new_password(sent_at: Time, ttl: u64) -> Event {
    Event::Granted { sent_at, lease: Duration::from_secs(ttl), renewable: false }
}

fn unchanged(sent_at: Time, ttl: u64) -> Event {
    Event::Unchanged { sent_at, lease: Duration::from_secs(ttl) }
}

/// A role that has read its first password, which is valid for `ttl`, at 0.
fn started(ttl: u64) -> StaticRole {
    let mut role = StaticRole::new(0);
    assert_eq!(role.handle(at(0), Event::Tick), [Action::LogIn { within: None }]);
    assert!(is_read(&role.handle(at(0), Event::LoggedIn(TOKEN, facts(at(0))))));
    let actions = role.handle(at(0), new_password(at(0), ttl));
    assert!(actions.contains(&Action::Publish(G1)), "{actions:?}");
    role
}

#[test]
fn is_read_again_a_second_after_its_end() {
    let mut role = started(60);
    assert_eq!(role.next_deadline(), at(61));
    assert_eq!(role.handle(at(60), Event::Tick), []);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
}

#[test]
fn is_polled_with_growing_steps_while_the_rotation_is_late() {
    let mut role = started(60);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
    let mut now = at(61);
    for step in [1, 2, 4, 5, 5] {
        assert_eq!(role.handle(now, unchanged(now, 0)), []);
        now = now + Duration::from_secs(step);
        assert_eq!(role.next_deadline(), now, "after {step} s");
        assert!(is_read(&role.handle(now, Event::Tick)));
    }
    let actions = role.handle(now, new_password(now, 60));
    assert!(actions.contains(&Action::Publish(G2)));
    assert_eq!(role.next_deadline(), now + Duration::from_secs(61));
}

#[test]
fn a_rotation_ends_and_drains_nothing() {
    let mut role = started(60);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
    let actions = role.handle(at(61), new_password(at(61), 60));
    let told: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::NotifySessions(number, ending) => Some((*number, *ending)),
            _ => None,
        })
        .collect();
    assert!(
        told.iter().all(|(_, ending)| ending.drain_from.is_none() && ending.closing.is_none()),
        "{told:?}"
    );
    assert!(actions.contains(&Action::EndWhenEmpty(G1)) && !actions.contains(&Action::EndWhenEmpty(G2)));
    assert_eq!(role.handle(at(70), Event::Empty { number: G1, open_upstream: false }), [Action::Forget(G1)]);
}

#[test]
fn a_refused_login_reads_at_once_and_waits_for_the_answer() {
    let mut role = started(3600);
    assert!(is_read(&role.handle(at(100), Event::Suspected(G1))));
    assert_eq!(role.handle(at(100), Event::Suspected(G1)), [], "one read for all who wait");
    let actions = role.handle(at(100), new_password(at(100), 3600));
    let publish = actions.iter().position(|action| *action == Action::Publish(G2)).unwrap();
    let answers = actions.iter().filter(|action| **action == Action::Answer(G1, Verdict::Lost)).count();
    assert_eq!(answers, 1, "one answer for all who wait");
    assert!(publish < actions.iter().position(|a| *a == Action::Answer(G1, Verdict::Lost)).unwrap());
}

#[test]
fn a_refused_login_is_polled_for_until_the_password_changes() {
    let mut role = started(3600);
    assert!(is_read(&role.handle(at(100), Event::Suspected(G1))));
    assert!(role.handle(at(100), unchanged(at(100), 3500)).contains(&Action::Answer(G1, Verdict::Alive)));
    role.handle(at(100), Event::Replace(G1));
    assert!(role.next_deadline() <= at(102));
    assert!(is_read(&role.handle(at(102), Event::Tick)));
    assert!(role.handle(at(102), new_password(at(102), 3600)).contains(&Action::Publish(G2)));
    assert_eq!(role.next_deadline(), at(102 + 3601));
}

#[test]
fn logins_that_stay_refused_are_no_flood_of_reads() {
    let mut role = started(3600);
    let mut reads = 0;
    for tenth in 0..600 {
        let now = at(100) + Duration::from_millis(tenth * 100);
        // An app repeats its login with a password that was changed in the database.
        let actions = role.handle(now, Event::Suspected(G1));
        if is_read(&actions) {
            reads += 1;
            role.handle(now, unchanged(now, 3500));
            role.handle(now, Event::Replace(G1));
        }
    }
    assert!((12..=17).contains(&reads), "{reads} reads in a minute");
}

#[test]
fn whoever_waits_for_a_read_is_told_when_there_will_be_none() {
    let mut role = started(60);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
    assert_eq!(role.handle(at(61), Event::IssueFailed(Failure::Transient)), []);
    assert_eq!(role.handle(at(61), Event::Suspected(G1)), []);
    let actions = role.handle(at(61), Event::Close);
    assert!(actions.contains(&Action::Answer(G1, Verdict::Silent)), "{actions:?}");
}

#[test]
fn a_command_waits_out_no_back_off() {
    let mut role = started(60);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
    assert_eq!(role.handle(at(61), Event::IssueFailed(Failure::Transient)), []);
    assert!(is_read(&role.handle(at(61), Event::Rotate(None))));
    assert_eq!(
        role.handle(at(61), Event::IssueFailed(Failure::Transient)),
        [Action::RotateFailed(NotRotated::Issue(Failure::Transient))]
    );
}

#[test]
fn a_failed_read_keeps_the_password_and_is_tried_again() {
    let mut role = started(60);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
    assert_eq!(role.handle(at(61), Event::IssueFailed(Failure::Transient)), []);
    assert_eq!(role.current(), Some(G1));
    assert_eq!(role.next_deadline(), at(61) + Duration::from_millis(500));
}

#[test]
fn a_dead_token_is_replaced_by_a_login() {
    let mut role = started(60);
    assert!(is_read(&role.handle(at(61), Event::Tick)));
    let actions = role.handle(at(61), Event::IssueFailed(Failure::TokenDead));
    assert_eq!(actions, [Action::ForgetToken(TOKEN)]);
    assert_eq!(role.handle(at(62), Event::Tick), [Action::LogIn { within: None }]);
}

#[test]
fn a_command_reads_now_and_says_what_is_current() {
    let mut role = started(3600);
    assert!(is_read(&role.handle(at(100), Event::Rotate(None))));
    assert!(role.handle(at(100), unchanged(at(100), 3500)).contains(&Action::RotateDone(G1)));
    assert!(is_read(&role.handle(at(200), Event::Rotate(None))));
    let actions = role.handle(at(200), new_password(at(200), 3600));
    assert!(
        actions.iter().any(|a| matches!(a, Action::Note(Note::Published { number: G2, .. }))),
        "{actions:?}"
    );
}

#[test]
fn the_end_gives_the_token_back() {
    let mut role = started(3600);
    let actions = role.handle(at(100), Event::Close);
    assert_eq!(actions, [Action::Unpublish, Action::EndWhenEmpty(G1), Action::RevokeToken(TOKEN)]);
    assert_eq!(role.handle(at(100), Event::Empty { number: G1, open_upstream: false }), [Action::Forget(G1)]);
    assert_eq!(role.handle(at(101), Event::TokenRevoked(TOKEN)), [Action::ForgetToken(TOKEN)]);
    assert!(role.is_empty());
    assert_eq!(role.next_deadline(), Time::NEVER);
}

#[test]
fn another_configuration_is_tried_at_once_whatever_has_failed_by_the_earlier_one() {
    let mut role = StaticRole::new(0);
    role.handle(at(0), Event::Tick);
    role.handle(at(0), Event::LoggedIn(TOKEN, facts(at(0))));
    assert_eq!(role.handle(at(1), Event::Reload), []);
    assert!(is_read(&role.handle(at(2), Event::IssueFailed(Failure::Refused))));
    for second in [3, 4, 6] {
        role.handle(at(second), Event::IssueFailed(Failure::Refused));
        role.handle(role.next_deadline(), Event::Tick);
    }
    role.handle(at(20), Event::IssueFailed(Failure::Refused));
    assert!(role.next_deadline() > at(21));
    assert!(is_read(&role.handle(at(21), Event::Reload)));
}

#[test]
fn a_password_that_the_server_refuses_is_proved_again_until_it_lets_in() {
    let mut role = started(3600);
    assert!(!role.is_refused());
    assert!(!role.handle(at(1), Event::ProofRefused(G1)).contains(&Action::LetsIn(G1)));
    assert!(role.is_refused());
    let mut proofs = 0;
    for second in 2..122 {
        let now = at(second);
        let actions = role.handle(now, Event::Tick);
        if is_read(&actions) {
            role.handle(now, unchanged(now, 3500));
        }
        if actions.contains(&Action::Prove(G1)) {
            proofs += 1;
            let found = if second > 60 { Event::Proved(G1) } else { Event::ProofRefused(G1) };
            role.handle(now, found);
        }
    }
    assert!(!role.is_refused());
    assert!((3..=6).contains(&proofs), "{proofs} proofs, the last of which lets in");
}

#[test]
fn a_fresh_password_is_proved_and_an_unprovable_one_is_not_refused() {
    let mut role = StaticRole::new(0);
    role.handle(at(0), Event::Tick);
    role.handle(at(0), Event::LoggedIn(TOKEN, facts(at(0))));
    let actions = role.handle(at(0), new_password(at(0), 60));
    let publish = actions.iter().position(|action| *action == Action::Publish(G1)).unwrap();
    assert!(actions.iter().skip(publish).any(|action| *action == Action::Prove(G1)), "{actions:?}");
    role.handle(at(1), Event::Unprovable(G1));
    assert!(!role.is_refused());
}

#[test]
fn a_login_that_one_database_refuses_hears_that_the_password_is_good() {
    let mut role = started(3600);
    assert_eq!(role.handle(at(1), Event::Proved(G1)), []);
    assert_eq!(
        role.handle(at(2), Event::Replace(G1)),
        [Action::Prove(G1)],
        "an earlier proof does not count"
    );
    assert_eq!(role.handle(at(2), Event::Replace(G1)), []);
    assert_eq!(role.handle(at(3), Event::Proved(G1)), [Action::LetsIn(G1)]);
    assert_eq!(role.handle(at(6), Event::Replace(G1)), [Action::LetsIn(G1)]);
    assert_eq!(role.next_deadline(), at(3601), "and nothing is read for it");
}

#[test]
fn where_no_session_can_log_in_the_current_password_is_proved_until_one_can() {
    let mut role = started(3600);
    role.handle(at(0), Event::Proved(G1));
    assert_eq!(role.handle(at(10), Event::Tick), [], "it needs no proof otherwise");
    assert_eq!(role.handle(at(10), Event::Barred(Barrier::Unsuitable)), [Action::Barred]);
    assert_eq!(role.next_deadline(), at(11));
    assert_eq!(role.handle(at(11), Event::Tick), [Action::ProvePublished(G1)]);
    assert_eq!(role.handle(at(12), Event::PublishedProofEnded(G1)), []);
    assert_eq!(role.handle(at(13), Event::Tick), [Action::ProvePublished(G1)]);
    assert_eq!(role.handle(at(14), Event::Accepted(G1)), [Action::Unbarred]);
}
