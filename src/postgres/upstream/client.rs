//! Gives an upstream session to tokio-postgres, for leasehold's own queries. Floor 2.
//!
//! The login is already done: the driver reads the server's login messages once more, and its own StartupMessage is
//! discarded. So every URI parameter applies to these sessions too, and the driver never sees a password.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::UpstreamSession;
use crate::dial::Stream;

impl UpstreamSession {
    /// Runs `question`, ends the session, and waits until the server has closed. The caller must set a time limit;
    /// dropping the future closes the connection.
    ///
    /// # Errors
    /// The driver does not accept the server's login messages.
    pub(crate) async fn ask<T, F>(self, question: impl FnOnce(Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = T>,
    {
        let mut config = Config::new();
        // Neither is sent: the session already has its user and its encryption.
        config.user("leasehold").ssl_mode(SslMode::Disable);
        let (client, connection) = config.connect_raw(Replay::of(self), NoTls).await?;
        // The connection ends when `question` drops its client. How it ends does not matter then.
        let (answer, _) = tokio::join!(question(client), connection);
        Ok(answer)
    }
}

/// The session's stream, preceded by the messages of the login.
struct Replay {
    stream: Stream,
    before: BytesMut,
    /// The driver's StartupMessage so far; `None` once it is complete.
    startup: Option<Vec<u8>>,
}

impl Replay {
    fn of(session: UpstreamSession) -> Self {
        let mut before = session.prologue;
        before.unsplit(session.rest);
        Self { stream: session.stream, before, startup: Some(Vec::new()) }
    }

    /// How many bytes of `buf` belong to the StartupMessage, whose first four bytes are its length.
    fn swallow(&mut self, buf: &[u8]) -> usize {
        let Some(startup) = &mut self.startup else { return 0 };
        let length = startup.first_chunk().map_or(LENGTH_FIELD, |field| {
            usize::try_from(u32::from_be_bytes(*field)).unwrap_or(usize::MAX).max(LENGTH_FIELD)
        });
        let taken = buf.len().min(length - startup.len());
        startup.extend_from_slice(buf.get(..taken).unwrap_or_default());
        if startup.len() == length && length > LENGTH_FIELD {
            self.startup = None;
        }
        taken
    }
}

impl AsyncRead for Replay {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.before.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let count = this.before.len().min(buf.remaining());
        buf.put_slice(this.before.get(..count).unwrap_or_default());
        this.before.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Replay {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.swallow(buf) {
            0 => Pin::new(&mut this.stream).poll_write(cx, buf),
            taken => Poll::Ready(Ok(taken)),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    /// Shuts down our direction, then waits for the server to close: only then has its session ended.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        loop {
            let mut bytes = [0; 64];
            let mut nothing = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut nothing))?;
            if nothing.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

const LENGTH_FIELD: usize = 4;
