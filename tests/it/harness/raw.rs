//! A client that speaks the wire protocol byte by byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::client_tls::ClientTls;
use super::soon;

/// A connection, over TCP or over TLS. Every read has a bound.
pub(crate) struct Raw<S = TcpStream> {
    stream: S,
    read: BytesMut,
}

/// A message from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: char,
    pub(crate) body: Bytes,
}

impl Raw {
    /// 3.0, as in a StartupMessage.
    pub(crate) const PROTOCOL_3_0: i32 = 0x0003_0000;
    /// 3.2: cancel keys are longer.
    pub(crate) const PROTOCOL_3_2: i32 = 0x0003_0002;

    pub(crate) async fn connect(addr: SocketAddr) -> Self {
        Self::over(soon("a connection", TcpStream::connect(addr)).await.unwrap())
    }

    /// Speaks over this connection.
    pub(crate) fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, read: BytesMut::new() }
    }

    /// Connects and logs in without a password; the frames up to the first ReadyForQuery or ErrorResponse.
    pub(crate) async fn login(addr: SocketAddr, user: &str, database: &str) -> (Self, Vec<Frame>) {
        let mut raw = Self::connect(addr).await;
        raw.startup(Self::PROTOCOL_3_0, &[("user", user), ("database", database)]).await;
        let frames = raw.until("ZE").await;
        (raw, frames)
    }

    /// Sends a CancelRequest with the body of a BackendKeyData on a connection of its own; true once that was closed
    /// without a word.
    pub(crate) async fn cancel(addr: SocketAddr, key: &[u8]) -> bool {
        let mut raw = Self::connect(addr).await;
        raw.packet(80_877_102, key).await;
        raw.byte().await.is_none()
    }

    /// Shakes hands.
    pub(crate) async fn over_tls(self, tls: &ClientTls) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
        assert!(self.read.is_empty(), "{:?} came before TLS", self.read);
        let stream = soon("a TLS handshake", tls.connect(self.stream)).await?;
        Ok(Raw { stream, read: BytesMut::new() })
    }

    /// Asks for TLS, and shakes hands.
    pub(crate) async fn secured(
        addr: SocketAddr,
        tls: &ClientTls,
    ) -> std::io::Result<Raw<TlsStream<TcpStream>>> {
        let mut raw = Self::connect(addr).await;
        raw.packet(80_877_103, &[]).await;
        assert_eq!(raw.byte().await, Some(b'S'));
        raw.over_tls(tls).await
    }

    /// Goes away with RST.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Whether nothing has come within a moment; for what must stay silent.
    pub(crate) async fn is_quiet(&mut self) -> bool {
        self.read.is_empty()
            && tokio::time::timeout(MOMENT, self.stream.read_buf(&mut self.read)).await.is_err()
    }

    /// Whether nothing has come so far.
    pub(crate) fn stays_quiet(&mut self) -> bool {
        self.read.is_empty() && self.stream.try_read_buf(&mut self.read).is_err()
    }

    /// A message with a tag, as bytes.
    pub(crate) fn message(tag: char, body: &[u8]) -> Vec<u8> {
        let mut bytes = BytesMut::new();
        bytes.put_u8(u8::try_from(tag).unwrap());
        bytes.put_i32(i32::try_from(body.len()).unwrap() + 4);
        bytes.put_slice(body);
        bytes.to_vec()
    }
}

impl Raw<TlsStream<TcpStream>> {
    /// The connection, for what TLS itself knows of it.
    pub(crate) fn tls(&self) -> &rustls::ClientConnection {
        self.stream.get_ref().1
    }

    /// The end of TCP, and none of TLS.
    pub(crate) async fn half_close_beneath_tls(&mut self) {
        soon("a half close", self.stream.get_mut().0.shutdown()).await.unwrap();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        soon("a write", self.try_write(bytes)).await.unwrap();
    }

