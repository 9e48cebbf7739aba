//! What the process may do to files and ports after it has bound its own, by Landlock. Floor 5.
//!
//! Reads stay as they are: a reload may name any file, and a name is looked up by what the system's configuration says.
//!
//! Source: <https://docs.kernel.org/userspace-api/landlock.html>

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, PathFdError,
    Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};

/// What the process changes in files while it serves. Each file stands for its directory: it is replaced, moved away, or made anew.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changed {
    /// Files that are made and written.
    pub(crate) made: Vec<PathBuf>,
    /// Files that are made, written, renamed and removed.
    pub(crate) replaced: Vec<PathBuf>,
    /// Files that are only removed.
    pub(crate) removed: Vec<PathBuf>,
}

/// Asks the kernel whether it can forbid what is to be forbidden. Nothing is forbidden yet.
///
/// # Errors
/// There is no Landlock. What only later kernels can forbid is no error.
pub(super) fn begin() -> io::Result<RulesetCreated> {
    ruleset().map_err(io::Error::other)
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    let always = AccessFs::from_write(ABI::V1) | AccessFs::Execute;
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(always)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_write(ABI::V5))?
        // All that it listens on is bound.
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::Signal)?
        .create()
}

/// Forbids this thread, and those that it will start, to run a program, to bind a TCP port, to signal another process, and to change
/// any file but these.
///
/// # Errors
/// A directory cannot be opened, or the kernel refuses.
pub(super) fn complete(mut ruleset: RulesetCreated, changed: &Changed) -> io::Result<()> {
    let make = make_bitflags!(AccessFs::{MakeReg | WriteFile});
    let remove = BitFlags::from(AccessFs::RemoveFile);
    let all = [(&changed.made, make), (&changed.replaced, make | remove), (&changed.removed, remove)];
    for (files, access) in all {
        for file in files {
            // What the library says repeats the path, which may be a secret in the place of one.
            let directory = PathFd::new(directory(file));
            let directory = directory.map_err(|error| match error {
                PathFdError::OpenCall { source, .. } => source,
                _ => io::ErrorKind::Other.into(),
            })?;
            ruleset = ruleset.add_rule(PathBeneath::new(directory, access)).map_err(io::Error::other)?;
        }
    }
    ruleset.restrict_self().map_err(io::Error::other)?;
    Ok(())
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::process::Command;
    use std::thread;

    use super::*;

    /// Landlock is a thread's own, so a thread of the test is restricted.
    fn in_a_restricted_thread<T: Send + 'static>(
        changed: Changed,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let restricted = move || {
            complete(begin().expect("a kernel with Landlock"), &changed).unwrap();
            act()
        };
        thread::spawn(restricted).join().unwrap()
    }

    fn place(name: &str) -> PathBuf {
        let place = std::env::temp_dir().join(format!("leasehold-{name}-{}", std::process::id()));
        fs::create_dir_all(place.join("beside")).unwrap();
        place
    }

    fn append(path: &Path) -> io::Result<()> {
        OpenOptions::new().append(true).create(true).open(path).map(drop)
    }

    #[test]
    fn nothing_is_run_bound_or_written_elsewhere() {
        let place = place("elsewhere");
        let file = place.join("file");
        fs::write(&file, "as it was").unwrap();
        let (of_thread, beside) = (file.clone(), place.join("beside/file"));
        let changed = Changed { made: vec![beside.clone()], ..Changed::default() };
        let refused = in_a_restricted_thread(changed, move || {
            append(&beside).unwrap();
            assert_eq!(fs::read_to_string(&of_thread).unwrap(), "as it was");
            [
                append(&of_thread),
                fs::remove_file(&of_thread),
                fs::remove_file(&beside),
                fs::create_dir(of_thread.with_extension("directory")),
                std::os::unix::fs::symlink("x", of_thread.with_extension("link")),
                Command::new("/proc/self/exe").arg("--list").spawn().map(drop),
                TcpListener::bind("127.0.0.1:0").map(drop),
            ]
            .map(|done| done.map_err(|error| error.kind()))
        });
        let written = fs::read_to_string(&file).unwrap();
        fs::remove_dir_all(place).unwrap();
        assert_eq!(refused, [Err(ErrorKind::PermissionDenied); 7]);
        assert_eq!(written, "as it was");
    }

    #[test]
    fn a_file_that_is_replaced_can_be() {
        let place = place("replaced");
        let file = place.join("file");
        let changed = Changed { replaced: vec![file.clone()], ..Changed::default() };
        let done = in_a_restricted_thread(changed, move || -> io::Result<()> {
            append(&file.with_extension("new"))?;
            fs::rename(file.with_extension("new"), &file)?;
            fs::remove_file(&file)
        });
        fs::remove_dir_all(place).unwrap();
        done.unwrap();
    }
}
