//! The standby: a second credential that is issued early.

use std::time::Duration;

use super::script::*;
use crate::lease::{
    Action, DrainSpan, Event, Failure, GenerationId, Note, Reason, Settings, TokenFacts, TokenId, Verdict,
};

const LEASE: f64 = 105.0;
/// A lease of 105 s has 5 s of margin and a second for the cancel requests.
const USABLE: f64 = 99.0;
const WITHIN: f64 = USABLE / 4.0;

fn two() -> Settings {
    Settings { standby: true, ..settings() }
}

/// Generation 1 serves since second 0. Generation 2 was proved at second 10 and is the standby.
fn standing_by(token: TokenFacts) -> Story {
    let mut story = Story::serving(two(), LEASE, token);
    stands_by(&mut story, 10.0, G2, T2, token);
    story
}

fn stands_by(story: &mut Story, second: f64, number: GenerationId, id: TokenId, token: TokenFacts) {
    story.at(second, Event::LoggedIn(id, TokenFacts { sent_at: at(second), ..token }));
    story.does([Action::Issue(id)]);
    story.granted(second, number, LEASE);
    story.at(second, Event::Proved(number)).notes(Note::StandsBy(number));
}

fn promoted(number: GenerationId) -> Note {
    Note::Published { number, reason: Reason::Standby, proved: true, successor: true }
}

#[test]
fn it_is_issued_as_soon_as_there_is_a_current_one_and_not_published() {
    let mut story = Story::new(two());
    story.at(0.0, Event::Tick).does([LOG_IN]).notes(Note::Issuing(Reason::First));
    story.at(0.0, Event::LoggedIn(T1, own(100_000.0)));
    story.granted(0.0, G1, LEASE);
    story.at(0.0, Event::Proved(G1)).does([Action::Publish(G1), log_in(WITHIN)]);
    story.notes(Note::Issuing(Reason::Standby));
    story.at(1.0, Event::LoggedIn(T2, own(100_000.0))).does([Action::Issue(T2)]);
    story.granted(1.0, G2, LEASE);
    story.at(1.0, Event::Proved(G2)).does([]).notes(Note::StandsBy(G2));
    assert_eq!(story.role.current(), Some(G1));
    assert_eq!(story.role.runs_until(at(1.0)), Some(story.hard_close_at(G2)));
}

#[test]
fn one_that_cannot_be_proved_never_stands_by() {
    let mut story = Story::serving(two(), LEASE, own(100_000.0));
    story.at(1.0, Event::LoggedIn(T2, own(100_000.0)));
    story.granted(1.0, G2, LEASE);
    story.at(1.5, Event::Unprovable(G2)).does([]);
    story.at(2.0, Event::Tick).does([Action::Prove(G2)]);
    // Half of its usable life would be patience enough, were it a minute or less.
    story.at(51.0, Event::ProofRefused(G2)).does([Action::RevokeLease(G2, T2)]);
    story.notes(Note::CandidateRefused(G2));
    assert_eq!(story.role.current(), Some(G1));
}

#[test]
fn a_current_one_that_is_revoked_is_replaced_at_once() {
    let mut story = standing_by(own(100_000.0));
    story.at(20.0, Event::Suspected(G1)).does([renew(G1, T1, WITHIN)]);
    let lost = story.at(20.1, not_renewed(G1, Failure::Gone)).notes(promoted(G2));
    lost.does([Action::Unpublish, Action::Answer(G1, Verdict::Lost), Action::Publish(G2), log_in(WITHIN)]);
    lost.notes(Note::Issuing(Reason::Standby));
}

