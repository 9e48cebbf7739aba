//! The lease machines: pure, times come in, actions go out. Floor 1.
//!
//! | the machines (here) | the driver (`credentials`) |
//! |---|---|
//! | decide what to ask for, and when | asks Vault, one tracked task a request |
//! | know ids of tokens and generations | keeps id → token, id → credential |
//! | say when sessions drain and end | tells the sessions |
//! | never look at a clock | calls [`DynamicRole::handle`] with the time, sleeps until [`DynamicRole::next_deadline`] |
//!
//! Three small machines hold the lives of things: `tokens` (one login), [`generation`] (one lease) and `issuance`
//! (one fresh credential at a time). The [`DynamicRole`] of a route holds them together and takes every decision that needs
//! more than one of them.

mod candidate;
mod deadline;
mod doubt;
mod dynamic_role;
mod event;
mod failure_class;
pub(crate) mod generation;
mod generations;
mod holdings;
mod ids;
mod issuance;
mod issue_limit;
mod lazy;
mod lease_term;
mod note;
mod refusals;
mod renewal;
mod revocation;
mod rotation;
pub(crate) mod schedule;
mod settings;
pub(crate) mod static_role;
pub(crate) mod term;
mod tokens;

#[cfg(test)]
mod tests;

pub(crate) use deadline::NextAction;
pub(crate) use dynamic_role::{DynamicRole, Snapshot};
pub(crate) use event::{
    Action, Closing, DrainSpan, Ending, Event, Failure, LeaseLookup, NotRotated, TokenFacts, Verdict,
};
pub(crate) use generation::GenerationSnapshot;
pub(crate) use ids::{GenerationId, TokenId};
pub(crate) use note::{Cause, Note, Outcome, Reason};
pub(crate) use settings::Settings;
pub(crate) use static_role::StaticRole;
pub(crate) use tokens::TokenSnapshot;
