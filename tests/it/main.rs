//! The integration tests: leasehold as a process, between real clients, a real OpenBao and a real PostgreSQL.
//!
//! One binary, so that its tests share the servers; a module for each paragraph of behaviour. `harness` is the language
//! that they are told in, `bench` tests the harness itself. Only Python 3 is needed beforehand: the first test installs
//! and starts what is missing, and all servers end with this process, however it ends.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why on stderr"
)]

mod access;
mod bench;
mod chaos;
mod check;
mod client_tls;
mod crash;
mod differential;
mod faults;
mod harness;
mod lease;
mod load;
mod main_job;
mod page;
mod policy;
mod probe;
mod process;
mod protocol;
mod reload;
mod replica;
mod routes;
mod secrets;
mod session;
mod soak;
mod static_role;
mod upstream;
mod vault;
