//! Files that are in no disk's reach.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory in memory, gone with the test.
pub(crate) struct Memory(PathBuf);

impl Memory {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("leasehold-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new("/dev/shm").join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A state file in it.
    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("state")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
