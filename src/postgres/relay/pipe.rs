//! One direction of a session: reads, scans, writes on at once; owns bytes only while the other side is full. Floor 4.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::postgres::protocol::frame::{Frame, Scanner};
use crate::postgres::protocol::written::TERMINATE_MESSAGE;

/// One direction.
pub(super) struct Pipe {
    /// Boxed, as an idle session has none.
    held: Option<Box<Held>>,
    pub(super) scanner: Scanner,
    source: Source,
    sink: Sink,
    unreadable: Unreadable,
    /// A Terminate that comes alone is not forwarded.
    holds_terminate: bool,
    /// Bytes read since they were last counted, which is after each poll.
    moved: u32,
}

/// Bytes that were read, and are not all written.
enum Held {
    /// They were read before the relay began; it forwards them first.
    Early(Box<[u8]>),
    /// They are scanned.
    Pending(Pending),
}

struct Pending {
    bytes: Vec<u8>,
    /// How many of them are written.
    written: usize,
}

/// What becomes of bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// They are not forwarded, and the session ends. The messages before them are forwarded.
    Refused,
    /// They are forwarded like all that comes behind them: what to make of them is the sink's business.
    Passed,
}

/// What is still to come from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// More bytes may come.
    Open,
    /// The source is not read any more, and the sink stays open.
    Stopped,
    /// The source has ended; the sink is not shut down yet.
    Ended,
    /// The source has ended, and the sink is shut down.
    ShutDown,
}

/// What the sink does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// The sink takes them.
    Open,
    /// It takes them, and may still hold some back (TLS).
    Unflushed,
    /// The sink has failed; they are dropped.
    Gone,
}

/// The outcome of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Bytes moved: there may be more.
    Moved,
    /// Nothing to do until a wake-up.
    Blocked,
    /// The source has ended in order.
    SourceEnded,
    /// The source has failed.
    SourceFailed(io::ErrorKind),
    /// The sink has failed.
    SinkFailed,
    /// The source has sent Terminate, which is not forwarded, see [`Pipe::hold_terminate`].
    Terminated,
    /// What came from the source is no message. It is not forwarded; the messages before it are, or are pending.
    Unreadable,
    /// Bytes may no longer be written. What was read is not forwarded.
    TooLate,
}

impl Pipe {
    /// `early`: what was read from the source before the relay began.
    pub(super) fn new(early: &[u8], unreadable: Unreadable) -> Self {
        Self {
            held: (!early.is_empty()).then(|| Box::new(Held::Early(early.into()))),
            scanner: Scanner::default(),
            source: Source::Open,
            sink: Sink::Open,
            unreadable,
            holds_terminate: false,
            moved: 0,
        }
    }

    /// Whether all that was read is written, and ended with a whole message.
    pub(super) fn at_boundary(&self) -> bool {
        self.is_written() && self.scanner.at_boundary()
    }

    /// Whether all that was read has left this process.
    pub(super) fn is_written(&self) -> bool {
        !self.is_pending() && self.sink != Sink::Unflushed
    }

    /// Whether bytes are waiting that were read before the relay began.
    pub(super) fn has_early(&self) -> bool {
        matches!(self.held.as_deref(), Some(Held::Early(_)))
    }

    /// Whether more may come from the source.
    pub(super) fn is_open(&self) -> bool {
        self.source == Source::Open
    }

    /// Whether the sink still takes bytes.
    pub(super) fn has_sink(&self) -> bool {
        self.sink != Sink::Gone
    }

    /// Reads nothing more. The sink is shut down once the rest is written.
    pub(super) fn end_source(&mut self) {
        if matches!(self.source, Source::Open | Source::Stopped) {
            self.source = Source::Ended;
        }
    }

    /// Reads nothing more. The sink stays open until [`Pipe::end_source`].
    pub(super) fn stop_source(&mut self) {
        if self.source == Source::Open {
            self.source = Source::Stopped;
        }
    }

    /// Sets whether a Terminate that is read alone, at a boundary, ends the step with [`Step::Terminated`].
    pub(super) fn hold_terminate(&mut self, holds: bool) {
        self.holds_terminate = holds;
    }

    /// What is to be written from now on is dropped.
    pub(super) fn lose_sink(&mut self) {
        self.sink = Sink::Gone;
        self.drop_pending();
    }

    /// The bytes that were read and are not written.
    pub(super) fn take_pending(&mut self) -> Vec<u8> {
        match self.drop_pending().map(|held| *held) {
            Some(Held::Pending(Pending { mut bytes, written })) => {
                bytes.drain(..written.min(bytes.len()));
                bytes
            }
            Some(Held::Early(_)) | None => Vec::new(),
        }
    }

