//! The file of the audit trail: appended to, opened again when it was moved away, for its owner alone. Floor 5.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;

use crate::files::NoDirectory;

/// The open file, in the hands of the thread that writes it.
pub(super) struct AuditFile {
    path: PathBuf,
    file: File,
    moved: Arc<AtomicBool>,
    /// It could not be opened again, which the log has said.
    has_failed: bool,
}

impl AuditFile {
    /// Opens the file, or makes it, with the mode 0600.
    ///
    /// # Errors
    /// It cannot be opened, is a link, or belongs to another user.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), file: open(path)?, moved: Arc::default(), has_failed: false })
    }

    /// Set it, and the next line goes to the file that then has the name.
    pub(super) fn moved(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.moved)
    }
}

impl Write for AuditFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.moved.swap(false, Ordering::Relaxed) {
            match open(&self.path) {
                Ok(file) => (self.file, self.has_failed) = (file, false),
                // Lines in the file of before are better than none. The next line tries again.
                Err(error) => {
                    self.moved.store(true, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.has_failed, true) {
                        tracing::error!(%error, file = %self.path.display(), "audit_file cannot be opened again");
                    }
                }
            }
        }
        self.file.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A FIFO that nobody reads would block, and a link would lead elsewhere.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE).custom_flags(i32::try_from(flags).unwrap_or_default());
    let file = options.open(path).map_err(|error| NoDirectory::explain(error, path))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    file.set_permissions(Permissions::from_mode(MODE))?;
    Ok(file)
}

/// It tells who connected, as whom and when.
const MODE: u32 = 0o600;

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let directory = std::env::temp_dir().join(format!("leasehold-audit-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = directory("moved");
        let (path, moved_to) = (directory.join("audit"), directory.join("audit.1"));
        std::fs::write(&path, "before\n").unwrap();
        let mut file = AuditFile::open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved_to).unwrap();
        file.write_all(b"two\n").unwrap();
        file.moved().store(true, Ordering::Relaxed);
        file.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved_to).unwrap(), "before\none\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        for path in [&path, &moved_to] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_opened_again_is_written_on() {
        let directory = directory("stays");
        let path = directory.join("audit");
        let mut file = AuditFile::open(&path).unwrap();
        let moved_to = directory.join("audit.1");
        std::fs::rename(&path, &moved_to).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.moved().store(true, Ordering::Relaxed);
        file.write_all(b"one\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved_to).unwrap(), "one\n");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn links_and_devices_are_refused() {
        let directory = directory("link");
        let link = directory.join("audit");
        std::os::unix::fs::symlink(directory.join("elsewhere"), &link).unwrap();
        assert!(AuditFile::open(&link).is_err());
        assert!(AuditFile::open(Path::new("/dev/null")).is_err());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
