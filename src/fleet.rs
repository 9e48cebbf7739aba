//! A fleet of sidecars and one Vault, over simulated time: what `leasehold simulate` shows. Floor 6.
//!
//! The sidecars are the machines that run in production, with the driver's own policies; Vault, PostgreSQL, clients and the
//! clock are models. Nothing is asked of any server, and no clock is looked at.
//!
//! | file | what it is |
//! |---|---|
//! | `scenario`, `scenarios` | what a simulation is told; those of the documents |
//! | `world`, `shard` | time, and who has something to do |
//! | `sidecar` | one sidecar: its machine, its requests, its sessions, the promises that it keeps |
//! | `servers`, `verdicts` | the model of Vault; what its answers mean |
//! | `tally`, `figures`, `report`, `svg` | what is counted, what it comes to, and how it is shown |

mod dice;
mod figures;
mod report;
mod scenario;
mod scenarios;
mod servers;
mod shard;
mod sidecar;
mod svg;
mod tally;
mod verdicts;
mod world;

#[cfg(test)]
pub(crate) use figures::Figures;
pub(crate) use report::{Report, markdown, text};
pub(crate) use scenario::Scenario;
pub(crate) use scenarios::{Size, all, processes};

#[cfg(test)]
mod tests;

/// Simulates.
#[must_use]
pub(crate) fn simulate(scenario: &Scenario) -> Report {
    Report::new(scenario, world::run(scenario))
}
