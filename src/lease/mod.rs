//! The lease machines: pure, times come in, actions go out. Floor 1.
//!
//! | the machines (here) | the driver (`credentials`) |
//! |---|---|
//! | decide what to ask for, and when | asks Vault, one tracked task a request |
//! | know ids of tokens and generations | keeps id → token, id → credential |
//! | say when sessions drain and end | tells the sessions |
//! | never look at a clock | calls [`Keeper::handle`] with the time, sleeps until [`Keeper::next_deadline`] |
//!
//! Three small machines hold the lives of things: [`token`] (one login), [`generation`] (one lease) and [`issuance`]
//! (one fresh credential at a time). The [`Keeper`] of a route holds them together and takes every decision that needs
//! more than one of them.

mod doubt;
mod event;
mod farewell;
pub mod generation;
pub mod issuance;
mod issue;
mod keeper;
mod kept;
mod renewing;
mod replacing;
mod review;
pub mod schedule;
mod standby;
pub mod static_role;
pub mod term;
mod time;
pub mod token;

#[cfg(test)]
mod tests;

pub use event::{Action, Drain, Event, Failure, Note, Outcome, Settings, Sight, Verdict};
pub use issuance::Reason;
pub use keeper::Keeper;
pub use kept::{Kept, KeptGeneration, KeptToken};
pub use static_role::StaticKeeper;
pub use time::Time;
pub use token::{TokenFacts, TokenId};
