//! leasehold: a PostgreSQL wire-protocol proxy. An app connects with no password; leasehold logs in upstream with the
//! current dynamic credential of Vault or OpenBao, renews its lease, rotates in time, and ends sessions with the lease.
//!
//! A module imports only from floors below its own (`tests/floors/main.rs` holds it to that):
//!
//! | floor | modules | what they are |
//! |---|---|---|
//! | 0 | `time`, `clock`, `secret`, `error`, `metrics`, `crypto`, `files`, `bucket`, `log_throttle`, `nearest`, `table`, `terminal`, `traces` | what every floor shares: points in time, secrets, errors, counters, spans, how files of secrets are read, how often something may happen or be logged, tables for people and the terminal that shows them, the word that was meant |
//! | 1 | `lease`, `postgres::protocol` | pure: no clock, no socket, no log; neither knows the other |
//! | 2 | `vault`, `postgres::upstream` | the two servers that leasehold talks to; neither knows the other |
//! | 2 | `acceptor` | TLS towards clients: certificates and the handshake |
//! | 2 | `tls`, `dial` | TLS and connections towards a server, whatever is spoken over them |
//! | 2 | `published` | a value that many tasks watch |
//! | 2 | `socket` | what listening sockets have in common, whoever listens |
//! | 3 | `credentials` | drives the lease machines and Vault, publishes the current credential |
//! | 4 | `session` | what a session is made of, whatever protocol its client speaks |
//! | 4 | `postgres::session`, `postgres::relay`, `postgres::cancel`, `postgres::console` | a client and its session upstream; a client that asks leasehold itself |
//! | 5 | `listener`, `workers`, `shutdown`, `admin`, `console`, `log`, `notify`, `otlp`, `hardening` | what the world connects to, and reads, and is sent; the threads that carry sessions; what the process gives up |
//! | 6 | `config`, `cli`, `check`, `policy`, `proof`, `upstreams`, `fleet`, `pure`, `fuzz`, `app` | what the user types, and how it all comes together |
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
mod console;
mod credentials;
mod crypto;
mod dial;
mod error;
mod files;
mod fleet;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod hardening;
mod lease;
mod listener;
mod log;
mod log_throttle;
mod metrics;
mod nearest;
mod notify;
mod otlp;
mod policy;
mod postgres;
mod proof;
mod published;
#[doc(hidden)]
pub mod pure;
mod secret;
mod session;
mod shutdown;
mod socket;
mod table;
mod terminal;
mod time;
mod tls;
mod traces;
mod upstreams;
mod vault;
mod workers;

pub use app::main;
pub use config::{Setting, command, settings};
#[doc(hidden)]
pub use postgres::protocol::phase::places;
