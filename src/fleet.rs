//! Simulates a fleet of sidecars with one Vault over simulated time, for `leasehold simulate`. Floor 6.
//!
//! The sidecars use the lease machines of production, with the driver's own policies. Vault, PostgreSQL, clients and
//! the clock are models: no server is contacted, and no clock is read.
//!
//! | file | what it is |
//! |---|---|
//! | `scenario`, `scenarios` | the input of a simulation; the scenarios of the documents |
//! | `world`, `shard`, `wheel` | simulated time, and which sidecar has an event when |
//! | `sidecar` | one sidecar: its machine, its requests, its sessions, and the checks of its promises |
//! | `servers`, `verdicts` | the model of Vault; the meaning of its answers |
//! | `tally`, `figures`, `report`, `svg` | counters, the figures made of them, and their presentation |

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
mod wheel;
mod world;

#[cfg(test)]
pub(crate) use figures::Figures;
pub(crate) use report::{Report, markdown, text};
pub(crate) use scenario::Scenario;
pub(crate) use scenarios::{Size, all, processes};

#[cfg(test)]
mod tests;

/// Runs the simulation of a scenario.
#[must_use]
pub(crate) fn simulate(scenario: &Scenario) -> Report {
    Report::new(scenario, world::run(scenario))
}
