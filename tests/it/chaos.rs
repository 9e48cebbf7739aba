//! Faults in random order, each by a real act. After each one leasehold is well again by itself, and no write is lost
//! or there twice.
//!
//! `make test` runs a round of them from a fixed seed; `make chaos` as many as `ROUNDS` says, from `SEED`.

mod faults;
mod stage;
mod writers;

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use tokio::time::Instant;

use faults::Fault;
use stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn every_fault_heals_by_itself_and_every_write_adds_up() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let seed = number("SEED", 1);
    let rounds = number("ROUNDS", Fault::ALL.len() as u64);
    eprintln!("chaos: SEED={seed} ROUNDS={rounds}");
    let mut dice = StdRng::seed_from_u64(seed);
    let mut stage = Stage::new().await;
    stage.healed().await;

    let mut to_come = Vec::new();
    for round in 1..=rounds {
        if to_come.is_empty() {
            to_come = Fault::ALL.to_vec();
            to_come.shuffle(&mut dice);
        }
        let fault = to_come.pop().expect("it was filled");
        if fault.is_vaults() {
            // A session whose role was dropped by an earlier fault may work on until that is noticed.
            stage.writers.come_again().await;
        }
        let before = stage.writers.noticed();
        let began = Instant::now();
        fault.act(&mut stage, &mut dice).await;
        let undone = Instant::now();
        stage.healed().await;
        let healed = Instant::now();
        let noticed = stage.writers.noticed().since(&before);
        eprintln!(
            "chaos: {round:>3} {:<26} {:>5.1} s long, healed {:>5.1} s after it; {noticed}; at most {} requests a second",
            format!("{fault:?}"),
            (undone - began).as_secs_f64(),
            (healed - undone).as_secs_f64(),
            stage.most_requests(began, healed),
        );
        if fault.is_vaults() {
            assert_eq!(noticed.unplanned(), 0, "{fault:?}: clients noticed: {noticed}");
        }
        stage.adds_up().await;
    }
    stage.stop().await;
}

/// Generous: a busy machine, and back-off up to its longest.
const HEALS_WITHIN: Duration = Duration::from_secs(90);