#[test]
fn one_that_is_refused_is_replaced_at_once() {
    let mut story = standing_by(own(100_000.0));
    story.at(20.0, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.at(20.0, Event::ProofRefused(G1)).does([Action::Publish(G2), log_in(WITHIN)]).notes(promoted(G2));
}

#[test]
fn a_capped_one_is_replaced_at_once() {
    let mut story = standing_by(endless());
    // This is half a period before the renewal of the current generation.
    story.at(33.0, Event::Tick).does([renew(G2, T2, WITHIN)]);
    story.at(33.0, renewed(G2, 33.0, LEASE));
    story.at(66.0, Event::Tick).does([renew(G1, T1, WITHIN)]);
    story.at(66.0, renewed(G1, 66.0, 30.0)).does([Action::Publish(G2), log_in(WITHIN)]).notes(promoted(G2));
    assert!(story.drain_at(G1).is_some_and(|at| at < story.hard_close_at(G1)));
}

#[test]
fn one_that_ends_while_vault_is_away_is_replaced_by_the_one_that_ends_later() {
    let mut story = standing_by(endless());
    let ends_at = story.hard_close_at(G1);
    let later = story.hard_close_at(G2);
    assert!(later > ends_at + secs(5.0));
    let mut published = Vec::new();
    let mut asked = story.pass(40.0);
    while story.now < later - secs(0.1) {
        for (_, action) in std::mem::take(&mut asked) {
            let failed = match action {
                Action::RenewLease(number, ..) => not_renewed(number, Failure::Transient),
                Action::LogIn { .. } => Event::LogInFailed(Failure::Transient),
                Action::Publish(number) => {
                    published.push((number, story.now));
                    continue;
                }
                _ => continue,
            };
            let now = story.now;
            let done = story.role.handle(now, failed);
            asked.extend(done.into_iter().map(|action| (now, action)));
        }
        let next = story.role.next_deadline();
        asked.extend(story.pass(next.since(at(0.0)).as_secs_f64()));
    }
    let [(G2, at)] = published[..] else { panic!("{published:?}") };
    assert!(at <= ends_at, "{at:?}");
}

#[test]
fn a_rotation_on_command_issues_afresh_and_gives_it_back() {
    let mut story = standing_by(own(100_000.0));
    story.at(20.0, Event::Rotate(Some(DrainSpan::Default))).does([log_in(WITHIN)]);
    story.at(20.0, Event::LoggedIn(T3, own(100_000.0)));
    story.granted(20.0, G3, LEASE);
    story.at(20.0, Event::Proved(G3));
    story.does([Action::RevokeLease(G2, T2), Action::Publish(G3), log_in(WITHIN)]);
}

#[test]
fn a_lost_one_is_replaced_and_draws_on_the_bucket() {
    let mut story = Story::serving(Settings { issue_burst: 1, ..two() }, LEASE, endless());
    stands_by(&mut story, 1.0, G2, T1, endless());
    story.at(2.0, Event::Suspected(G2)).does([renew(G2, T1, WITHIN)]);
    story.at(2.1, not_renewed(G2, Failure::Gone)).notes(Note::Lost(G2));
    story.does([Action::Forget(G2), Action::Answer(G2, Verdict::Lost), log_in(WITHIN)]);
    stands_by(&mut story, 3.0, G3, T1, endless());
    story.at(4.0, Event::Suspected(G3)).does([renew(G3, T1, WITHIN)]);
    // The bucket is empty until a minute after the first.
    story.at(4.1, not_renewed(G3, Failure::Gone)).notes(Note::Lost(G3));
    story.does([Action::Forget(G3), Action::Answer(G3, Verdict::Lost)]);
    story.at(63.0, Event::Tick).does([log_in(WITHIN)]);
}

#[test]
fn a_lease_that_is_not_renewable_gets_one_after_a_third_of_its_life() {
    let mut story = Story::new(two());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::LoggedIn(T1, endless()));
    story.at(0.0, granted(0.0, LEASE, false));
    story.at(0.0, Event::Proved(G1)).does([Action::Publish(G1)]);
    story.at(33.0, Event::Tick).does([log_in(WITHIN)]);
    story.at(33.0, Event::LoggedIn(T1, endless()));
    story.at(33.0, granted(33.0, LEASE, false));
    story.at(33.0, Event::Proved(G2)).notes(Note::StandsBy(G2)).does([]);
    story.at(66.0, Event::Tick).does([Action::Publish(G2), log_in(WITHIN)]).notes(promoted(G2));
}

/// A batch token of 36 s is of use for 33 s, and is not renewed.
const BATCH: f64 = 36.0;

#[test]
fn a_token_that_ends_first_is_left_behind_with_the_one_that_stands_by() {
    let mut story = Story::serving(two(), LEASE, batch(BATCH));
    story.at(11.0, Event::Tick).does([log_in(WITHIN)]);
    stands_by(&mut story, 11.0, G2, T2, batch(BATCH));
    story.at(22.0, Event::Tick).does([Action::Publish(G2), log_in(WITHIN)]).notes(promoted(G2));
}

#[test]
fn under_a_handed_token_that_ends_nothing_is_promoted() {
    let mut story = Story::serving(two(), LEASE, batch(BATCH));
    story.at(11.0, Event::Tick).does([log_in(WITHIN)]);
    story.at(11.0, Event::LoggedIn(T1, TokenFacts { sent_at: at(11.0), ..batch(BATCH - 11.0) }));
    story.does([Action::Issue(T1)]);
    story.granted(11.0, G2, LEASE);
    story.at(11.0, Event::Proved(G2)).notes(Note::StandsBy(G2));
    // Both end with it, so the standby would not help.
    story.at(22.0, Event::Tick).does([log_in(WITHIN)]).notes(Note::Issuing(Reason::Token));
}

