//! A route's whole driver over simulated time: a scripted Vault answers it, and no test waits.

mod script;

use std::time::Duration;

use self::script::{LEASE, Simulation, TIMEOUT};
use crate::clock;
use crate::credentials::RotateDone;
use crate::credentials::route::RotateFailed;
use crate::lease::{DrainSpan, NextAction, NotRotated};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_credential_is_granted_proved_and_published_then_renewed_as_long_as_it_may_be() {
    let simulation = Simulation::start().await;
    assert_eq!(simulation.said(), ["log in", "issue 1", "prove 1"]);
    assert!(simulation.route.is_ready());

    simulation.pass(LEASE * 5).await;

    let said = simulation.said();
    let renewals = said.iter().filter(|said| *said == "renew 1").count();
    assert!((7..=9).contains(&renewals), "each at two thirds of its life: {said:?}");
    assert!(said.iter().all(|said| said.starts_with("renew")), "{said:?}");
    let status = simulation.route.status();
    assert_eq!((status.generations.len(), status.ready), (1, true));
    assert_eq!(status.next_action, NextAction::Renew);
}

#[tokio::test(start_paused = true)]
async fn an_outage_shorter_than_the_lease_is_waited_out() {
    let simulation = Simulation::start().await;
    simulation.vault.go_away(true);
    simulation.pass(LEASE / 2 + LEASE / 4).await;
    assert!(simulation.route.is_ready());
    assert!(simulation.route.status().last_error.is_some_and(|error| error.kind == "renew: timed_out"));

    simulation.vault.go_away(false);
    simulation.pass(LEASE).await;

    let status = simulation.route.status();
    assert_eq!((status.generations.len(), status.ready), (1, true), "{status:?}");
    assert!(status.last_error.is_some_and(|error| error.past));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_longer_than_the_lease_a_fresh_credential_comes_within_seconds() {
    let simulation = Simulation::start().await;
    simulation.vault.go_away(true);
    simulation.pass(LEASE * 2).await;
    assert!(!simulation.route.is_ready());

    simulation.vault.go_away(false);

    let fresh = simulation.route.current(TIMEOUT * 2).await.expect("a credential");
    assert_eq!(fresh.number().get(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_is_found_by_the_login_that_it_fails_and_replaced() {
    let simulation = Simulation::start().await;
    let lost = simulation.route.current(SECOND).await.expect("a credential");
    let session = lost.enter().expect("it serves");
    simulation.vault.revoke_by_hand(1);

    let verdict = simulation.route.check(lost.number(), SECOND * 5).await;

    assert_eq!(verdict, crate::lease::Verdict::Lost);
    assert!(session.generation().ending().borrow().closing.is_some(), "its sessions are closed");
    let fresh = simulation.route.current(SECOND * 5).await.expect("another credential");
    assert_eq!(fresh.number().get(), 2);
    drop(session);
    simulation.pass(SECOND).await;
    assert_eq!(simulation.route.status().generations.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_with_a_drain_closes_earlier_sessions_and_gives_their_lease_back() {
    let simulation = Simulation::start().await;
    let first = simulation.route.current(SECOND).await.expect("a credential");
    let session = first.enter().expect("it serves");

    let done = simulation.route.rotate(Some(DrainSpan::For(SECOND * 10))).await.expect("a rotation");

    let second = simulation.route.current(SECOND).await.expect("a credential");
    assert_eq!(done, RotateDone::Published(second.number()));
    assert!(first.ending().borrow().drain_from.is_some());
    simulation.pass(SECOND * 11).await;
    assert!(first.ending().borrow().closing.is_some());
    simulation.said();
    drop(session);
    simulation.pass(SECOND).await;
    assert_eq!(simulation.said(), ["revoke 1", "revoke token 1"]);
}

#[tokio::test(start_paused = true)]
async fn at_the_close_everything_is_given_back_once_its_sessions_have_gone() {
    let simulation = Simulation::start().await;
    let session = simulation.route.current(SECOND).await.expect("a credential").enter().expect("it serves");
    simulation.said();

    simulation.route.close().await;

    simulation.pass(SECOND * 5).await;
    assert_eq!(simulation.said(), Vec::<String>::new());
    assert!(!simulation.route.has_ended());
    drop(session);
    simulation.route.ended().await;
    assert_eq!(simulation.said(), ["revoke 1", "revoke token 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_comes_after_the_wait_for_it_is_given_back() {
    let simulation = Simulation::start().await;
    simulation.said();
    simulation.vault.answer_issues_after(TIMEOUT + SECOND);
    let route = std::sync::Arc::clone(&simulation.route);
    let rotation = tokio::spawn(async move { route.rotate(None).await });

    simulation.pass(TIMEOUT * 2).await;

    rotation.await.expect("a rotation").expect_err("no answer came in time");
    assert_eq!(simulation.said(), ["log in", "issue 2", "revoke 2", "revoke token 2"]);
    assert_eq!(simulation.route.status().generations.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_credential_one_that_comes_late_is_used_and_not_asked_for_again() {
    let simulation = Simulation::before_its_start();
    simulation.vault.answer_issues_after(TIMEOUT + SECOND);

    let current = simulation.route.current(TIMEOUT * 2).await.expect("the credential");

    assert_eq!(current.lease().id(), "database/creds/app/1");
    assert_eq!(simulation.said(), ["log in", "issue 1", "prove 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_comes_late_is_used_if_the_one_before_was_lost_meanwhile() {
    let simulation = Simulation::start().await;
    let lost = simulation.route.current(SECOND).await.expect("a credential");
    simulation.vault.answer_issues_after(TIMEOUT + SECOND);
    let route = std::sync::Arc::clone(&simulation.route);
    let rotation = tokio::spawn(async move { route.rotate(None).await });
    simulation.pass(SECOND).await;
    simulation.vault.revoke_by_hand(1);
    assert_eq!(simulation.route.check(lost.number(), SECOND * 5).await, crate::lease::Verdict::Lost);

    let fresh = simulation.route.current(TIMEOUT * 2).await.expect("the late credential");

    assert_eq!(fresh.lease().id(), "database/creds/app/2");
    rotation.await.expect("a rotation").expect("it is published");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_the_close_ends_does_not_show_an_older_error() {
    let simulation = Simulation::start().await;
    simulation.vault.go_away(true);
    simulation.pass(LEASE).await;
    assert!(simulation.route.status().last_error.is_some());
    let route = std::sync::Arc::clone(&simulation.route);
    let rotation = tokio::spawn(async move { route.rotate(None).await });
    simulation.pass(Duration::from_millis(1)).await;

    simulation.route.close().await;

    let failed = rotation.await.expect("a rotation").expect_err("nothing is issued any more");
    assert_eq!(failed, RotateFailed::NotRotated { why: NotRotated::Closed, said: None });
    assert_eq!(failed.to_string(), "leasehold is shutting down");
}

#[tokio::test(start_paused = true)]
async fn a_rotation_says_what_vault_has_said() {
    let simulation = Simulation::start().await;
    simulation.vault.go_away(true);

    let failed = simulation.route.rotate(None).await.expect_err("Vault is away");

    assert_eq!(failed.to_string(), "log in: Vault: no answer in time");
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_handed_over_shortly_before_the_end_of_the_last_is_found_in_time() {
    for tenths in 15..60 {
        let simulation = Simulation::start_with_token(SECOND * 21).await;
        let first = simulation.route.current(SECOND).await.expect("a credential");
        let left = first.hard_close_at().since(clock::now());
        simulation.pass(left - SECOND * tenths / 10).await;
        simulation.vault.hand_over(SECOND * 21);

        simulation.pass(SECOND * tenths / 10 - SECOND / 10).await;

        let current = simulation.route.current(Duration::ZERO).await.map(|current| current.number().get());
        assert_eq!(current.ok(), Some(2), "{tenths} tenths of a second before: {:?}", simulation.said());
    }
}
