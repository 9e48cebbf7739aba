//! What PostgreSQL and its administrators do to a credential and its sessions: real servers, real acts.

mod leftovers;
