//! The `leasehold` command. Floor 6; everything is in the library.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// Memory is cleared when it is freed, whoever had it: the crates of HTTP, TLS and JSON do not clear the copies that they make of a
/// password.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    leasehold::main()
}
