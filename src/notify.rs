//! Tells the service manager how far the process is, as `sd_notify(3)` describes. Floor 5.
//!
//! One datagram for each state, to the socket that `NOTIFY_SOCKET` names. Without a service manager nothing is sent.
//! Reference: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// What a service manager is notified of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Everything is bound, and clients are served.
    Ready,
    /// The shutdown has begun.
    Stopping,
}

impl State {
    fn line(self) -> &'static str {
        match self {
            Self::Ready => "READY=1",
            Self::Stopping => "STOPPING=1",
        }
    }
}

/// Where to tell it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notify(Option<SocketAddr>);

impl Notify {
    /// `socket`: the value of `NOTIFY_SOCKET`, a path, or `@name` in the abstract namespace.
    ///
    /// # Errors
    ///
    /// The value is neither.
    pub(crate) fn new(socket: Option<&str>) -> io::Result<Self> {
        let address = match socket {
            None => return Ok(Self(None)),
            Some(socket) => match socket.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None if socket.starts_with('/') => SocketAddr::from_pathname(socket)?,
                None => return Err(io::ErrorKind::InvalidInput.into()),
            },
        };
        Ok(Self(Some(address)))
    }

    /// Tells it, without waiting: a full queue is an error.
    ///
    /// # Errors
    ///
    /// Nobody takes it.
    pub(crate) fn tell(&self, state: State) -> io::Result<()> {
        let Some(address) = &self.0 else { return Ok(()) };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.send_to_addr(state.line().as_bytes(), address).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_one_datagram_at_a_path() {
        let path = std::env::temp_dir().join(format!("leasehold-notify-{}", std::process::id()));
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(path.to_str()).unwrap();
        notify.tell(State::Ready).unwrap();
        notify.tell(State::Stopping).unwrap();
        assert_eq!(received(&manager), "READY=1");
        assert_eq!(received(&manager), "STOPPING=1");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_reached() {
        let name = format!("leasehold-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notify::new(Some(&format!("@{name}"))).unwrap().tell(State::Ready).unwrap();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        Notify::new(None).unwrap().tell(State::Ready).unwrap();
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        assert!(Notify::new(Some("vsock:2:1234")).is_err());
        assert!(Notify::new(Some("/nonexistent/socket")).unwrap().tell(State::Ready).is_err());
    }
}
