//! Scripts for the machines, and a simulator that runs them over simulated weeks.
//!
//! | file | what it checks |
//! |---|---|
//! | `renewal`, `token_renewal`, `back_off`, `rotation`, `standby`, `proof`, `published_proof`, `ends`, `giving_back`, `pending_revocation`, `bounds`, `refused`, `crash` | one rule a test, as a script |
//! | `known`, `watch` | what the driver knows, and the promises P2 to P7 checked after each step |
//! | `world`, `simulation` | a model of Vault, database and sessions, and random runs with it |
//! | `model` | every order of events up to a depth, and three bugs planted on purpose |
//! | `static_role` | the small machine of a static role, as scripts |
//! | `properties` | random worlds, random event sequences, and three bugs planted on purpose |

mod back_off;
mod bounds;
mod crash;
mod ends;
mod giving_back;
mod known;
mod model;
mod pending_revocation;
mod proof;
mod properties;
mod published_proof;
mod refused;
mod renewal;
mod rotation;
mod script;
mod simulation;
mod standby;
mod static_role;
mod token_renewal;
mod watch;
mod world;
