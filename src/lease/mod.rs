//! The lease machines: pure, times come in, actions go out. Floor 1.

mod time;

pub use time::Time;
