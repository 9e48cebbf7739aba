//! What a session is made of, whatever protocol its client speaks: its route's match, its place under a limit, the buffer
//! that it borrows, when it has to end, and what wakes it for that. Floor 4.

mod buffered;
pub(crate) mod end;
mod limit;
mod name_match;
pub(crate) mod read_buffer;
pub(crate) mod timer;
mod watched;

pub(crate) use buffered::Buffered;
pub(crate) use limit::{Limits, SessionLimit, SessionPermit};
pub(crate) use name_match::Match;
pub(crate) use watched::WatchedValue;
