//! What is not there of a path that a user named, and where a relative one begins. Floor 0.

use std::io;
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
        let begins = match path.is_absolute() {
            true => Begins::Root,
            // The path goes to the operating system as it was written.
            false => Begins::WorkingDirectory(env::current_dir().ok()),
        };
        Self { what, directory: directory.map(Path::to_owned), begins }
    }
}

/// `there is no such file, nor a directory /run/secrets`
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no such {}", self.what)?;
        if let Some(directory) = &self.directory {
            write!(f, ", nor a directory {}", Shown(directory))?;
        }
        let Begins::WorkingDirectory(base) = &self.begins else { return Ok(()) };
        f.write_str("; a relative path begins at the working directory of the process")?;
        base.as_ref().map_or(Ok(()), |base| write!(f, ", {}", Shown(base)))
    }
}

/// The directory of a file, if it is not there. Blocks.
#[must_use]
fn missing_directory(path: &Path) -> Option<&Path> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    let found = fs::metadata(directory);
    found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound).then_some(directory)
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
    fn a_secret_in_the_place_of_a_path_has_no_directory() {
        let said = Missing::file(Path::new("MIGHhidden/Ag=")).to_string();
        assert!(!said.contains("hidden"), "{said}");
    }
}
