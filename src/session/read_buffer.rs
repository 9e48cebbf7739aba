//! The buffer that relayed bytes are read into: one a thread, lent for the length of one poll. Floor 4.

use std::cell::Cell;

/// Runs `use_it` with the thread's buffer. A session owns no buffer: it copies what it cannot write at once.
pub(crate) fn lend<R>(use_it: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = BUFFER.take();
    if buffer.is_empty() {
        buffer = vec![0; READ_BYTES].into_boxed_slice();
    }
    let result = use_it(&mut buffer);
    BUFFER.set(buffer);
    result
}

thread_local! {
    /// Taken out while it is lent, so a poll within a poll gets one of its own.
    static BUFFER: Cell<Box<[u8]>> = Cell::default();
}

/// Half of a common L1 data cache: larger reads spill it, smaller ones cost system calls.
pub(crate) const READ_BYTES: usize = 32 * 1024;
