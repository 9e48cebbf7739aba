//! The rotation alone: when a fresh credential is needed, and for what reason.

use std::time::Duration;

use super::*;
use crate::lease::event::TokenFacts;
use crate::lease::generations::Generations;
use crate::lease::note::Cause;
use crate::lease::schedule::Jitter;
use crate::lease::settings::Settings;
use crate::lease::tokens::Tokens;

const T1: TokenId = TokenId(1);
const T2: TokenId = TokenId(2);
const LEASE: Duration = Duration::from_secs(100);

fn at(second: u64) -> Time {
    Time::from_nanos(second * 1_000_000_000)
}

/// A role's tokens and generations.
struct Held {
    settings: Settings,
    tokens: Tokens,
    generations: Generations,
}

impl Held {
    /// No credential, and a token that has no end.
    fn none() -> Self {
        let settings = Settings { standby: true, issue_burst: 1, issue_interval: LEASE, ..Settings::new(0) };
        let mut tokens = Tokens::default();
        let endless = TokenFacts { sent_at: at(0), ttl: None, renewable: false, owned: true };
        tokens.logged_in(T1, endless, Jitter::NONE);
        Self { settings, tokens, generations: Generations::default() }
    }

    /// A current generation, granted at second 0.
    fn serving(renewable: bool) -> Self {
        let mut held = Self::none();
        let number = held.add(0, renewable);
        held.generations.publish(at(0), number);
        held
    }

    fn add(&mut self, second: u64, renewable: bool) -> GenerationId {
        self.generations.add(Generation::new(T1, at(second), LEASE, renewable, Jitter::NONE))
    }

    fn at(&self, second: u64) -> Holdings<'_> {
        let Self { settings, tokens, generations } = self;
        Holdings { now: at(second), settings, tokens, generations, is_wanted: true, is_closed: false }
    }
}

fn published() -> Rotation {
    let mut rotation = Rotation::default();
    rotation.published();
    rotation
}

#[test]
fn without_a_credential_one_is_needed_at_once_if_it_is_wanted_at_all() {
    let held = Held::none();
    assert_eq!(Rotation::default().demand(held.at(0)), Ok(Reason::First));
    assert_eq!(published().demand(held.at(0)), Ok(Reason::Schedule));
    let mut lost = published();
    lost.lose_current();
    assert_eq!(lost.demand(held.at(0)), Ok(Reason::Revoked));
    let unwanted = Holdings { is_wanted: false, ..held.at(0) };
    assert_eq!(Rotation::default().demand(unwanted), Err(Time::NEVER));
}

#[test]
fn a_credential_that_is_renewed_needs_no_successor_but_for_its_age() {
    let mut held = Held::serving(true);
    assert_eq!(published().demand(held.at(1)), Err(Time::NEVER));
    held.settings.rotate_after = Some(LEASE);
    assert_eq!(published().demand(held.at(1)), Err(at(100)));
    assert_eq!(published().demand(held.at(100)), Ok(Reason::Schedule));
}

#[test]
fn a_credential_that_is_not_renewed_needs_a_successor_from_two_thirds_on() {
    let held = Held::serving(false);
    let due_at = published().demand(held.at(0)).expect_err("it has just come");
    assert!(due_at > at(60) && due_at < at(67), "{due_at:?}");
    assert_eq!(published().demand(held.at(67)), Ok(Reason::NotRenewable));
}

#[test]
fn a_command_comes_before_a_reload_and_that_before_a_loss() {
    let held = Held::serving(true);
    let mut rotation = published();
    rotation.lose_current();
    assert_eq!(rotation.demand(held.at(1)), Ok(Reason::Revoked));
    rotation.reload(false);
    assert_eq!(rotation.demand(held.at(1)), Ok(Reason::Reload));
    rotation.command(Some(DrainSpan::Default));
    rotation.command(None);
    assert_eq!(rotation.demand(held.at(1)), Ok(Reason::Command));
    assert_eq!(rotation.end_command(), Some(Some(DrainSpan::Default)), "the drain stays");
    rotation.rest();
    assert_eq!(rotation.demand(held.at(1)), Err(Time::NEVER));
}

#[test]
fn before_the_first_publication_a_reload_replaces_nothing() {
    let mut rotation = Rotation::default();
    rotation.reload(false);
    assert_eq!(rotation.demand(Held::none().at(0)), Ok(Reason::First));
}

