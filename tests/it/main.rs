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

mod bench;
mod chaos;
mod check;
mod check_route;
mod check_vault;
mod crash;
mod faults;
mod faults_process;
mod faults_vault;
mod harness;
mod lease;
mod load;
mod main_job;
mod policy;
mod probe;
mod process;
mod process_commands;
mod process_crowd;
mod process_descriptors;
mod process_endpoints;
mod process_hardening;
mod process_logs;
mod process_metrics;
mod process_stop;
mod protocol_handshake;
mod protocol_parameters;
mod protocol_tls;
mod protocol_version;
mod reload;
mod replica;
mod routes;
mod secrets;
mod secrets_files;
mod session_death;
mod session_drain;
mod session_end;
mod session_pools;
mod session_race;
mod session_relay;
mod soak;
mod static_role;
mod upstream;
mod upstream_pooler;
mod upstream_tls;
mod vault_addresses;
mod vault_login;
mod vault_proxy;
mod vault_tokens;
mod vault_wrapped;
