//! Renewals alone.

use super::*;
use crate::lease::event::TokenFacts;
use crate::lease::ids::TokenId;
use crate::lease::note::Cause;
use crate::lease::schedule::Jitter;

const T1: TokenId = TokenId(1);

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

/// A lease of 96 s, which is renewed after 60 s.
fn add(generations: &mut Generations, sent_at: Time) -> GenerationId {
    let lease = Duration::from_millis(95_750);
    generations.add(Generation::new(T1, sent_at, lease, true, Jitter::NONE))
}

/// The renewals that are requested at this second, and the time of the next review.
fn renew_at(generations: &mut Generations, second: u64, max_age: Option<Duration>) -> (Vec<Action>, Time) {
    let (mut deadlines, mut actions) = (Deadlines::new(at(second)), Vec::new());
    renew(at(second), generations, max_age, &mut deadlines, &mut actions);
    (actions, deadlines.next())
}

fn renewal_at(generations: &Generations, number: GenerationId) -> Time {
    generations.get(number).and_then(Generation::renew_at).expect("it is renewed")
}

#[test]
fn what_serves_or_may_serve_is_renewed_at_two_thirds() {
    let mut generations = Generations::default();
    let number = add(&mut generations, at(0));
    assert_eq!(renew_at(&mut generations, 100, None), (vec![], Time::NEVER), "a candidate is not");
    generations.publish(at(1), number);
    let due_at = renewal_at(&generations, number);
    assert!(due_at > at(59) && due_at <= at(61), "{due_at:?}");
    assert_eq!(renew_at(&mut generations, 1, None), (vec![], due_at));
    let (actions, _) = renew_at(&mut generations, 61, None);
    assert!(matches!(actions[..], [Action::RenewLease(n, T1, _)] if n == number), "{actions:?}");
    assert_eq!(renew_at(&mut generations, 62, None), (vec![], Time::NEVER), "one is in flight");
    let mut deadlines = Deadlines::new(at(62));
    show(&generations, &mut deadlines);
    assert_eq!(deadlines.next_action().1, at(62));
    generations.close(at(63), number, Cause::Lost);
    assert_eq!(renew_at(&mut generations, 1000, None).0, []);
}

#[test]
fn a_renewal_that_would_pass_the_greatest_age_is_not_asked_for() {
    let mut generations = Generations::default();
    let number = add(&mut generations, at(0));
    generations.publish(at(1), number);
    assert_eq!(renew_at(&mut generations, 61, Some(Duration::from_secs(150))).0, []);
    let why = generations.get(number).and_then(Generation::replace);
    assert_eq!(why, Some((NotRenewed::MaxAge, at(61))));
}

#[test]
fn of_many_retired_ones_the_oldest_are_not_renewed() {
    let mut generations = Generations::default();
    let numbers: Vec<_> = (0..=MOST_RETIRING + 1).map(|_| add(&mut generations, at(0))).collect();
    for number in &numbers {
        generations.publish(at(1), *number);
    }
    assert_eq!(renew_at(&mut generations, 2, None).0, []);
    let unneeded = |number: &&GenerationId| {
        generations.get(**number).and_then(Generation::replace) == Some((NotRenewed::Unneeded, at(2)))
    };
    assert_eq!(numbers.iter().filter(unneeded).count(), 1);
    assert!(unneeded(&&numbers[0]));
}

#[test]
fn two_credentials_are_renewed_by_turns() {
    let mut generations = Generations::default();
    let mut tokens = Tokens::default();
    let endless = TokenFacts { sent_at: at(0), ttl: None, renewable: false, owned: true };
    tokens.logged_in(T1, endless, Jitter::NONE);
    let (current, standby) = (add(&mut generations, at(0)), add(&mut generations, at(5)));
    generations.publish(at(1), current);
    let alone = renewal_at(&generations, current);
    stagger(at(6), &mut generations, &mut tokens);
    assert_eq!(renewal_at(&generations, current), alone, "nothing stands by");
    generations.stand_by(standby);
    stagger(at(6), &mut generations, &mut tokens);
    let gap = renewal_at(&generations, current).since(renewal_at(&generations, standby));
    let period = Duration::from_secs(60);
    assert!(gap > period / 2 - period / 8 && gap < period / 2 + period / 8, "{gap:?}");
}
