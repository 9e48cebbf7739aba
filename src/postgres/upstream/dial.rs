//! A socket to one host: DNS at each connect, TCP or Unix, and the stream that a session runs over. Floor 2.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rand::seq::SliceRandom as _;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::uri::{Host, HostAddr, LoadBalanceHosts, TcpWords};

/// A connection to the server. It is a few words long whatever it carries.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to a server that may have stopped listening.
pub(crate) trait Discard {
    /// Has the kernel discard, when this is dropped, what was written and the peer has not taken. Without it the bytes
    /// go on being sent for minutes after the drop, as soon as the network lets them.
    fn discard_unsent(&self);
}

impl Discard for Stream {
    fn discard_unsent(&self) {
        let tcp = match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
            // What was written is in the peer's hands already.
            Self::Unix(_) => return,
        };
        // A close then sends RST in place of what is left and FIN. An error means that the socket has failed already.
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

/// Where a connection went, so that a cancel can follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A resolved address.
    Tcp(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A connected socket, before TLS.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Connects to this address of the host; without one it resolves the host and connects to the first of its addresses
/// that answers. The caller bounds the whole.
pub(super) async fn dial(
    host: &Host,
    address: Option<SocketAddr>,
    words: &TcpWords,
    balance: LoadBalanceHosts,
) -> io::Result<(Socket, Address)> {
    if let Some(path) = host.socket() {
        return connect(&Address::Unix(path), words).await;
    }
    if let Some(address) = address {
        return connect(&Address::Tcp(address), words).await;
    }
    let mut addresses = addresses(host).await?;
    if balance == LoadBalanceHosts::Random {
        addresses.shuffle(&mut rand::rng());
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "name has no address");
    let last = addresses.len().saturating_sub(1);
    for (index, address) in addresses.into_iter().enumerate() {
        let address = Address::Tcp(address);
        let attempt = connect(&address, words);
        let outcome = if index == last {
            attempt.await
        } else {
            timeout(PASS_OVER_AFTER, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        match outcome {
            Ok(connected) => return Ok(connected),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// What the host's name resolves to; nothing for a Unix socket. The caller bounds the wait.
pub(super) async fn addresses(host: &Host) -> io::Result<Vec<SocketAddr>> {
    match &host.place {
        HostAddr::Name(name) => resolve(name, host.port).await,
        HostAddr::Directory(_) => Ok(Vec::new()),
    }
}

/// Whether the lookups of this name have found more than one address since the process began, all at once or one after
/// the other: a name in front of several servers may resolve to each of them in turn.
pub(super) fn has_several_addresses(name: &str) -> bool {
    let lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
    lookups.get(name).is_some_and(|lookup| lookup.seen.len() > 1)
}

/// Asks the system's resolver, which cannot be broken off: a question goes on when nobody waits for it any more. So one
/// is open for each name, whose answer all get who wait for it: a resolver that does not answer ties up neither the
/// threads that others need nor memory. The caller bounds the wait.
async fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let mut answer = under_way(name);
    let found = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
    match found {
        Some(Ok(addresses)) => Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()),
        Some(Err((kind, text))) => Err(io::Error::new(kind, text)),
        None => Err(io::ErrorKind::Other.into()),
    }
}

type Answer = Option<Result<Vec<IpAddr>, (io::ErrorKind, String)>>;

/// The question for this name that is open, or a fresh one.
fn under_way(name: &str) -> watch::Receiver<Answer> {
    let mut lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
    // One whose sender has gone without an answer is not open.
    let open = |lookup: &&Lookup| lookup.answer.borrow().is_none() && lookup.answer.has_changed().is_ok();
    if let Some(lookup) = lookups.get(name).filter(open) {
        return lookup.answer.clone();
    }
    let (tell, answer) = watch::channel(None);
    match lookups.get_mut(name) {
        Some(lookup) => lookup.answer = answer.clone(),
        None => {
            lookups.insert(name.to_owned(), Lookup { answer: answer.clone(), seen: Vec::new() });
        }
    }
    let name = name.to_owned();
    spawn_blocking(move || {
        let found = (name.as_str(), 0).to_socket_addrs();
        let found = found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
        note(&name, found.as_deref().unwrap_or_default());
        tell.send_replace(Some(found.map_err(|error| (error.kind(), error.to_string()))));
    });
    answer
}

/// Remembers what a name was found to resolve to. Two addresses tell as much as more do.
fn note(name: &str, found: &[IpAddr]) {
    let mut lookups = LOOKUPS.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(lookup) = lookups.get_mut(name) else { return };
    for address in found {
        if lookup.seen.len() < 2 && !lookup.seen.contains(address) {
            lookup.seen.push(*address);
        }
    }
}

/// What is known of a name.
struct Lookup {
    /// The latest question.
    answer: watch::Receiver<Answer>,
    /// The first two addresses that it was ever found to have.
    seen: Vec<IpAddr>,
}

/// As many names as configurations have named.
static LOOKUPS: LazyLock<Mutex<HashMap<String, Lookup>>> = LazyLock::new(Mutex::default);

/// Connects to one address.
pub(super) async fn connect(address: &Address, words: &TcpWords) -> io::Result<(Socket, Address)> {
    let socket = match address {
        Address::Tcp(to) => {
            let stream = TcpStream::connect(to).await?;
            set_options(&stream, words)?;
            Socket::Tcp(stream)
        }
        Address::Unix(path) => Socket::Unix(UnixStream::connect(path).await?),
    };
    Ok((socket, address.clone()))
}

fn set_options(stream: &TcpStream, words: &TcpWords) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    if words.keepalives {
        let mut keepalive = TcpKeepalive::new();
        if let Some(idle) = words.keepalives_idle {
            keepalive = keepalive.with_time(idle);
        }
        if let Some(interval) = words.keepalives_interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(count) = words.keepalives_count {
            keepalive = keepalive.with_retries(count);
        }
        // On Linux this sets only what was given, and does not by itself turn keepalives on.
        socket.set_keepalive(true)?;
        socket.set_tcp_keepalive(&keepalive)?;
    }
    #[cfg(target_os = "linux")]
    if words.user_timeout.is_some() {
        socket.set_tcp_user_timeout(words.user_timeout)?;
    }
    Ok(())
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// How long an address of a host may keep the next one waiting; the last one may use all that is left.
const PASS_OVER_AFTER: Duration = Duration::from_secs(2);
