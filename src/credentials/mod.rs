//! Drives the lease machines and Vault, and publishes the current credential of each route. Floor 3.

pub mod clock;
mod generation;
mod route;
pub mod status;

pub use generation::{Drain, Ending, Generation, Guard, HardClose};
pub use route::{DrainSpan, NoCredential, RotateFailed, Route, Verdict};
