//! The issuance alone: each answer, and what follows from it.

use super::*;

const T1: TokenId = TokenId(1);
const T2: TokenId = TokenId(2);
const G1: GenerationId = GenerationId::FIRST;
const LONG: Duration = Duration::from_secs(100);

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

fn issuance() -> Issuance {
    Issuance::new(1, Duration::from_mins(1))
}

/// A creds request under token 1 is in flight.
fn requesting(reason: Reason) -> Issuance {
    let mut issuance = issuance();
    issuance.begin(reason, None);
    assert_eq!(issuance.logged_in(T1, true, true, true), Received::Used);
    issuance
}

/// Generation 1 is a candidate.
fn proving(reason: Reason) -> Issuance {
    let mut issuance = requesting(reason);
    assert_eq!(issuance.granted(at(0), G1, LONG, true, false), Received::Used);
    issuance
}

fn fail(issuance: &mut Issuance, class: FailureClass, left: Option<Duration>) {
    issuance.fail(at(0), class, left, false, Jitter::NONE);
}

#[test]
fn a_login_a_grant_and_a_proof_lead_to_a_publication() {
    let mut issuance = proving(Reason::First);
    assert_eq!(issuance.due(at(100), true, true), Due::Nothing, "a proof is in flight");
    assert!(issuance.is_proving(G1) && !issuance.is_idle() && issuance.is_under_way(|| false));
    issuance.succeed();
    assert_eq!((issuance.due(at(100), true, false), issuance.failures()), (Due::Free, 0));
}

#[test]
fn an_answer_that_nothing_was_asked_for_changes_nothing() {
    let mut issuance = proving(Reason::First);
    let before = issuance.clone();
    assert_eq!(issuance.logged_in(T2, true, true, true), Received::Unwanted);
    assert_eq!(issuance.granted(at(1), G1.next(), LONG, true, true), Received::Unwanted);
    issuance.not_granted(at(1), Failure::TimedOut);
    assert_eq!(issuance, before);
}

#[test]
fn a_token_whose_grant_failed_is_kept_for_the_next_one_unless_it_is_at_fault() {
    for failure in [Failure::Transient, Failure::Refused, Failure::Gone] {
        let mut issuance = requesting(Reason::First);
        issuance.not_granted(at(0), failure);
        fail(&mut issuance, FailureClass::Transient, None);
        assert!(issuance.needs(T1));
        assert_eq!(issuance.due(at(1), false, false), Due::Free);
        assert_eq!(issuance.spare(), Some(T1));
    }
    for failure in [Failure::TokenDead, Failure::Forbidden, Failure::TimedOut, Failure::Unusable] {
        let mut issuance = requesting(Reason::First);
        issuance.not_granted(at(0), failure);
        fail(&mut issuance, FailureClass::Transient, None);
        assert!(!issuance.needs(T1), "{failure:?}");
    }
}

#[test]
fn a_token_that_is_not_ours_or_of_no_use_is_not_kept() {
    let mut issuance = issuance();
    issuance.begin(Reason::First, None);
    assert_eq!(issuance.logged_in(T1, false, true, true), Received::Used);
    fail(&mut issuance, FailureClass::Transient, None);
    assert!(!issuance.needs(T1));
    issuance.begin(Reason::First, None);
    assert_eq!(issuance.logged_in(T1, true, true, false), Received::OfNoUse);
    assert!(!issuance.needs(T1));
}

#[test]
fn a_grant_that_is_too_short_or_not_wanted_any_more_is_not_proved() {
    let short = schedule::LEAST_USABLE - Duration::from_millis(1);
    assert_eq!(requesting(Reason::First).granted(at(0), G1, short, true, false), Received::OfNoUse);
    let mut issuance = requesting(Reason::First);
    assert_eq!(issuance.granted(at(0), G1, LONG, false, false), Received::Unwanted);
    assert_eq!((issuance.state(), issuance.candidate()), (State::Idle, None));
}

#[test]
fn what_an_earlier_configuration_asked_for_is_of_no_use() {
    let mut issuance = requesting(Reason::First);
    assert_eq!(issuance.reload(), None);
    assert_eq!(issuance.granted(at(0), G1, LONG, true, false), Received::Unwanted);
    issuance.begin(Reason::First, None);
    issuance.reload();
    assert!(issuance.is_discarded(false) && issuance.is_idle(), "its failure says nothing");
    assert!(!issuance.is_discarded(false), "the next one counts");
    assert_eq!(proving(Reason::First).reload(), Some(G1));
}

#[test]
fn at_the_stop_a_candidate_goes_back_and_what_is_in_flight_is_waited_for() {
    let mut issuance = proving(Reason::First);
    assert_eq!((issuance.stop(), issuance.is_idle()), (Some(G1), true));
    let mut issuance = requesting(Reason::First);
    assert_eq!((issuance.stop(), issuance.is_idle()), (None, false));
    issuance.fail(at(0), FailureClass::Transient, None, true, Jitter::NONE);
    assert_eq!(issuance.state(), State::Idle, "nothing follows");
}

#[test]
fn a_back_off_is_cut_short_by_a_command_and_by_the_loss_of_what_served() {
    let mut issuance = requesting(Reason::Schedule);
    for _ in 0..10 {
        fail(&mut issuance, FailureClass::Transient, Some(LONG * 100));
    }
    assert_eq!(issuance.due(at(0), true, false), Due::BackOff(at(600)));
    assert!(issuance.is_under_way(|| true) && !issuance.is_under_way(|| false));
    assert_eq!(issuance.due(at(0), false, false), Due::BackOff(at(3)));
    assert_eq!(issuance.due(at(0), false, true), Due::Free);
}

#[test]
fn a_refusal_is_waited_out_longer_and_not_after_a_loss() {
    let mut issuance = proving(Reason::Schedule);
    fail(&mut issuance, FailureClass::ProofRefused, Some(LONG));
    assert_eq!(issuance.due(at(0), true, false), Due::BackOff(at(5)));
    assert!(!issuance.is_under_way(|| true), "it comes once an operator has acted");
    issuance.end_slow_back_off();
    assert_eq!(issuance.due(at(0), true, false), Due::Free);
}

#[test]
fn a_candidate_is_given_up_where_a_server_has_refused_it_and_not_where_none_could_say() {
    for (unproved, is_refused) in [(Unproved::Refused, true), (Unproved::NotAsked, false)] {
        let mut issuance = proving(Reason::Schedule);
        issuance.prove_later(at(0), unproved, LONG, at(60), Jitter::NONE);
        let (at_half, refused) = (at(0) + Duration::from_millis(500), is_refused);
        assert_eq!(issuance.due(at(0), true, false), Due::ProofAt { at: at_half, refused });
        assert_eq!(issuance.unjudged(), (!is_refused).then_some(G1));
        assert_eq!(issuance.abandon_refused(), is_refused.then_some(G1));
    }
    let mut issuance = proving(Reason::Schedule);
    issuance.prove_later(at(0), Unproved::Refused, LONG, at(60), Jitter::NONE);
    assert_eq!(issuance.due(at(1), true, false), Due::Proof(G1));
    assert_eq!(issuance.abandon_refused(), None, "its proof is in flight");
}

#[test]
fn a_proof_that_is_refused_while_nothing_serves_counts_against_the_limit() {
    let mut issuance = proving(Reason::First);
    fail(&mut issuance, FailureClass::ProofRefused, None);
    assert_eq!(issuance.held_until(at(0), Reason::First, false), Some(at(60)));
    assert_eq!(issuance.held_until(at(0), Reason::Command, false), None);
}
