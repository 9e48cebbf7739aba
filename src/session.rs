//! What a session is made of, whatever protocol its client speaks: its route's match, who may use that, its place under a limit, the buffer
//! that it borrows, when it has to end, and what is shown of it. Floor 4.

mod access;
pub(crate) mod activity;
pub(crate) mod audit;
mod buffered;
pub(crate) mod end;
mod limit;
mod name_match;
pub(crate) mod read_buffer;
pub(crate) mod registry;
pub(crate) mod status;
pub(crate) mod timer;

pub(crate) use access::{Access, San};
pub(crate) use buffered::Buffered;
pub(crate) use limit::{Admission, Limits, ListenerLimits, LoginRate, SessionLimit, SessionPermit};
pub(crate) use name_match::Match;
pub(crate) use registry::Sessions;
