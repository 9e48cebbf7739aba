//! Where the state file lies, and who may touch it: memory only, this user only, one process only. Floor 3.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, StatFs};
use secrecy::zeroize::Zeroizing;

use crate::files::{NoDirectory, Shown};

/// Why a state file cannot be used. Each is for the user to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its filesystem is not one of memory.
    #[error(
        "{} is not in memory, and on a disk a credential would outlive its lease: name a file on tmpfs, such as in \
         /dev/shm, /run, or an emptyDir with medium Memory", Shown(.0)
    )]
    OnDisk(PathBuf),
    /// Its directory is not there.
    #[error(transparent)]
    NoDirectory(#[from] NoDirectory),
    /// Another process has the lock.
    #[error("another leasehold uses it; each needs a file of its own")]
    Locked,
    /// Its mode lets others in.
    #[error("others may read or write it (mode {0:03o}), so that it cannot be trusted: remove it")]
    Open(u32),
    /// Another user made it.
    #[error("it belongs to another user (uid {0}), so that it cannot be trusted: remove it")]
    Foreign(u32),
    /// A directory, a link, a socket.
    #[error("it is not a regular file: remove it")]
    NotAFile,
    /// The system refuses something.
    #[error("{what} {}", Shown(.path))]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A place for a state file.
#[derive(Debug)]
pub(super) struct StatePath {
    path: PathBuf,
}

/// Held until the process ends, however it ends: the kernel lets go of it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// More than any number of routes needs.
const MOST: u64 = 16 << 20;

impl StatePath {
    /// Looks at the directory.
    pub(super) fn new(path: &Path) -> Result<Self, Error> {
        if let Some(missing) = NoDirectory::of(path) {
            return Err(missing.into());
        }
        let place = Self { path: path.to_owned() };
        let directory = place.directory();
        let found = rustix::fs::statfs(&directory)
            .map_err(|errno| failed("cannot look at", &directory, errno.into()))?;
        if !is_memory(&found) {
            return Err(Error::OnDisk(directory));
        }
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps a second process out. The lock is a file beside it, which stays: a file that is replaced and removed cannot
    /// be the lock itself.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        let path = self.beside("lock");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(&path)
            .map_err(|source| failed("cannot open", &path, source))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Lock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(Error::Locked),
            Err(errno) => Err(failed("cannot lock", &path, errno.into())),
        }
    }

    /// What is in the file; `None` if there is none.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
        let Some(file) = self.examine()? else { return Ok(None) };
        let length = file.metadata().map_or(0, |data| data.len()).min(MOST);
        // With room for all of it at once, no copy is left behind by a buffer that grows.
        let mut text = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1));
        file.take(MOST).read_to_end(&mut text).map_err(|source| failed("cannot read", &self.path, source))?;
        Ok(Some(text))
    }

    /// Opens the file if there is one and it can be trusted.
    pub(super) fn examine(&self) -> Result<Option<File>, Error> {
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
            .open(&self.path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                return Err(Error::NotAFile);
            }
            Err(source) => return Err(failed("cannot open", &self.path, source)),
        };
        let data = file.metadata().map_err(|source| failed("cannot look at", &self.path, source))?;
        if !data.is_file() {
            return Err(Error::NotAFile);
        }
        if data.uid() != rustix::process::geteuid().as_raw() {
            return Err(Error::Foreign(data.uid()));
        }
        if data.mode() & 0o077 != 0 {
            return Err(Error::Open(data.mode() & 0o777));
        }
        // A single file can be mounted from elsewhere.
        match rustix::fs::fstatfs(&file) {
            Ok(found) if is_memory(&found) => Ok(Some(file)),
            Ok(_) => Err(Error::OnDisk(self.path.clone())),
            Err(errno) => Err(failed("cannot look at", &self.path, errno.into())),
        }
    }

    /// Puts the text in its place, whole or not at all. Memory has nothing to be synced.
    pub(super) fn write(&self, text: &[u8]) -> io::Result<()> {
        let new = self.beside("new");
        remove(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        // Whatever the umask has taken away.
        let written = file
            .set_permissions(Permissions::from_mode(0o600))
            .and_then(|()| file.write_all(text))
            .and_then(|()| std::fs::rename(&new, &self.path));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = remove(&new);
        }
        written
    }

    /// Removes the file, and what a crash may have left half written beside it.
    pub(super) fn clear(&self) -> io::Result<()> {
        let half = remove(&self.beside("new"));
        remove(&self.path).and(half)
    }

    fn directory(&self) -> PathBuf {
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    fn beside(&self, extension: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".");
        name.push(extension);
        name.into()
    }
}

fn is_memory(found: &StatFs) -> bool {
    // linux/magic.h. A tmpfs may be swapped out; that is for the machine's swap to mind.
    const TMPFS: u32 = 0x0102_1994;
    const RAMFS: u32 = 0x8584_58f6;
    // The type's width and sign differ between architectures; the magic numbers have 32 bits.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "32 bits, as said")]
    let magic = found.f_type as u32;
    matches!(magic, TMPFS | RAMFS)
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Io { what, path: path.to_owned(), source }
}