    /// A write that may fail, as to a server that has gone.
    pub(crate) async fn try_write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let writing = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        soon("a write", writing).await
    }

    /// A packet without a tag: an int32 length, a code, a body.
    pub(crate) async fn packet(&mut self, code: i32, body: &[u8]) {
        self.write(&packet(code, body)).await;
    }

    pub(crate) async fn startup(&mut self, protocol: i32, parameters: &[(&str, &str)]) {
        self.packet(protocol, &startup_body(parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes()))))
            .await;
    }

    /// Says that nothing more will come.
    pub(crate) async fn half_close(&mut self) {
        self.try_half_close().await.unwrap();
    }

    /// The same, where the server may have gone.
    pub(crate) async fn try_half_close(&mut self) -> std::io::Result<()> {
        soon("a half close", self.stream.shutdown()).await
    }

    /// All that comes up to the end, and how that came: an error, or in order.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, Option<std::io::Error>) {
        let mut all = self.read.split().to_vec();
        let end = soon("the end", self.stream.read_to_end(&mut all)).await;
        (all, end.err())
    }

    /// A message with a tag.
    pub(crate) async fn send(&mut self, tag: char, body: &[u8]) {
        self.write(&Raw::message(tag, body)).await;
    }

    /// A Query and all that comes of it, up to ReadyForQuery.
    pub(crate) async fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.send('Q', format!("{sql}\0").as_bytes()).await;
        self.until("Z").await
    }

    /// One byte, as SSLRequest is answered.
    pub(crate) async fn byte(&mut self) -> Option<u8> {
        self.fill(1).await.then(|| self.read.get_u8())
    }

    /// The next message; `None` at the end, or where the connection was reset.
    pub(crate) async fn recv(&mut self) -> Option<Frame> {
        if !self.fill(5).await {
            return None;
        }
        let length = usize::try_from(i32::from_be_bytes(self.read[1..5].try_into().unwrap())).unwrap();
        if !self.fill(1 + length).await {
            return None;
        }
        let tag = char::from(self.read.get_u8());
        self.read.advance(4);
        Some(Frame { tag, body: self.read.split_to(length - 4).freeze() })
    }

    /// The same from a server that is given longer.
    pub(crate) async fn recv_within(&mut self, within: Duration) -> Option<Frame> {
        if self.read.is_empty() {
            let read = tokio::time::timeout(within, self.stream.read_buf(&mut self.read));
            read.await.expect("a message in time").ok()?;
        }
        self.recv().await
    }

    /// The SQLSTATE of the next ErrorResponse, whatever comes before it.
    pub(crate) async fn error(&mut self) -> String {
        let frames = self.until("E").await;
        let error = frames.last().filter(|frame| frame.tag == 'E');
        error.unwrap_or_else(|| panic!("no error came: {frames:?}")).sqlstate()
    }

    /// All messages up to and with the first whose tag is one of `tags`; fewer at the end.
    pub(crate) async fn until(&mut self, tags: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.recv().await {
            let last = tags.contains(frame.tag);
            frames.push(frame);
            if last {
                break;
            }
        }
        frames
    }

    /// Whether so many bytes are there; waits for them.
    async fn fill(&mut self, wanted: usize) -> bool {
        while self.read.len() < wanted {
            match soon("a read", self.stream.read_buf(&mut self.read)).await {
                Ok(read) if read > 0 => {}
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }
}

/// A packet without a tag, as bytes.
pub(crate) fn packet(code: i32, body: &[u8]) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_i32(i32::try_from(body.len()).unwrap() + 8);
    bytes.put_i32(code);
    bytes.put_slice(body);
    bytes.to_vec()
}

/// The body of a StartupMessage behind its version.
pub(crate) fn startup_body<'a>(parameters: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parameters {
        body.extend([name, b"\0", value, b"\0"].concat());
    }
    body.push(0);
    body
}

/// The tags of messages, as one word.
pub(crate) fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag).collect()
}

/// The body of the BackendKeyData among the messages of a login.
pub(crate) fn key(frames: &[Frame]) -> Bytes {
    frames.iter().find(|frame| frame.tag == 'K').expect("the server gives a key").body.clone()
}

/// What came before a connection's end, but for what PostgreSQL says of its own source: a last ErrorResponse without
/// file, line and routine.
pub(crate) fn without_place(said: &[u8]) -> Vec<u8> {
    let is_error = |at: &usize| {
        let length = said.get(at + 1..at + 5).map(|length| u32::from_be_bytes(length.try_into().unwrap()));
        said[*at] == b'E' && length.is_some_and(|length| length as usize == said.len() - at - 1)
    };
    let Some(at) = (0..said.len()).find(is_error) else { return said.to_vec() };
    let fields = said[at + 5..].split_inclusive(|byte| *byte == 0);
    let kept = fields.filter(|field| !b"FLR".contains(&field[0])).collect::<Vec<_>>().concat();
    [&said[..at], &Raw::message('E', &kept)].concat()
}

impl Frame {
    /// As it came.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        Raw::message(self.tag, &self.body)
    }

    /// The SQLSTATE of an ErrorResponse.
    pub(crate) fn sqlstate(&self) -> String {
        self.fields().remove(&'C').unwrap_or_default()
    }

    /// The fields of an ErrorResponse or NoticeResponse by their letter: `C` SQLSTATE, `M` message, `D`, `H`.
    pub(crate) fn fields(&self) -> BTreeMap<char, String> {
        assert!("EN".contains(self.tag), "{self:?} has no fields");
        self.body
            .split(|byte| *byte == 0)
            .filter_map(|field| {
                let (letter, text) = field.split_first()?;
                Some((char::from(*letter), String::from_utf8_lossy(text).into_owned()))
            })
            .collect()
    }
}

/// Long enough for what would come if it were coming.
const MOMENT: Duration = Duration::from_millis(100);
