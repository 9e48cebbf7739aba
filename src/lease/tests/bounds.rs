//! Suspected leases, and the limits of repeated requests.

use super::script::*;
use crate::lease::{
    Action, Event, Failure, GenerationId, Note, Reason, Settings, TokenFacts, TokenId, Verdict,
};

const LEASE: f64 = 105.0;
const LONG: f64 = 100_005.0;

fn long() -> Story {
    Story::serving(settings(), LONG, endless())
}

#[test]
fn however_many_suspect_a_lease_it_is_checked_once() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(1.0, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    for _ in 0..20 {
        story.at(1.1, Event::Suspected(G1)).does([]);
    }
    story.at(1.2, renewed(G1, 1.0, LEASE)).does([Action::Answer(G1, Verdict::Alive)]);
}

#[test]
fn a_check_waits_for_a_renewal_that_is_in_flight() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(66.0, Event::Tick).does([renew(G1, T1, 24.75)]);
    story.at(66.1, Event::Suspected(G1)).does([]);
    story.at(66.2, renewed(G1, 66.0, LEASE)).does([Action::Answer(G1, Verdict::Alive)]);
}

#[test]
fn a_suspect_lease_is_checked_every_five_seconds_at_most() {
    let mut story = long();
    story.at(1.0, Event::Suspected(G1));
    story.at(1.0, renewed(G1, 1.0, LONG)).does([Action::Answer(G1, Verdict::Alive)]);
    story.at(5.9, Event::Suspected(G1)).does([Action::Answer(G1, Verdict::Silent)]);
    story.at(6.0, Event::Suspected(G1));
    story.at(6.0, renewed(G1, 6.0, LONG)).does([Action::Answer(G1, Verdict::Alive)]);
}

#[test]
fn denials_make_a_check_every_thirty_seconds_at_most_and_no_answer() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(1.0, Event::DenialSeen(G1)).does([renew(G1, T1, 24.75)]);
    story.at(1.1, Event::DenialSeen(G1)).does([]);
    story.at(1.2, renewed(G1, 1.0, LEASE)).does([]);
    story.at(30.9, Event::DenialSeen(G1)).does([]);
    story.at(31.0, Event::DenialSeen(G1)).does([renew(G1, T1, 24.75)]);
    story.at(31.1, Event::Suspected(G1)).does([]);
    story.at(31.2, renewed(G1, 31.0, LEASE)).does([Action::Answer(G1, Verdict::Alive)]);
}

#[test]
fn a_suspect_generation_that_is_lost_or_unknown_is_answered_at_once() {
    let mut story = long();
    story.at(1.0, Event::Suspected(G7)).does([Action::Answer(G7, Verdict::Lost)]);
}

#[test]
fn a_lost_lease_makes_one_issuance_however_many_ask() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(1.0, Event::Suspected(G1)).does([renew(G1, T1, 24.75)]);
    story.at(1.1, not_renewed(G1, Failure::Gone)).does([
        Action::Unpublish,
        Action::Answer(G1, Verdict::Lost),
        LOG_IN,
    ]);
    for _ in 0..20 {
        story.at(1.2, Event::Suspected(G1)).does([Action::Answer(G1, Verdict::Lost)]);
    }
    story.issued(1.3, G2, T2, endless(), LEASE);
}

#[test]
fn grants_out_of_turn_are_three_at_once_then_one_a_minute() {
    let mut story = long();
    let lose = |story: &mut Story, now: f64, number: GenerationId| {
        story.at(now, Event::Suspected(number));
        story.at(now, not_renewed(number, Failure::Gone));
        story.at(now, empty(number));
    };
    for number in 1..=3 {
        let now = 10.0 + number as f64;
        lose(&mut story, now, GenerationId::new(number));
        story.issued(now, GenerationId::new(number + 1), TokenId(number + 1), endless(), LONG);
    }
    // The first of them was taken at second 11: the next comes in a minute later.
    lose(&mut story, 20.0, G4);
    assert_eq!(story.role.issuance(), crate::lease::issuance::State::Idle);
    story.at(20.0, Event::TokenRevoked(TokenId(1)));
    story.at(71.0, Event::Tick).does([LOG_IN]).notes(Note::Issuing(Reason::Revoked));
}

