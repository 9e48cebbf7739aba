//! Memory for secrets that is not swapped out, where the system allows that. Floor 0.
//!
//! It is one for the whole process, as an allocator is: a secret is made wherever one is received.

use std::io;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use memmap2::{MmapMut, MmapOptions};
use secrecy::zeroize::Zeroize as _;

/// A piece of it that holds a text. It is cleared and given back when it is dropped.
pub(super) struct Slot {
    memory: &'static mut [u8],
    length: usize,
}

impl Slot {
    /// Copies the text. `None`: it is longer than [`SLOT_BYTES`], no slot is free, or the system locks no memory.
    pub(super) fn holding(text: &str) -> Option<Self> {
        if text.len() > SLOT_BYTES {
            return None;
        }
        let slot = Self { memory: free().pop()?, length: text.len() };
        slot.memory.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        Some(slot)
    }

    #[expect(clippy::expect_used, reason = "it was copied from a text of this length")]
    pub(super) fn text(&self) -> &str {
        let bytes = self.memory.get(..self.length);
        bytes.and_then(|bytes| str::from_utf8(bytes).ok()).expect("a text")
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.memory.zeroize();
        free().push(std::mem::take(&mut self.memory));
    }
}

/// Locks it, if that was not tried before.
///
/// # Errors
/// The system refuses.
pub(super) fn lock() -> io::Result<()> {
    POOL.refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
}

fn free() -> MutexGuard<'static, Vec<&'static mut [u8]>> {
    POOL.free.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Pool {
    free: Mutex<Vec<&'static mut [u8]>>,
    /// The number of the error.
    refused: Option<i32>,
}

static POOL: LazyLock<Pool> = LazyLock::new(|| {
    let map = MmapOptions::new().len(POOL_BYTES).map_anon();
    let locked = map.and_then(|map| map.lock().map(|()| map));
    match locked {
        Ok(map) => {
            let memory: &'static mut MmapMut = Box::leak(Box::new(map));
            Pool { free: Mutex::new(memory.chunks_exact_mut(SLOT_BYTES).collect()), refused: None }
        }
        Err(error) => {
            Pool { free: Mutex::default(), refused: Some(error.raw_os_error().unwrap_or_default()) }
        }
    }
});

/// A password that Vault makes has 20 bytes, a token about 100. A JWT has more, and is kept for the length of a login.
const SLOT_BYTES: usize = 256;
/// What older kernels let each process lock. It is room for the passwords and tokens of a hundred routes.
const POOL_BYTES: usize = 64 << 10;
