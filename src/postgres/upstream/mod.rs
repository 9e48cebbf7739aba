//! The upstream server. Floor 2.

pub mod uri;