#[test]
fn a_request_that_brought_no_grant_takes_nothing_from_the_bucket() {
    let mut story = long();
    story.at(1.0, Event::Suspected(G1));
    story.at(1.0, not_renewed(G1, Failure::Gone));
    let mut now = 1.0;
    for wait in [0.5, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0] {
        story.at(now, Event::LogInFailed(Failure::Transient)).does([]);
        now += wait;
        story.at(now, Event::Tick).does([LOG_IN]);
    }
}

/// When credentials are requested in the first ten minutes, if each request fails in this way under a token that was
/// given to us.
fn asked_at(failure: Failure) -> Vec<f64> {
    let mut story = Story::new(settings());
    let handed = TokenFacts { owned: false, ..endless() };
    let mut asked = Vec::new();
    let mut due = vec![Event::Tick];
    while story.now < at(600.0) {
        for event in std::mem::take(&mut due) {
            for action in story.role.handle(story.now, event) {
                match action {
                    Action::LogIn { .. } => due.push(Event::LoggedIn(T1, handed)),
                    Action::Issue(_) => {
                        asked.push(story.now.since(at(0.0)).as_secs_f64().round());
                        due.extend([Event::IssueFailed(failure), Event::LateReply(T1)]);
                    }
                    _ => {}
                }
            }
        }
        if due.is_empty() {
            story.now = story.role.next_deadline();
            due.push(Event::Tick);
        }
    }
    asked
}

#[test]
fn a_request_that_may_have_made_a_role_draws_on_the_bucket_while_nothing_is_usable() {
    for failure in [Failure::TimedOut, Failure::Unusable] {
        let asked = asked_at(failure);
        assert_eq!(asked.iter().filter(|at| **at < 60.0).count(), 3, "{failure:?}: {asked:?}");
        assert!(asked.len() <= 13, "{failure:?}: {asked:?}");
        assert!(asked.len() >= 11, "it is asked for again all the same: {failure:?}: {asked:?}");
    }
    // A request that certainly made nothing is repeated more often, at growing intervals.
    let asked = asked_at(Failure::Transient);
    assert!(asked.iter().filter(|at| **at < 60.0).count() >= 20, "{asked:?}");
    assert!((40..60).contains(&asked.len()), "{asked:?}");
}

#[test]
fn a_request_that_may_have_made_a_role_holds_no_command_up() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    let mut now = 0.0;
    for wait in [0.5, 1.0, 60.0] {
        story.at(now, Event::LoggedIn(T1, endless())).does([Action::Issue(T1)]);
        story.at(now, Event::IssueFailed(Failure::TimedOut)).does([]);
        story.at(now, Event::LateReply(T1));
        if wait < 60.0 {
            now += wait;
            story.at(now, Event::Tick).does([LOG_IN]);
        }
    }
    story.at(10.0, Event::Tick).does([]);
    story.at(10.0, Event::Rotate(None)).does([LOG_IN]);
}

#[test]
fn a_reply_of_no_use_is_asked_for_less_and_less_often() {
    let settings = Settings { issue_burst: 100, ..settings() };
    let mut story = Story::new(settings);
    story.at(0.0, Event::Tick).does([LOG_IN]);
    assert_eq!(waits(story, Failure::Unusable, 8)[1..], [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
}

#[test]
fn grants_in_turn_do_not_draw_on_the_bucket() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(10.0)), ..settings() }, LONG, endless());
    for number in 2..10 {
        let now = 10.0 * (number - 1) as f64;
        story.at(now, Event::Tick).does([log_in(24_999.75)]);
        story.issued(now, GenerationId::new(number), TokenId(number), endless(), LONG);
        story.at(now, empty(GenerationId::new(number - 1)));
    }
}

#[test]
fn a_bucket_of_zero_still_lets_one_through() {
    let mut story = Story::serving(Settings { issue_burst: 0, ..settings() }, LONG, endless());
    story.at(1.0, Event::Suspected(G1));
    story.at(1.0, not_renewed(G1, Failure::Gone)).does([
        Action::Unpublish,
        Action::Answer(G1, Verdict::Lost),
        LOG_IN,
    ]);
}

