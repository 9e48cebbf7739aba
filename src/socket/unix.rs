//! A listening Unix socket and its file: the mode, a stale file in its place, the removal. Floor 2.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, fchmod};
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::Peer;
use crate::files::NoDirectory;

/// The reason why a Unix socket cannot listen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The system refused.
    #[error("cannot listen on {path}")]
    Bind {
        /// The socket's file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Another process listens on this path.
    #[error("another process answers on {path}")]
    Answered {
        /// The socket's file.
        path: PathBuf,
    },
    /// A file that is not a socket has this path.
    #[error("{path} is no socket, so it is not replaced")]
    InTheWay {
        /// The path of the file.
        path: PathBuf,
    },
    /// The socket's file cannot be given its mode.
    #[error("cannot set mode {mode:04o} on {path}")]
    Mode {
        /// The socket's file.
        path: PathBuf,
        /// The file mode.
        mode: u32,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
}

/// A bound socket. Its file is removed on drop, if it is still the file of this socket.
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    _file: File,
}

/// The file of a bound socket. It is removed on drop, if it is still the same file.
#[derive(Debug)]
struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl UnixSocket {
    /// Binds a socket at this path with these permissions, and replaces a stale file. Call it within a tokio runtime.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn bind(path: &Path, mode: u32, backlog: i32) -> Result<Self, Error> {
        let failed = |source| Error::Bind { path: path.to_owned(), source };
        let no_mode = |source| Error::Mode { path: path.to_owned(), mode, source };
        let address = SockAddr::unix(path).map_err(failed)?;
        remove_stale(path, &address)?;

        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        // The file is created with the socket's mode less the umask, so it never has wider permissions.
        fchmod(&socket, Mode::from_raw_mode(mode)).map_err(|error| no_mode(error.into()))?;
        socket.bind(&address).map_err(|error| failed(NoDirectory::explain(error, path)))?;
        // From here on the file is removed on drop, even if a later step fails.
        let made = fs::symlink_metadata(path).map_err(failed)?;
        let file = File { path: path.to_owned(), device: made.dev(), inode: made.ino() };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(no_mode)?;
        let set = fs::symlink_metadata(path).map_err(no_mode)?.permissions().mode();
        if set & PERMISSIONS != mode {
            return Err(no_mode(io::ErrorKind::PermissionDenied.into()));
        }
        socket.listen(backlog).map_err(failed)?;
        let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
        Ok(Self { listener, _file: file })
    }

    /// Accepts the next client, with the user that it runs as.
    ///
    /// # Errors
    /// The error of the system; the client may have caused it, see [`super::is_the_clients`].
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(UnixStream, Peer)>> {
        let (stream, _) = ready!(self.listener.poll_accept(cx))?;
        let user = stream.peer_cred().ok().map(|credentials| credentials.uid());
        Poll::Ready(Ok((stream, Peer::User(user))))
    }
}

impl AsFd for UnixSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// Removes the file of a socket on which no process listens.
fn remove_stale(path: &Path, address: &SockAddr) -> Result<(), Error> {
    let failed = |source| Error::Bind { path: path.to_owned(), source };
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !there.file_type().is_socket() {
        return Err(Error::InTheWay { path: path.to_owned() });
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    // A full backlog must not block; it shows as well that a process listens.
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

/// The bits of a mode that `chmod` can set: the permissions and the three bits before them.
const PERMISSIONS: u32 = 0o7777;

#[cfg(test)]
mod tests {
    use super::*;

    const MODE: u32 = 0o660;

    fn bind(path: &Path) -> Result<UnixSocket, Error> {
        UnixSocket::bind(path, MODE, 8)
    }

    /// A directory for this test, removed at its end.
    struct Place(PathBuf);

    impl Place {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("leasehold-socket-{:016x}", rand::random::<u64>()));
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
        let bound = bind(&place.socket()).unwrap();
        assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & PERMISSIONS, MODE);
        drop(bound);
        assert!(!place.socket().exists());
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_not_replaced() {
        let place = Place::new();
        let _first = bind(&place.socket()).unwrap();
        assert!(matches!(bind(&place.socket()), Err(Error::Answered { .. })));
        assert!(place.socket().exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let place = Place::new();
        drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
        assert!(place.socket().exists());
        let _bound = bind(&place.socket()).unwrap();
        std::os::unix::net::UnixStream::connect(place.socket()).unwrap();
    }

    #[tokio::test]
    async fn another_file_is_left_alone() {
        let place = Place::new();
        fs::write(place.socket(), "text").unwrap();
        assert!(matches!(bind(&place.socket()), Err(Error::InTheWay { .. })));
        assert_eq!(fs::read_to_string(place.socket()).unwrap(), "text");
    }

    #[tokio::test]
    async fn a_successors_file_is_left_alone() {
        let place = Place::new();
        let first = bind(&place.socket()).unwrap();
        fs::remove_file(place.socket()).unwrap();
        let _second = bind(&place.socket()).unwrap();
        drop(first);
        assert!(place.socket().exists());
    }
}
