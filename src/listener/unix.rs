//! A Unix socket and its file: mode, a stale one in its place, its removal. Floor 5.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use super::{Address, Error};

/// The file of a bound socket, removed on drop if it is still the same one.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Binds a socket at this path with mode 0660, in place of a stale one.
pub(super) fn bind(path: &Path, backlog: i32) -> Result<(UnixListener, File), Error> {
    let failed = |source| Error::Bind { address: Address::Unix(path.to_owned()), source };
    let mode = |source| Error::Mode { path: path.to_owned(), source };
    let address = SockAddr::unix(path).map_err(failed)?;
    remove_stale(path, &address)?;

    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    // The file is made with the socket's mode less the umask: so it is at no time open to more.
    fchmod(&socket, Mode::from_raw_mode(MODE)).map_err(|error| mode(error.into()))?;
    socket.bind(&address).map_err(failed)?;
    // From here on the file is ours to remove, whatever fails.
    let made = fs::symlink_metadata(path).map_err(failed)?;
    let file = File { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    fs::set_permissions(path, fs::Permissions::from_mode(MODE)).map_err(mode)?;
    let set = fs::symlink_metadata(path).map_err(mode)?.permissions().mode();
    if set & PERMISSIONS != MODE {
        return Err(mode(io::ErrorKind::PermissionDenied.into()));
    }
    socket.listen(backlog).map_err(failed)?;
    let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
    Ok((listener, file))
}

/// Removes the file of a socket that nobody listens on.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), Error> {
    let failed = |source| Error::Bind { address: Address::Unix(path.to_owned()), source };
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !there.file_type().is_socket() {
        return Err(Error::InTheWay { path: path.to_owned() });
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full backlog must not hold us up; it is an answer too.
    probe.set_nonblocking(true).map_err(failed)?;
    match probe.connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(()) => Err(Error::Answered { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::Answered { path: path.to_owned() })
        }
        Err(error) => Err(failed(error)),
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(addr = %self.path.display(), error = %error, "cannot remove the socket's file");
        }
    }
}

/// Its user and group may connect: whoever connects needs no password.
const MODE: u32 = 0o660;
const PERMISSIONS: u32 = 0o7777;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of this test's own, removed at its end.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let path =
                std::env::temp_dir().join(format!("leasehold-listener-{:016x}", rand::random::<u64>()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join(".s.PGSQL.6432")
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn the_file_has_its_mode_and_goes_with_the_socket() {
        let place = Place::new();
        let bound = bind(&place.socket(), 8).unwrap();
        assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & PERMISSIONS, MODE);
        drop(bound);
        assert!(!place.socket().exists());
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_not_replaced() {
        let place = Place::new();
        let _first = bind(&place.socket(), 8).unwrap();
        assert!(matches!(bind(&place.socket(), 8), Err(Error::Answered { .. })));
        assert!(place.socket().exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let place = Place::new();
        drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
        assert!(place.socket().exists());
        let _bound = bind(&place.socket(), 8).unwrap();
        std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    }

    #[tokio::test]
    async fn another_file_is_left_alone() {
        let place = Place::new();
        fs::write(place.socket(), "text").unwrap();
        assert!(matches!(bind(&place.socket(), 8), Err(Error::InTheWay { .. })));
        assert_eq!(fs::read_to_string(place.socket()).unwrap(), "text");
    }

    #[tokio::test]
    async fn a_successors_file_is_left_alone() {
        let place = Place::new();
        let first = bind(&place.socket(), 8).unwrap();
        fs::remove_file(place.socket()).unwrap();
        let _second = bind(&place.socket(), 8).unwrap();
        drop(first);
        assert!(place.socket().exists());
    }
}