#[test]
fn beyond_eight_retiring_the_oldest_is_no_longer_renewed() {
    let mut story =
        Story::serving(Settings { rotate_after: Some(secs(5.0)), ..settings() }, LEASE, endless());
    for number in 2..=11 {
        let now = 5.0 * (number - 1) as f64;
        story.at(now, Event::Tick).does([log_in(24.75)]);
        story.issued(now, GenerationId::new(number), TokenId(number), endless(), LEASE);
    }
    // Ten generations are retiring: 1 and 2 are not renewed at 66 and 71, the third is at 76.
    story.at(55.0, Event::Tick).does([log_in(24.75)]);
    story.at(55.0, Event::LogInFailed(Failure::Transient));
    let renewals: Vec<_> =
        story.pass(76.0).into_iter().filter(|(_, a)| matches!(a, Action::RenewLease(..))).collect();
    assert_eq!(renewals, [(at(76.0), renew(G3, T3, 24.75))]);
}

#[test]
fn one_issuance_at_a_time() {
    let mut story = Story::serving(settings(), LEASE, endless());
    story.at(1.0, Event::Rotate(None)).does([log_in(24.75)]);
    story.at(1.0, Event::Rotate(None)).does([]);
    story.at(1.0, Event::Replace(G1)).does([Action::Prove(G1)]);
    story.at(1.0, Event::LoggedIn(T2, endless())).does([Action::Issue(T2)]);
    story.at(1.0, Event::Rotate(None)).does([]);
    story.granted(1.0, G2, LEASE);
    story.at(1.0, Event::Rotate(None)).does([]);
    story.at(1.0, Event::Proved(G2)).does([Action::Publish(G2)]);
}

/// The waits between attempts that all fail in this way.
fn waits(mut story: Story, failure: Failure, tries: usize) -> Vec<f64> {
    let mut times = Vec::new();
    let mut id = 10;
    while times.len() <= tries {
        let now = story.now;
        let mut event = Event::IssueFailed(failure);
        if matches!(story.role.issuance(), crate::lease::issuance::State::LoggingIn { .. }) {
            id += 1;
            event = Event::LoggedIn(TokenId(id), endless());
        } else {
            times.push(now);
        }
        for action in story.role.handle(now, event) {
            if let Action::RevokeToken(token) = action {
                story.role.handle(now, Event::TokenRevoked(token));
            }
        }
        while matches!(story.role.issuance(), crate::lease::issuance::State::BackOff { .. }) {
            story.now = story.now + secs(0.1);
            story.role.handle(story.now, Event::Tick);
        }
    }
    times.windows(2).map(|pair| pair[1].since(pair[0]).as_secs_f64().round()).collect()
}

#[test]
fn what_vault_refuses_is_asked_for_less_and_less_often_and_what_it_misses_soon_again() {
    let first = || {
        let mut story = Story::new(settings());
        story.at(0.0, Event::Tick).does([LOG_IN]);
        story
    };
    for failure in [Failure::Refused, Failure::Forbidden] {
        assert_eq!(waits(first(), failure, 8)[1..], [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0], "{failure:?}");
    }
    assert_eq!(waits(first(), Failure::Transient, 6)[1..], [1.0, 2.0, 3.0, 3.0, 3.0]);
}

#[test]
fn a_token_whose_policy_forbids_it_is_given_back_for_a_fresh_one() {
    let mut story = Story::new(settings());
    story.at(0.0, Event::Tick).does([LOG_IN]);
    story.at(0.0, Event::LoggedIn(T1, endless())).does([Action::Issue(T1)]);
    story.at(0.0, Event::IssueFailed(Failure::Forbidden)).does([Action::RevokeToken(T1)]);
    story.at(0.0, Event::TokenRevoked(T1)).does([Action::ForgetToken(T1)]);
    story.at(0.5, Event::Tick).does([LOG_IN]);
    story.at(0.5, Event::LoggedIn(T2, endless())).does([Action::Issue(T2)]);
    story.at(0.5, Event::IssueFailed(Failure::Refused)).does([]);
    story.at(1.5, Event::Tick).does([Action::Issue(T2)]);
}
