//! Vault and OpenBao, by their HTTP API: log in, issue, renew, revoke. Floor 2.

mod config;

pub use config::{Auth, Config};
