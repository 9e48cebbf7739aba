//! A listening socket, TCP or Unix. Floor 2.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::task::{Context, Poll, ready};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::TcpListener;

use super::{Client, Peer, UnixSocket};

/// A bound socket. Connections wait in its backlog until they are accepted.
#[derive(Debug)]
pub(crate) enum Bound {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixSocket),
}

impl Bound {
    /// As [`Bound::poll_accept`], for the current runtime.
    pub(crate) async fn accept(&self) -> io::Result<(Client, Peer)> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    /// Accepts the next client. The socket belongs to the runtime that is entered at the poll.
    ///
    /// # Errors
    /// The error of the system; the client may have caused it, see [`super::is_the_clients`].
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Client, Peer)>> {
        Poll::Ready(match self {
            Self::Tcp(listener) => {
                let (stream, from) = ready!(listener.poll_accept(cx))?;
                Ok((Client::Tcp(stream), Peer::at(from.ip())))
            }
            Self::Unix(socket) => {
                ready!(socket.poll_accept(cx)).map(|(stream, peer)| (Client::Unix(stream), peer))
            }
        })
    }

    /// Whether a client waits to be accepted. Without a free file descriptor accept(2) fails before it looks for one,
    /// so its error alone does not say so.
    pub(crate) fn has_waiting(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.descriptor(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}
