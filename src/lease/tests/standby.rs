//! The standby: a second credential that is issued early.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::script::*;
use crate::lease::{
    Action, DrainSpan, DynamicRole, Event, Failure, GenerationId, Note, Reason, Settings, TokenFacts,
    TokenId, Verdict,
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

/// What an hour has brought to a role whose requests are all granted at once, and whose sessions leave a replaced
/// credential at once.
struct Hour {
    /// The shortest runway after the first renewals, in usable lives of a lease of [`LEASE`].
    shortest: f64,
    renewals: usize,
    /// Why credentials were published after the first.
    reasons: Vec<Reason>,
}

/// An hour with leases of so many seconds that can be extended to at most `most`. Tokens have the TTL of the leases.
fn hour(settings: Settings, lease: f64, most: f64) -> Hour {
    let mut role = DynamicRole::new(settings);
    let mut hour = Hour { shortest: f64::MAX, renewals: 0, reasons: Vec::new() };
    let (mut now, mut issued_at, mut tokens) = (0.0, BTreeMap::new(), 0);
    let mut events = VecDeque::from([Event::Tick]);
    while now < 3600.0 {
        let Some(event) = events.pop_front() else {
            let due = role.next_deadline();
            if now > 2.0 * lease {
                let until = role.runs_until(at(now)).expect("a runway");
                hour.shortest = hour.shortest.min(until.since(due).as_secs_f64() / USABLE);
            }
            now = due.since(at(0.0)).as_secs_f64();
            events.push_back(Event::Tick);
            continue;
        };
        for action in role.handle(at(now), event) {
            events.extend(match action {
                Action::LogIn { .. } => {
                    tokens += 1;
                    Some(Event::LoggedIn(TokenId(tokens), TokenFacts { sent_at: at(now), ..own(lease) }))
                }
                Action::Issue(_) => Some(granted(now, lease, true)),
                Action::Store(number) => {
                    issued_at.insert(number, now);
                    None
                }
                Action::Prove(number) => Some(Event::Proved(number)),
                Action::RenewLease(number, ..) => {
                    let left = (issued_at[&number] + most - now).min(lease).floor();
                    Some(match left {
                        1.0.. => renewed(number, now, left),
                        _ => not_renewed(number, Failure::CannotExtend),
                    })
                }
                Action::RenewToken(token, _) => Some(token_renewed(token, now, lease)),
                Action::RevokeLease(number, _) => Some(Event::LeaseRevoked(number)),
                Action::RevokeToken(token) => Some(Event::TokenRevoked(token)),
                Action::EndWhenEmpty(number) => Some(empty(number)),
                Action::Note(Note::Renewed { .. }) => {
                    hour.renewals += 1;
                    None
                }
                Action::Note(Note::Published { reason, successor: true, .. }) => {
                    hour.reasons.push(reason);
                    None
                }
                _ => None,
            });
        }
    }
    hour
}

/// An hour with leases that are never capped.
fn endless_hour(standby: bool, seed: u64) -> Hour {
    let hour = hour(Settings { standby, seed, ..settings() }, LEASE, f64::MAX);
    assert_eq!(hour.reasons, []);
    hour
}

#[test]
fn the_runway_is_two_thirds_of_a_lease_with_it_and_a_third_without() {
    for seed in 0..50 {
        let (with, without) = (endless_hour(true, seed).shortest, endless_hour(false, seed).shortest);
        assert!(with > 0.6, "seed {seed}: {with}");
        assert!((0.32..0.41).contains(&without), "seed {seed}: {without}");
    }
}

#[test]
fn two_credentials_are_renewed_hardly_more_than_twice_as_often_as_one() {
    let renewals = |standby| (1..50).map(|seed| endless_hour(standby, seed).renewals).sum::<usize>() as f64;
    let times = renewals(true) / renewals(false);
    assert!((1.9..2.2).contains(&times), "{times} times as often");
}

#[test]
fn capped_leases_are_followed_by_what_stands_by() {
    for seed in 1..50 {
        let Hour { reasons, .. } = hour(Settings { seed, ..two() }, 15.0, 16.0);
        let capped = reasons.iter().filter(|reason| **reason == Reason::Capped).count();
        assert!(
            capped <= 1 && reasons.len() > 100,
            "seed {seed}: {capped} of {}: {reasons:?}",
            reasons.len()
        );
    }
}

#[test]
fn the_one_that_is_late_is_renewed_earlier_to_be_half_a_period_off() {
    use crate::lease::schedule::antiphase;
    let period = Duration::from_secs(60);
    let apart = |current: f64, standby: f64| antiphase(at(current), at(standby), period);
    assert_eq!(apart(100.0, 130.0), (at(100.0), at(130.0)));
    // A little early or late is near enough.
    assert_eq!(apart(100.0, 127.0), (at(100.0), at(127.0)));
    assert_eq!(apart(100.0, 133.0), (at(100.0), at(133.0)));
    assert_eq!(apart(100.0, 136.0), (at(100.0), at(130.0)));
    assert_eq!(apart(100.0, 124.0), (at(94.0), at(124.0)));
    assert_eq!(apart(100.0, 66.0), (at(96.0), at(66.0)));
    // What is far off is a first renewal, and the standby's follows.
    assert_eq!(apart(100.0, 120.0), (at(100.0), at(70.0)));
    assert_eq!(apart(100.0, 80.0), (at(100.0), at(70.0)));
    assert_eq!(antiphase(at(100.0), at(80.0), Duration::ZERO), (at(100.0), at(80.0)));
}
