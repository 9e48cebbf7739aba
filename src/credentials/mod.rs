//! Drives the lease machines and Vault, and publishes the current credential of each route. Floor 3.
//!
//! [`start`] spawns one driver task a route. It owns the route's [`DynamicRole`](crate::lease::DynamicRole), its tokens and its
//! credentials; others hold a [`Route`], by which they wait for the current credential, and [`Generation`]s, by which
//! their sessions learn when to end.

pub mod clock;
mod driver;
mod generation;
mod machine;
mod requests;
mod route;
pub mod state;
mod state_writer;
pub mod status;
mod view;

pub use crate::vault::Lease;
pub use driver::{Deps, RouteSettings, start};
pub use generation::{Drain, Ending, Generation, Guard, HardClose};
pub use machine::Kind;
pub use requests::{Obstacle, Proof, Prove, Servers};
pub use route::{DrainSpan, NoCredential, Replacement, RotateDone, RotateFailed, Route, Verdict};
