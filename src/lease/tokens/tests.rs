//! The tokens by themselves.

use super::*;

const T1: TokenId = TokenId(1);
const T2: TokenId = TokenId(2);

fn at(second: u64) -> Time {
    Time::from_nanos(0) + Duration::from_secs(second)
}

fn facts(ttl: u64) -> TokenFacts {
    TokenFacts { sent_at: at(0), ttl: Some(Duration::from_secs(ttl)), renewable: true, owned: true }
}

fn one(facts: TokenFacts) -> Tokens {
    let mut tokens = Tokens::default();
    tokens.logged_in(T1, facts, Jitter::NONE);
    tokens
}

/// What is asked for at this second, and when it looks again.
fn renew(tokens: &mut Tokens, second: u64, is_needed: bool) -> (Vec<Action>, Time) {
    let (mut deadlines, mut actions) = (Deadlines::new(at(second)), Vec::new());
    tokens.renew(at(second), |_| is_needed, &mut deadlines, &mut actions);
    (actions, deadlines.next())
}

fn revoke(tokens: &mut Tokens, second: u64, stands: bool) -> (Vec<Action>, Vec<TokenId>) {
    let (mut deadlines, mut actions) = (Deadlines::new(at(second)), Vec::new());
    let ended = tokens.revoke(at(second), |_| stands, &mut deadlines, &mut actions);
    (actions, ended)
}

#[test]
fn a_token_is_renewed_at_two_thirds_only_while_it_is_needed() {
    let mut tokens = one(facts(106));
    assert_eq!(renew(&mut tokens, 0, false), (vec![], Time::NEVER));
    let (actions, at_two_thirds) = renew(&mut tokens, 0, true);
    assert_eq!((actions, at_two_thirds > at(60) && at_two_thirds < at(67)), (vec![], true));
    let (actions, _) = renew(&mut tokens, 67, true);
    assert!(matches!(actions[..], [Action::RenewToken(T1, _)]), "{actions:?}");
    assert_eq!(renew(&mut tokens, 68, true).0, [], "one renewal is in flight");
}

#[test]
fn a_token_is_revoked_once_nothing_stands_on_it_and_nothing_may_be_granted_under_it() {
    let mut tokens = one(facts(100));
    tokens.may_be_granted(T1);
    assert_eq!(revoke(&mut tokens, 1, true), (vec![], vec![]));
    assert_eq!(revoke(&mut tokens, 1, false), (vec![], vec![]));
    tokens.settled(T1);
    assert_eq!(revoke(&mut tokens, 2, false), (vec![Action::RevokeToken(T1)], vec![]));
    assert_eq!(revoke(&mut tokens, 3, false), (vec![], vec![]), "one revocation is in flight");
    assert_eq!(tokens.revoke_failed(at(3), T1, Failure::Transient, Jitter::NONE), None);
    assert_eq!(revoke(&mut tokens, 4, false), (vec![Action::RevokeToken(T1)], vec![]));
    assert_eq!(tokens.revoke_failed(at(4), T1, Failure::Forbidden, Jitter::NONE), Some(Outcome::Forbidden));
}

#[test]
fn a_token_that_was_handed_to_us_or_has_ended_is_not_revoked() {
    let mut tokens = one(TokenFacts { owned: false, ..facts(100) });
    tokens.logged_in(T2, facts(50), Jitter::NONE);
    assert_eq!(revoke(&mut tokens, 60, false), (vec![], vec![T1, T2]));
}

#[test]
fn a_later_look_counts_where_it_shows_a_later_end() {
    let mut tokens = one(facts(100));
    let seen = |sent: u64, ttl: u64| TokenFacts { sent_at: at(sent), ..facts(ttl) };
    tokens.logged_in(T1, seen(10, 80), Jitter::NONE);
    assert_eq!(tokens.ends_at(T1), Some(at(100)));
    tokens.logged_in(T1, seen(20, 100), Jitter::NONE);
    assert_eq!(tokens.ends_at(T1), Some(at(120)));
}

#[test]
fn the_longest_living_is_one_under_which_a_grant_is_of_use() {
    let mut tokens = one(facts(100));
    tokens.logged_in(T2, facts(50), Jitter::NONE);
    assert_eq!(tokens.longest_living(at(10)), Some(T1));
    assert_eq!(tokens.longest_living(at(95)), None);
    tokens.expired(at(10), T1);
    assert_eq!(tokens.longest_living(at(10)), Some(T2));
}
