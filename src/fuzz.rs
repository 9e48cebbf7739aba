//! Every parser and state machine that reads what others send, as a function of bytes: for fuzzers, and for the short run in
//! `make test`. Compiled for these two alone. Floor 6.
//!
//! A function asserts what has to hold whatever the bytes are. It has no clock, socket or randomness, so the same bytes
//! always do the same. `fuzz/` has the fuzzer and its corpora.

#[cfg(test)]
mod tests;

use crate::postgres::{console, protocol, upstream};
use crate::{admin, config, credentials, tls, vault};

/// A name, by which the corpus is found, and what is fed.
pub type Target = (&'static str, fn(&[u8]));

/// All of them, in the order of their names.
pub const TARGETS: [Target; 12] = [
    ("admin_request", admin::fuzz::request),
    ("auth", protocol::auth::fuzz::conversation),
    ("certificate", tls::fuzz::certificate),
    ("config", config::fuzz::file),
    ("console", console::fuzz::statements),
    ("frames", protocol::frame::fuzz::chunks),
    ("login", upstream::fuzz::login),
    ("session", protocol::phase::fuzz::session),
    ("startup", protocol::startup::fuzz::packet),
    ("state_file", credentials::state::fuzz::document),
    ("uri", upstream::fuzz::uri),
    ("vault_reply", vault::fuzz::reply),
];

/// The function with this name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| *target)
}
