//! Sessions: what they relay, and how they end.

mod death;
mod drain;
mod end;
mod pools;
mod race;
mod relay;
mod reuse;
mod warm;
