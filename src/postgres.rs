//! Everything that speaks the PostgreSQL wire protocol.

pub(crate) mod cancel;
pub(crate) mod console;
pub(crate) mod protocol;
pub(crate) mod relay;
pub(crate) mod session;
pub(crate) mod upstream;
