//! The lease machines: pure, times come in, actions go out. Floor 1.
//!
//! | the machines (here) | the driver (`credentials`) |
//! |---|---|
//! | decide what to ask for, and when | asks Vault, one tracked task a request |
//! | know ids of tokens and generations | keeps id → token, id → credential |
//! | say when sessions drain and end | tells the sessions |
//! | never look at a clock | calls [`DynamicRole::handle`] with the time, sleeps until [`DynamicRole::next_deadline`] |
//!
//! Three small machines hold the lives of things: [`token`] (one login), [`generation`] (one lease) and [`issuance`]
//! (one fresh credential at a time). The [`DynamicRole`] of a route holds them together and takes every decision that needs
//! more than one of them.

mod doubt;
mod dynamic_role;
mod event;
pub(crate) mod generation;
pub(crate) mod issuance;
mod issue;
mod pending_revocation;
mod renewing;
mod replacing;
mod review;
pub(crate) mod schedule;
mod snapshot;
mod standby;
pub(crate) mod static_role;
pub(crate) mod term;
pub(crate) mod token;

#[cfg(test)]
mod tests;

pub(crate) use dynamic_role::DynamicRole;
pub(crate) use event::{Action, Drain, Event, Failure, LeaseLookup, Note, Outcome, Settings, Verdict};
pub(crate) use generation::GenerationId;
pub(crate) use issuance::Reason;
pub(crate) use snapshot::{GenerationSnapshot, Snapshot, TokenSnapshot};
pub(crate) use static_role::StaticRole;
pub(crate) use token::{TokenFacts, TokenId};
