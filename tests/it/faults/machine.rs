//! Faults of the machine and the network around the process, each a real one: clocks, signals, limits, cut connections.

mod clocks;
mod network;
mod process;