#[test]
fn a_refused_generation_is_replaced_out_of_turn_and_only_that_one() {
    let held = Held::serving(true);
    let mut rotation = published();
    rotation.refuse(GenerationId::FIRST.next());
    assert_eq!(rotation.demand(held.at(1)), Err(Time::NEVER));
    rotation.refuse(GenerationId::FIRST);
    assert_eq!(rotation.demand(held.at(1)), Ok(Reason::Refused));
    assert!(rotation.is_out_of_turn(Reason::Refused) && !rotation.is_out_of_turn(Reason::Standby));
    for takes in [Rotation::lose_standby, Rotation::took_standby] {
        takes(&mut rotation);
        assert!(rotation.is_out_of_turn(Reason::Standby));
    }
    rotation.stood_by();
    assert!(!rotation.is_out_of_turn(Reason::Standby));
}

#[test]
fn a_standby_is_needed_beside_a_current_one() {
    let rotation = published();
    assert_eq!(rotation.standby_demand(Held::none().at(0)), Err(Time::NEVER));
    let mut held = Held::serving(true);
    assert_eq!(rotation.standby_demand(held.at(1)), Ok(()));
    let standby = held.add(1, true);
    held.generations.stand_by(standby);
    assert_eq!(rotation.standby_demand(held.at(2)), Err(Time::NEVER), "it is renewed as far as is known");
    held.settings.standby = false;
    assert_eq!(rotation.standby_demand(held.at(1)), Err(Time::NEVER));
    let until = Held::serving(false);
    let from = rotation.standby_demand(until.at(0)).expect_err("a third of a life before it is needed");
    assert!(from > at(30) && from < at(36), "{from:?}");
}

#[test]
fn a_standby_takes_the_place_of_a_lost_one_out_of_turn() {
    let mut held = Held::serving(true);
    let standby = held.add(1, true);
    held.generations.stand_by(standby);
    let mut rotation = published();
    assert_eq!(rotation.choose_standby(held.at(2)), Standby::Waits);
    held.generations.close(at(2), GenerationId::FIRST, Cause::Lost);
    rotation.lose_current();
    let instead = Standby::Publish { number: standby, out_of_turn: true };
    assert_eq!(rotation.choose_standby(held.at(2)), instead);
    held.settings.standby = false;
    assert_eq!(rotation.choose_standby(held.at(2)), Standby::GiveBack(standby));
}

#[test]
fn a_standby_follows_a_credential_that_ends_if_it_lives_longer() {
    let mut held = Held::serving(false);
    let standby = held.add(40, true);
    held.generations.stand_by(standby);
    let mut rotation = published();
    assert_eq!(rotation.choose_standby(held.at(41)), Standby::Waits, "it does not end yet");
    let follows = Standby::Publish { number: standby, out_of_turn: false };
    assert_eq!(rotation.choose_standby(held.at(67)), follows);
    rotation.command(None);
    assert_eq!(rotation.choose_standby(held.at(67)), Standby::Waits, "a fresh one is asked for by hand");
}

#[test]
fn a_token_is_of_use_if_a_lease_under_it_ends_later_than_what_it_replaces() {
    let mut held = Held::serving(false);
    let ends_in = |second: u64, owned: bool| TokenFacts {
        sent_at: at(0),
        ttl: Some(Duration::from_secs(second)),
        renewable: true,
        owned,
    };
    held.tokens.logged_in(T2, ends_in(101, true), Jitter::NONE);
    let rotation = published();
    assert!(!rotation.is_of_use(held.at(50), Reason::NotRenewable, T2));
    assert!(rotation.is_of_use(held.at(50), Reason::Schedule, T2));
    held.tokens.logged_in(T2, ends_in(110, true), Jitter::NONE);
    assert!(rotation.is_of_use(held.at(50), Reason::NotRenewable, T2));
    let handed = TokenId(3);
    held.tokens.logged_in(handed, ends_in(51, false), Jitter::NONE);
    assert!(
        !rotation.is_of_use(held.at(50), Reason::Schedule, handed),
        "a lease under it would lapse unused"
    );
}

#[test]
fn a_candidate_waits_for_its_proof_until_the_drain_of_the_current_one() {
    let rotation = published();
    assert_eq!(rotation.presses_at(Held::none().at(7), Some(Reason::First)), at(7), "nothing serves");
    let held = Held::serving(true);
    let presses_at = rotation.presses_at(held.at(7), Some(Reason::Schedule));
    assert!(presses_at > at(80) && presses_at < at(95), "{presses_at:?}");
    assert_eq!(rotation.presses_at(held.at(7), Some(Reason::Standby)), Time::NEVER);
}
