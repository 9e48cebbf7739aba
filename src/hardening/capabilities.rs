//! The capabilities of the thread, and so of every thread that it starts. Floor 5.

use rustix::io::{Errno, Result};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

/// Gives them all up, for good, and tells how many there were. Where there are none the system is not asked, as a service
/// manager may have forbidden the question.
pub(super) fn drop_all() -> Result<u32> {
    let held = capabilities(None)?;
    let all = held.permitted | held.inheritable;
    if held.effective.contains(CapabilitySet::SETPCAP) {
        empty_bounding_set()?;
    }
    if !all.is_empty() {
        let none = CapabilitySet::empty();
        // Ambient ones go with those that are permitted.
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    }
    Ok(all.bits().count_ones())
}

/// A program that this process would run could not get them back.
fn empty_bounding_set() -> Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            other => other?,
        }
    }
    Ok(())
}