    /// How many bytes were read since the last call.
    pub(super) fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved).into()
    }

    /// One read and what follows from it. Every message whose header has been read is shown to `saw`, before any of
    /// its bytes is written. `in_time` is asked after the read: a process may be suspended at any point, and what was
    /// read before may be late now.
    pub(super) fn step<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        from: &mut R,
        to: &mut W,
        in_time: impl Fn() -> bool,
        saw: impl FnMut(Frame<'_>),
    ) -> Step
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if !self.is_written() && !in_time() {
            return Step::TooLate;
        }
        match self.write_pending(cx, to) {
            Poll::Pending => return Step::Blocked,
            Poll::Ready(Err(_)) => return Step::SinkFailed,
            Poll::Ready(Ok(())) => {}
        }
        if self.source != Source::Open {
            return self.tell_sink(cx, to);
        }
        if self.has_early() && !in_time() {
            return Step::TooLate;
        }
        // What is pending is written by now.
        if let Some(Held::Early(early)) = self.held.take().map(|held| *held) {
            return self.forward(cx, &early, to, saw);
        }
        let mut read = ReadBuf::new(buffer);
        match Pin::new(from).poll_read(cx, &mut read) {
            Poll::Pending => return Step::Blocked,
            Poll::Ready(Err(error)) => return Step::SourceFailed(error.kind()),
            Poll::Ready(Ok(())) => {}
        }
        let chunk = read.filled();
        if chunk.is_empty() {
            self.end_source();
            return Step::SourceEnded;
        }
        if !in_time() {
            return Step::TooLate;
        }
        self.forward(cx, chunk, to, saw)
    }

    fn forward<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &[u8],
        to: &mut W,
        saw: impl FnMut(Frame<'_>),
    ) -> Step {
        if self.holds_terminate && chunk == TERMINATE_MESSAGE {
            return Step::Terminated;
        }
        let (chunk, step) = match (self.scanner.feed(chunk, saw), self.unreadable) {
            (Ok(()), _) => (chunk, Step::Moved),
            (Err(_), Unreadable::Passed) => {
                self.scanner.give_up();
                (chunk, Step::Moved)
            }
            (Err(error), Unreadable::Refused) => {
                (chunk.get(..error.offset).unwrap_or_default(), Step::Unreadable)
            }
        };
        self.moved = self.moved.saturating_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
        match self.write(cx, chunk, to) {
            Ok(()) => step,
            // What is unreadable ends the session, whatever has become of the sink.
            Err(_) if step == Step::Unreadable => {
                self.lose_sink();
                step
            }
            Err(_) => Step::SinkFailed,
        }
    }

    /// Writes a chunk; what the sink does not take now becomes `pending`, which is empty before.
    fn write<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &[u8],
        to: &mut W,
    ) -> io::Result<()> {
        if self.sink == Sink::Gone {
            return Ok(());
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => {
                    let pending = Pending { bytes: rest.to_vec(), written: 0 };
                    self.held = Some(Box::new(Held::Pending(pending)));
                    return Ok(());
                }
            }
        }
        self.flush(cx, to)
    }

    fn write_pending<W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
    ) -> Poll<io::Result<()>> {
        while let Some(Held::Pending(pending)) = self.held.as_deref_mut()
            && let Some(rest) = pending.bytes.get(pending.written..)
            && !rest.is_empty()
        {
            match Pin::new(&mut *to).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    pending.written += written;
                    self.sink = Sink::Unflushed;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.drop_pending();
        if self.sink == Sink::Unflushed {
            self.flush(cx, to)?;
            if self.sink == Sink::Unflushed {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> io::Result<()> {
        match Pin::new(to).poll_flush(cx) {
            Poll::Pending => self.sink = Sink::Unflushed,
            Poll::Ready(done) => {
                self.sink = Sink::Open;
                done?;
            }
        }
        Ok(())
    }

    fn tell_sink<W: AsyncWrite + Unpin>(&mut self, cx: &mut Context<'_>, to: &mut W) -> Step {
        if self.source == Source::Ended && self.has_sink() {
            match Pin::new(to).poll_shutdown(cx) {
                Poll::Pending => return Step::Blocked,
                // A sink that cannot be shut down has failed, which the other direction finds out.
                Poll::Ready(_) => self.source = Source::ShutDown,
            }
        }
        Step::Blocked
    }

    fn drop_pending(&mut self) -> Option<Box<Held>> {
        self.held.take_if(|held| matches!(**held, Held::Pending(_)))
    }

    fn is_pending(&self) -> bool {
        matches!(self.held.as_deref(), Some(Held::Pending(_)))
    }
}
