//! Tells the service manager how far the process is, as `sd_notify(3)` describes. Floor 5.
//!
//! One datagram for each state, to the socket that `NOTIFY_SOCKET` names. Without a service manager nothing is sent.
//! Reference: <https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// What a service manager is notified of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Everything is bound, and clients are served; a reload is over.
    Ready,
    /// The configuration is being read again; [`State::Ready`] says that this is over, however it went.
    Reloading {
        /// The time by `CLOCK_MONOTONIC`: it tells this reload from one that was asked for later.
        now: Duration,
    },
    /// One line for people.
    Status(String),
    /// The process is alive: it has to say so within the time of [`watchdog`].
    Alive,
    /// The shutdown has begun.
    Stopping,
}

impl State {
    fn line(&self) -> String {
        match self {
            Self::Ready => "READY=1".to_owned(),
            Self::Reloading { now } => format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()),
            // A second line would be another assignment.
            Self::Status(text) => format!("STATUS={}", text.replace(char::is_control, " ")),
            Self::Alive => "WATCHDOG=1".to_owned(),
            Self::Stopping => "STOPPING=1".to_owned(),
        }
    }
}

/// How long the service manager waits for a word of the process, by its variables `WATCHDOG_USEC` and `WATCHDOG_PID`.
/// `None`: it waits for none, or for that of another process.
///
/// Source: <https://www.freedesktop.org/software/systemd/man/latest/sd_watchdog_enabled.html>
pub(crate) fn watchdog(usec: Option<&str>, pid: Option<&str>) -> Option<Duration> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let span = Duration::from_micros(usec?.parse().ok()?);
    (is_ours && !span.is_zero()).then_some(span)
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

    /// Whether there is a service manager.
    #[must_use]
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    /// Tells it, without waiting: a full queue is an error.
    ///
    /// # Errors
    ///
    /// Nobody takes it.
    pub(crate) fn tell(&self, state: &State) -> io::Result<()> {
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
        notify.tell(&State::Ready).unwrap();
        notify.tell(&State::Reloading { now: Duration::new(12, 3_456_789) }).unwrap();
        notify.tell(&State::Status("a\nb".to_owned())).unwrap();
        notify.tell(&State::Alive).unwrap();
        notify.tell(&State::Stopping).unwrap();
        assert_eq!(received(&manager), "READY=1");
        assert_eq!(received(&manager), "RELOADING=1\nMONOTONIC_USEC=12003456");
        assert_eq!(received(&manager), "STATUS=a b");
        assert_eq!(received(&manager), "WATCHDOG=1");
        assert_eq!(received(&manager), "STOPPING=1");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_name_in_the_abstract_namespace_is_reached() {
        let name = format!("leasehold-notify-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notify::new(Some(&format!("@{name}"))).unwrap().tell(&State::Ready).unwrap();
        assert_eq!(received(&manager), "READY=1");
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_it_names() {
        let own = std::process::id().to_string();
        assert_eq!(watchdog(Some("30000000"), None), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(Some("30000000"), Some(&own)), Some(Duration::from_secs(30)));
        assert_eq!(watchdog(Some("30000000"), Some("1")), None);
        for usec in [None, Some("0"), Some("x")] {
            assert_eq!(watchdog(usec, None), None);
        }
    }

    #[test]
    fn without_a_manager_nothing_is_sent() {
        Notify::new(None).unwrap().tell(&State::Ready).unwrap();
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        assert!(Notify::new(Some("vsock:2:1234")).is_err());
        assert!(Notify::new(Some("/nonexistent/socket")).unwrap().tell(&State::Ready).is_err());
    }
}
