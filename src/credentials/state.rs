//! The state file: what the routes hold, kept in memory beyond the process, so that the start after a crash takes its
//! credentials up again. Floor 3.
//!
//! ```text
//! driver ──as it changes──▶ Slot ──▶ StateFile ──whole, by rename──▶ <file>      (tmpfs, mode 0600)
//!    ▲                                   ▲                           <file>.lock (held while the process lives)
//!    └── what there is of its route ─────┴── at the start
//! ```
//! Writing never waits for a disk, so drivers do it where they stand.

mod document;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod place;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::files::Shown;
use document::Document;
use place::{Lock, StatePath};

pub(super) use document::{Origin, Saved, SavedGeneration, SavedToken};
pub(crate) use place::Error;

/// An open state file. Only this process has it.
pub(crate) struct StateFile {
    place: StatePath,
    boot: String,
    vault: String,
    inner: Mutex<Inner>,
    _lock: Lock,
}

#[derive(Default)]
struct Inner {
    slots: BTreeMap<u64, Saved>,
    /// Slots of an earlier process that no route has taken.
    untaken: Vec<u64>,
    next: u64,
    /// The latest write failed.
    failing: bool,
    finished: bool,
}

/// One driver's part of the file.
pub(crate) struct Slot {
    file: Arc<StateFile>,
    id: u64,
}

impl StateFile {
    /// Opens the file and reads what a crash has left. `vault` says of which Vault everything is; what is of another one,
    /// of another boot, or cannot be read, is removed with a warning.
    ///
    /// # Errors
    /// If the file, or its place, is not fit for secrets, or another process has it. Nothing has been changed then.
    pub(crate) fn open(path: &Path, vault: String) -> Result<Arc<Self>, Error> {
        Self::open_in(path, vault, boot_id())
    }

    fn open_in(path: &Path, vault: String, boot: String) -> Result<Arc<Self>, Error> {
        let place = StatePath::new(path)?;
        let lock = place.lock()?;
        let mut inner = Inner::default();
        if let Some(text) = place.read()? {
            match Document::read(&text, &boot, &vault, clock::now()) {
                Ok(routes) => {
                    inner.slots = (0..).zip(routes).collect();
                    inner.untaken = inner.slots.keys().copied().collect();
                    inner.next = inner.slots.len() as u64;
                    tracing::info!(
                        file = %Shown(path),
                        leases = inner.leases(),
                        "an earlier process did not end in order: what it held is taken up again, or given back"
                    );
                }
                Err(useless) => {
                    tracing::warn!(
                        file = %Shown(path),
                        "the state file is removed and fresh credentials are issued: {useless}; leases that it named lapse"
                    );
                    clear(&place);
                }
            }
        }
        Ok(Arc::new(Self { place, boot, vault, inner: Mutex::new(inner), _lock: lock }))
    }

    /// Whether a file at this path could be used, another process apart. Nothing is made or changed.
    ///
    /// # Errors
    /// As [`StateFile::open`].
    pub(crate) fn examine(path: &Path) -> Result<(), Error> {
        StatePath::new(path)?.examine().map(drop)
    }

    /// The part of this route, with what an earlier process has left of it.
    #[must_use]
    pub(crate) fn slot(self: &Arc<Self>, route: &str) -> Slot {
        let mut inner = self.inner();
        // A route that was taken out and put in again may have left two; one of them served.
        let known = inner.untaken.iter().filter_map(|id| Some((*id, inner.slots.get(id)?)));
        let of_route = known.filter(|(_, left)| left.route == route);
        let id = match of_route.max_by_key(|(_, left)| left.serves()).map(|(id, _)| id) {
            Some(id) => {
                inner.untaken.retain(|other| *other != id);
                id
            }
            None => {
                let id = inner.next;
                inner.next += 1;
                inner.slots.insert(id, Saved::new(route));
                id
            }
        };
        Slot { file: Arc::clone(self), id }
    }

    /// What an earlier process has left of routes that are not configured, with their names.
    #[must_use]
    pub(crate) fn rest(self: &Arc<Self>) -> Vec<(String, Slot)> {
        let mut inner = self.inner();
        let untaken = std::mem::take(&mut inner.untaken);
        untaken
            .into_iter()
            .filter_map(|id| Some((inner.slots.get(&id)?.route.clone(), Slot { file: Arc::clone(self), id })))
            .collect()
    }

    /// The end in order: the file is removed, and nothing is written any more. Gives how many leases were still in it.
    pub(crate) fn finish(&self) -> usize {
        let mut inner = self.inner();
        inner.finished = true;
        clear(&self.place);
        inner.leases()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False if it could not be written.
    fn write(&self, inner: &mut Inner) -> bool {
        if inner.finished {
            return true;
        }
        let mut held = inner.slots.values().filter(|left| !left.is_empty()).peekable();
        let written = if held.peek().is_none() {
            self.place.clear()
        } else {
            Document::write(&self.boot, &self.vault, held)
                .map_err(std::io::Error::from)
                .and_then(|text| self.place.write(&text))
        };
        let file = Shown(self.place.path());
        match &written {
            Ok(()) if inner.failing => {
                inner.failing = false;
                tracing::info!(%file, "the state file is written again");
            }
            Err(error) if !inner.failing => {
                inner.failing = true;
                tracing::warn!(%file, %error, "the state file cannot be written; after a crash it would say what was");
            }
            Ok(()) | Err(_) => {}
        }
        written.is_ok()
    }
}

impl Inner {
    fn leases(&self) -> usize {
        self.slots.values().map(|left| left.generations.len()).sum()
    }
}

impl Slot {
    /// What is in it.
    pub(super) fn left(&self) -> Saved {
        self.file.inner().slots.get(&self.id).cloned().unwrap_or_else(|| Saved::new(""))
    }

    /// Puts this into it, and writes the file. False if it could not be written.
    pub(super) fn save(&self, tokens: Vec<SavedToken>, generations: Vec<SavedGeneration>) -> bool {
        let mut inner = self.file.inner();
        if let Some(left) = inner.slots.get_mut(&self.id) {
            (left.tokens, left.generations) = (tokens, generations);
        }
        self.file.write(&mut inner)
    }
}

impl std::fmt::Debug for StateFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateFile").field("path", &self.place.path()).finish_non_exhaustive()
    }
}

fn clear(place: &StatePath) {
    if let Err(error) = place.clear() {
        tracing::warn!(file = %Shown(place.path()), %error, "the state file cannot be removed");
    }
}

/// Differs from boot to boot. Where `/proc/sys` is hidden it is empty, and that has to do: memory does not outlive a boot.
///
/// <https://www.kernel.org/doc/html/latest/admin-guide/sysctl/kernel.html#random>
fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