#[test]
fn it_goes_back_at_the_close_at_a_reload_and_when_nobody_wants_one_any_more() {
    let mut story = standing_by(own(100_000.0));
    story.at(20.0, Event::Close).does([Action::Unpublish, Action::RevokeLease(G2, T2)]);

    let mut story = standing_by(own(100_000.0));
    story.at(20.0, Event::Reload).does([Action::RevokeLease(G2, T2), log_in(WITHIN)]);
    story.notes(Note::Issuing(Reason::Reload));

    let mut story = standing_by(own(100_000.0));
    story.role.set_settings(settings());
    story.at(20.0, Event::Tick).does([Action::RevokeLease(G2, T2)]);
}

#[test]
fn one_that_is_needed_before_it_is_proved_is_published() {
    let mut story = Story::serving(two(), LEASE, own(100_000.0));
    story.at(1.0, Event::LoggedIn(T2, own(100_000.0)));
    story.granted(1.0, G2, LEASE);
    story.at(2.0, Event::Suspected(G1));
    story.at(2.1, not_renewed(G1, Failure::Gone));
    story.at(2.2, Event::Proved(G2)).notes(Note::Published {
        number: G2,
        reason: Reason::Revoked,
        proved: true,
        successor: true,
    });
}

#[test]
fn after_a_crash_it_is_given_back_and_the_current_one_taken_up() {
    let mut story = standing_by(own(100_000.0)).crash(20.0);
    story.at(20.0, Event::Tick).does([Action::RevokeLease(G1, T2), Action::Prove(G2)]);
}

/// The shortest runway over an hour in which every renewal is granted at once, in usable lives.
fn shortest_runway(standby: bool, seed: u64) -> f64 {
    let mut story = Story::serving(Settings { standby, seed, ..settings() }, LEASE, own(LEASE));
    if standby {
        stands_by(&mut story, 0.1, G2, T2, own(LEASE));
    }
    let mut asked = std::mem::take(&mut story.done);
    asked.retain(|action| matches!(action, Action::RenewLease(..) | Action::RenewToken(..)));
    let mut shortest = f64::MAX;
    while story.now < at(3600.0) {
        let due = story.role.next_deadline();
        // Just before it is renewed.
        if story.now > at(2.0 * LEASE) {
            let runs_until = story.role.runs_until(story.now).expect("a runway");
            shortest = shortest.min(runs_until.since(due).as_secs_f64());
        }
        let due = if asked.is_empty() { due } else { story.now };
        let second = due.since(at(0.0)).as_secs_f64();
        story.now = due;
        asked.extend(story.role.handle(due, Event::Tick));
        while let Some(action) = asked.pop() {
            let event = match action {
                Action::RenewLease(number, ..) => renewed(number, second, LEASE),
                Action::RenewToken(token, _) => token_renewed(token, second, LEASE),
                Action::NotifySessions(..) | Action::Note(Note::Renewed { .. }) => continue,
                other => panic!("{other:?} at {due:?}"),
            };
            asked.extend(story.role.handle(due, event));
        }
    }
    shortest / USABLE
}

#[test]
fn the_runway_is_two_thirds_of_a_lease_with_it_and_a_third_without() {
    for seed in 0..50 {
        let (with, without) = (shortest_runway(true, seed), shortest_runway(false, seed));
        assert!(with > 0.6, "seed {seed}: {with}");
        assert!((0.32..0.41).contains(&without), "seed {seed}: {without}");
    }
}

#[test]
fn it_may_be_renewed_earlier_to_be_half_a_period_off() {
    use crate::lease::schedule::antiphase;
    let period = Duration::from_secs(60);
    assert_eq!(antiphase(at(100.0), at(140.0), period), Some(at(130.0)));
    assert_eq!(antiphase(at(100.0), at(130.0), period), None);
    // A little early is near enough.
    assert_eq!(antiphase(at(100.0), at(127.0), period), None);
    assert_eq!(antiphase(at(100.0), at(120.0), period), Some(at(70.0)));
    assert_eq!(antiphase(at(100.0), at(80.0), period), Some(at(70.0)));
    assert_eq!(antiphase(at(100.0), at(80.0), Duration::ZERO), None);
}
