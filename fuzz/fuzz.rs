//! libFuzzer with one of leasehold's targets: the variable TARGET names it.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = std::env::var("TARGET").expect("TARGET names what is fed");
    leasehold::fuzz::target(&name).expect("TARGET is one of leasehold's")
});

fuzz_target!(|data: &[u8]| TARGET(data));
