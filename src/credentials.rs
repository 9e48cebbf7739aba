//! Drives the lease machines and Vault, and publishes the current credential of each route. Floor 3.
//!
//! [`start`] spawns one driver task a route. It owns the route's [`DynamicRole`](crate::lease::DynamicRole), its tokens and its
//! credentials; others hold a [`Route`], by which they wait for the current credential, and [`Generation`]s, by which
//! their sessions learn when to end.

mod client;
mod driver;
mod generation;
mod history;
mod machine;
mod outage;
mod proof;
mod requests;
mod route;
mod settings;
pub(crate) mod state;
mod state_writer;
pub(crate) mod status;
mod view;

pub(crate) use crate::lease::{DrainSpan, Verdict};
pub(crate) use crate::vault::Lease;
pub(crate) use driver::{Deps, Leftovers, give_back, start};
pub(crate) use generation::{Generation, Guard};
pub(crate) use history::{BIN, RouteHistory, SPAN};
pub(crate) use proof::{Obstacle, Proof};
pub(crate) use requests::{Prove, Servers};
pub(crate) use route::{Replacement, RotateDone, Route};
pub(crate) use settings::{RouteSettings, Serves};
