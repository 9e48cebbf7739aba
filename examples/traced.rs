//! leasehold with the feature `otlp`, built beside the one without: the tests of traces run it. It is no example of anything.

use std::alloc::System;
use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

#[global_allocator]
static ALLOCATOR: ZeroAlloc<System> = ZeroAlloc(System);

fn main() -> ExitCode {
    leasehold::main()
}
