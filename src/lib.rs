//! leasehold: a PostgreSQL wire-protocol proxy. An app connects with no password; leasehold logs in upstream with the
//! current dynamic credential of Vault or OpenBao, renews its lease, rotates in time, and ends sessions with the lease.
//!
//! A module imports only from floors below its own (`tests/floors.rs` holds it to that):
//!
//! | floor | modules | what they are |
//! |---|---|---|
//! | 0 | `time`, `clock`, `secret`, `error`, `metrics`, `crypto`, `files`, `bucket`, `log_throttle`, `table` | what every floor shares: points in time, secrets, errors, counters, how files of secrets are read, how often something may happen or be logged, tables for people |
//! | 1 | `lease`, `postgres::protocol` | pure: no clock, no socket, no log; neither knows the other |
//! | 2 | `vault`, `postgres::upstream` | the two servers that leasehold talks to; neither knows the other |
//! | 2 | `acceptor` | TLS towards clients: certificates and the handshake |
//! | 2 | `tls`, `dial` | TLS and connections towards a server, whatever is spoken over them |
//! | 2 | `socket` | what listening sockets have in common, whoever listens |
//! | 3 | `credentials` | drives the lease machines and Vault, publishes the current credential |
//! | 4 | `session` | what a session is made of, whatever protocol its client speaks |
//! | 4 | `postgres::session`, `postgres::relay`, `postgres::cancel` | a client and its session upstream |
//! | 5 | `listener`, `workers`, `shutdown`, `admin`, `log`, `notify` | what the world connects to, and reads; the threads that carry sessions |
//! | 6 | `config`, `cli`, `check`, `policy`, `proof`, `upstreams`, `fleet`, `app` | what the user types, and how it all comes together |
//!
//! Outside of the crate there are the command, the table of settings that its documents are made from, and what the tests of
//! whole conversations ask of the phase tracker.

mod acceptor;
mod admin;
mod app;
mod bucket;
mod check;
mod cli;
mod clock;
mod config;
mod credentials;
mod crypto;
mod dial;
mod error;
mod files;
mod fleet;
mod lease;
mod listener;
mod log;
mod log_throttle;
mod metrics;
mod notify;
mod policy;
mod postgres;
mod proof;
mod secret;
mod session;
mod shutdown;
mod socket;
mod table;
mod time;
mod tls;
mod upstreams;
mod vault;
mod workers;

pub use app::main;
pub use config::{Setting, command, settings};
#[doc(hidden)]
pub use postgres::protocol::phase::places;
