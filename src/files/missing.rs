//! What is not there of a path that a user named, and where a relative one begins. Floor 0.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use super::Shown;

/// A file or a directory that is not there. The text repeats nothing of its path that [`Shown`] would hide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    what: &'static str,
    /// The directory that it would be in, if that is not there either and may be shown.
    directory: Option<PathBuf>,
    begins: Begins,
}

/// Where a path begins.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Begins {
    /// At the root.
    Root,
    /// At the process' working directory, if that is still there.
    WorkingDirectory(Option<PathBuf>),
}

impl Begins {
    /// The path goes to the operating system as it was written.
    fn of(path: &Path) -> Self {
        if path.is_absolute() { Self::Root } else { Self::WorkingDirectory(env::current_dir().ok()) }
    }
}

impl fmt::Display for Begins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::WorkingDirectory(base) = self else { return Ok(()) };
        f.write_str("; a relative path begins at the working directory of the process")?;
        base.as_ref().map_or(Ok(()), |base| write!(f, ", {}", Shown(base)))
    }
}

impl Missing {
    /// Nothing is at this path, where a file should be. Blocks.
    #[must_use]
    pub(crate) fn file(path: &Path) -> Self {
        Self::new("file", path)
    }

    /// Nothing is at this path, where a directory should be. Blocks.
    #[must_use]
    pub(crate) fn directory(path: &Path) -> Self {
        Self::new("directory", path)
    }

    fn new(what: &'static str, path: &Path) -> Self {
        let directory = if Shown(path).hides() { None } else { missing_directory(path) };
        Self { what, directory: directory.map(Path::to_owned), begins: Begins::of(path) }
    }
}

/// `there is no such file, nor a directory /run/secrets`
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no such {}", self.what)?;
        if let Some(directory) = &self.directory {
            write!(f, ", nor a directory {}", Shown(directory))?;
        }
        self.begins.fmt(f)
    }
}

/// A directory that is not there, and in which leasehold is to make a file.
#[derive(Debug)]
pub(crate) struct NoDirectory {
    directory: PathBuf,
    begins: Begins,
}

impl NoDirectory {
    /// What mends it.
    pub(crate) const REMEDY: &'static str = "make it, for the user that leasehold runs as";

    /// Why no file can be made at this path; `None` if its directory is there. Blocks.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let directory = missing_directory(path)?.to_owned();
        Some(Self { directory, begins: Begins::of(path) })
    }

    /// The error with which the system did not make a file at this path, with the words of this one where its directory is
    /// not there. Blocks.
    #[must_use]
    pub(crate) fn explain(error: io::Error, path: &Path) -> io::Error {
        let missing = Some(()).filter(|()| error.kind() == ErrorKind::NotFound).and_then(|()| Self::of(path));
        missing.map_or(error, |missing| io::Error::new(ErrorKind::NotFound, missing))
    }

    /// `there is no directory /run/leasehold`, for who says the remedy beside it.
    #[must_use]
    pub(crate) fn fact(&self) -> String {
        format!("there is no directory {}{}", Shown(&self.directory), self.begins)
    }
}

/// `there is no directory /run/leasehold; make it, for the user that leasehold runs as`
impl fmt::Display for NoDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.fact(), Self::REMEDY)
    }
}

impl std::error::Error for NoDirectory {}

/// The directory of a file, if it is not there, or is none. Blocks.
fn missing_directory(path: &Path) -> Option<&Path> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    let is_missing = match fs::metadata(directory) {
        Ok(found) => !found.is_dir(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    is_missing.then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_the_directory_that_it_needs() {
        let said = |path: &str| Missing::file(Path::new(path)).to_string();
        assert_eq!(said("/nowhere"), "there is no such file");
        assert_eq!(said("/nowhere/at/all"), "there is no such file, nor a directory /nowhere/at");
        let begins = "; a relative path begins at the working directory of the process, ";
        let here = env::current_dir().unwrap();
        assert_eq!(said("./id"), format!("there is no such file{begins}{}", here.display()));
        let directory = Missing::directory(Path::new("certificates")).to_string();
        assert_eq!(directory, format!("there is no such directory{begins}{}", here.display()));
    }

    #[test]
    fn an_error_of_the_system_is_explained_where_the_directory_is_missing() {
        let said =
            |kind: ErrorKind, path: &str| NoDirectory::explain(kind.into(), Path::new(path)).to_string();
        let explained = "there is no directory /nowhere; make it, for the user that leasehold runs as";
        assert_eq!(said(ErrorKind::NotFound, "/nowhere/file"), explained);
        assert_eq!(said(ErrorKind::NotFound, "/file"), ErrorKind::NotFound.to_string());
        assert_eq!(
            said(ErrorKind::PermissionDenied, "/nowhere/file"),
            ErrorKind::PermissionDenied.to_string()
        );
        let relative = said(ErrorKind::NotFound, "./nowhere/file");
        assert!(
            relative.starts_with("there is no directory ./nowhere; a relative path begins at "),
            "{relative}"
        );
    }

    #[test]
    fn a_secret_in_the_place_of_a_path_has_no_directory() {
        let said = Missing::file(Path::new("MIGHhidden/Ag=")).to_string();
        assert!(!said.contains("hidden"), "{said}");
    }
}
