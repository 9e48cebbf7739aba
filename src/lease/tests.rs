//! Scripts for the machines, and a simulator that runs them over simulated weeks.
//!
//! | file | what it checks |
//! |---|---|
//! | `renewal`, `rotation`, `proof`, `ends`, `giving_back`, `bounds`, `crash` | one rule a test, as a script |
//! | `known`, `watch` | what the driver knows, and the promises P2 to P7 checked after each step |
//! | `world`, `promises` | a model of Vault, database and sessions, and random runs with it |
//! | `model` | every order of events up to a depth, and three bugs planted on purpose |
//! | `static_role` | the small machine of a static role, as scripts |
//! | `properties` | random worlds, random event sequences, and three bugs planted on purpose |

mod bounds;
mod crash;
mod ends;
mod giving_back;
mod known;
mod model;
mod pending_revocation;
mod promises;
mod proof;
mod properties;
mod renewal;
mod rotation;
mod script;
mod standby;
mod static_role;
mod watch;
mod world;
