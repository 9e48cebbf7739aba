//! Everything that speaks the PostgreSQL wire protocol.

pub mod cancel;
pub mod protocol;
pub mod relay;
pub mod session;
pub mod upstream;
