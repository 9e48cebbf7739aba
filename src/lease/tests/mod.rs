//! Scripts for the machines.
//!
//! | file | what it holds the machines to |
//! |---|---|
//! | `renewal`, `rotation`, `proof`, `ends`, `giving_back`, `bounds` | one rule of DESIGN each test, as a script |

mod bounds;
mod ends;
mod giving_back;
mod proof;
mod renewal;
mod rotation;
mod script;
