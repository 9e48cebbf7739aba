//! The lease machines: pure, times come in, actions go out. Floor 1.
//!
//! | the machines (here) | the driver (`credentials`) |
//! |---|---|
//! | decide what to request, and when | sends the requests to Vault, each in a tracked task |
//! | know ids of tokens and generations | keeps id → token, id → credential |
//! | say when sessions drain and end | notifies the sessions |
//! | never look at a clock | calls [`DynamicRole::handle`] with the time, sleeps until [`DynamicRole::next_deadline`] |
//!
//! | part | what it keeps to itself |
//! |---|---|
//! | `tokens` | the tokens of a role: renewed while they are needed, then revoked |
//! | `generations`, [`generation`], `lease_term` | the leases: their states, and their terms |
//! | `issuance`, `candidate`, `issue_limit`, `failure_class` | a fresh credential, until it is published |
//! | `rotation` | what asks for a fresh credential |
//! | `renewal` | nothing: functions over leases and tokens |
//! | `refusals`, `doubt` | logins that are refused though the lease lives |
//! | `entry` | whether sessions can log in with the published credential |
//! | `revocation` | leases that are revoked with their token |
//! | `lazy` | whether a lazy route has a credential |
//! | `deadline` | when a role is reviewed again, and why |
//!
//! A [`DynamicRole`] is made of all of them, a [`StaticRole`] of tokens, doubt, entry and deadlines. `holdings` is the view of
//! a role from which decisions are made that need more than one part.

mod candidate;
mod deadline;
mod doubt;
mod dynamic_role;
mod entry;
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
    Action, Barrier, Closing, DrainSpan, Ending, Event, Failure, LeaseLookup, NotRotated, TokenFacts, Verdict,
};
pub(crate) use generation::GenerationSnapshot;
pub(crate) use ids::{GenerationId, TokenId};
pub(crate) use note::{Cause, Note, Outcome, Reason};
pub(crate) use settings::Settings;
pub(crate) use static_role::StaticRole;
pub(crate) use tokens::TokenSnapshot;
