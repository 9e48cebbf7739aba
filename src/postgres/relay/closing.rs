//! How a session is ended, so that the client learns why, the server stops, and both let go. Floor 4.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::pipe::Pipe;
use super::{Left, Relay, RelayExit};
use crate::clock;
use crate::credentials::Guard;
use crate::dial::Discard;
use crate::error::ClientFacing;
use crate::metrics::Closed;
use crate::postgres::protocol::error_response;
use crate::postgres::protocol::written::{self, TERMINATE};
use crate::postgres::upstream::CancelTarget;
use crate::session::end::{self, CloseAction, HardClose, close_action};
use crate::session::read_buffer;
use crate::time::Time;

impl<C, U> Relay<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin + Discard,
{
    /// Ends the session. `cancel` is where a CancelRequest goes.
    ///
    /// Not cancel safe: dropped, it leaves the server's session uncounted for.
    pub(in crate::postgres) async fn close(
        self: Box<Self>,
        done: RelayExit,
        cancel: Option<&CancelTarget>,
    ) -> Closed {
        let send_within = self.send_within();
        match done {
            RelayExit::Idle(cause) => self.close_idle(cause, send_within).await,
            RelayExit::Hard(close) => self.close_hard(close, cancel).await,
            RelayExit::UpstreamGone { in_order } => {
                self.close_after_upstream(true, in_order, send_within).await
            }
            RelayExit::UpstreamLost => self.close_after_upstream(false, false, send_within).await,
            RelayExit::ClientGone => self.close_abandoned(cancel).await,
            RelayExit::UpstreamUnreadable => self.close_unreadable(send_within, cancel).await,
            RelayExit::ClientLeft => self.close_left(send_within).await,
        }
    }

    /// Closes a session between transactions: nothing is under way in either direction. The server is left at once.
    async fn close_idle(self: Box<Self>, cause: Closed, send_within: Duration) -> Closed {
        let tell_at = self.tell_at();
        let Self { mut client, upstream, guard, .. } = *self;
        let last = error_response::fatal(&end::client_facing(cause, true).into());
        let gone_by = clock::now() + GONE_WITHIN;
        let telling = async {
            let leaves = has_left(&mut client, tell_at).await;
            // A client that leaves gets no message; but TLS has an end of its own.
            let last = if leaves { &[][..] } else { &last };
            close_client(&mut client, last, send_within).await;
            leaves
        };
        let (leaves, ()) = tokio::join!(telling, terminate_upstream(upstream, guard, true, gone_by));
        if leaves { Closed::Client } else { cause }
    }

    /// Closes a session whose client has left, and whose upstream is not used again.
    async fn close_left(self: Box<Self>, send_within: Duration) -> Closed {
        let Left { mut client, upstream, guard, .. } = self.into_left();
        let gone_by = clock::now() + GONE_WITHIN;
        tokio::join!(
            close_client(&mut client, &[], send_within),
            terminate_upstream(upstream, guard, true, gone_by),
        );
        Closed::Client
    }

    /// When the client may get the message of its end without having asked for anything since its last answer.
    ///
    /// libpq takes an error that it finds behind a ReadyForQuery for a notice and drops it. As the answer to the next
    /// request it is heard, and so it is by a client that has long read its last answer.
    fn tell_at(&self) -> Time {
        let now = clock::now();
        if self.to_upstream.has_early() || self.phase.statement_running() || !self.to_client.at_boundary() {
            // It waits for an answer, and this is one.
            return now;
        }
        self.quiet_since().unwrap_or(now) + ANSWER_READ_WITHIN
    }

    /// Closes the session whatever it does. The client is not read any more; a message that it has in part may become whole.
    async fn close_hard(self: Box<Self>, close: HardClose, cancel: Option<&CancelTarget>) -> Closed {
        let HardClose { cause, cut_at, gone_by } = close;
        let tell_at = self.tell_at().min(cut_at);
        let Self { client, mut upstream, to_upstream, mut to_client, phase, guard, .. } = *self;
        // After a suspend the bounds may have passed long ago.
        let gone_by = gone_by.max(clock::now() + AT_LEAST);
        let busy = phase.statement_running();
        let terminate = to_upstream.at_boundary() && to_upstream.is_open();
        let mut client = to_client.has_sink().then_some(client);
        let ending = async {
            let mut cut = false;
            if let Some(reader) = &mut client
                && !finish_message(&mut to_client, &mut upstream, reader, cut_at).await
            {
                client = None;
                cut = true;
            }
            let telling = async {
                if let Some(client) = &mut client {
                    let leaves = has_left(client, tell_at).await;
                    let last = error_response::fatal(&end::client_facing(cause, false).into());
                    // A client that leaves gets no message; but TLS has an end of its own.
                    let last = if leaves { &[][..] } else { &last };
                    close_client(client, last, gone_by.since(clock::now())).await;
                }
            };
            tokio::join!(telling, terminate_upstream(upstream, guard, terminate, gone_by));
            cut
        };
        let stopping = stop_statement(cancel.filter(|_| busy), gone_by);
        let (cut, _) = tokio::join!(ending, stopping);
        if cut && cause == Closed::LeaseEnd { Closed::LeaseEndCut } else { cause }
    }

    /// Closes the upstream after the client has gone. The server's next write has to fail, as it would without a proxy:
    /// so its socket is reset, and it runs nothing of what it has read ahead. Until that write the statement would go on,
    /// so it is cancelled.
    async fn close_abandoned(self: Box<Self>, cancel: Option<&CancelTarget>) -> Closed {
        let Self { client, upstream, mut guard, .. } = *self;
        upstream.discard_unsent();
        drop((client, upstream));
        let gone_by = clock::now() + GONE_WITHIN;
        if stop_statement(cancel, gone_by).await {
            // Of a reset socket nothing is heard again, so how long the server takes to end can only be allowed for.
            sleep(ENDS_WITHIN).await;
            guard.upstream_gone();
        } else {
            warn_of_stray(&guard);
        }
        Closed::Client
    }

    /// Closes the client after the upstream has gone: it gets what was still to come, and an error after a loss where a
    /// message can be sent.
    async fn close_after_upstream(
        self: Box<Self>,
        gone: bool,
        in_order: bool,
        send_within: Duration,
    ) -> Closed {
        let Self {
            mut client, upstream, to_upstream, mut to_client, phase, ended_by_server, mut guard, ..
        } = *self;
        if gone {
            guard.upstream_gone();
        } else {
            warn_of_stray(&guard);
        }
        // The lease need not wait for a client that reads slowly.
        drop((upstream, guard));
        // A sink that failed closes its source too, but that was not the client's doing.
        let asked_for = phase.terminated() || (!to_upstream.is_open() && to_upstream.has_sink());
        if to_client.has_sink() {
            let mut last = to_client.take_pending();
            // A server that has said why it ends the session has, and one that cannot read its client says nothing.
            let known = asked_for || ended_by_server || to_upstream.scanner.has_given_up();
            if !in_order && !known && to_client.scanner.at_boundary() {
                last.extend_from_slice(&error_response::fatal(&ClientFacing::UpstreamLost.into()));
            }
            close_client(&mut client, &last, send_within).await;
        }
        // A client hangs up on the server's last message, often before the server does.
        if asked_for && !ended_by_server { Closed::Client } else { Closed::Upstream }
    }

    /// The server broke the protocol: what came behind its last whole message was not forwarded. A client that has begun
    /// to read that as a message can be sent nothing more.
    async fn close_unreadable(
        self: Box<Self>,
        send_within: Duration,
        cancel: Option<&CancelTarget>,
    ) -> Closed {
        let Self { mut client, upstream, mut to_client, ended_by_server, guard, phase, .. } = *self;
        tracing::warn!(
            lease.generation = guard.generation().number().get(),
            db.user = guard.generation().username(),
            "the server sent bytes that are no message: its session is closed"
        );
        let mut last = to_client.take_pending();
        if to_client.scanner.at_boundary() && !ended_by_server {
            last.extend_from_slice(&error_response::fatal(&ClientFacing::UpstreamUnreadable.into()));
        }
        let gone_by = clock::now() + GONE_WITHIN;
        tokio::join!(
            close_client(&mut client, &last, send_within),
            terminate_upstream(upstream, guard, false, gone_by),
            stop_statement(cancel.filter(|_| phase.statement_running()), gone_by),
        );
        Closed::Error
    }
}

/// Relays the rest of a message that the client has in part. False if that did not come about by `cut_at`.
async fn finish_message<C, U>(to_client: &mut Pipe, upstream: &mut U, client: &mut C, cut_at: Time) -> bool
where
    C: AsyncWrite + Unpin,
    U: AsyncRead + Unpin,
{
    let half = !to_client.at_boundary();
    let within = match close_action(half, clock::now(), cut_at) {
        CloseAction::SendFatal => return true,
        CloseAction::Abort => return false,
        CloseAction::Drain(within) => within,
    };
    let finishing = async {
        client.write_all(&to_client.take_pending()).await?;
        let mut buffer = vec![0; read_buffer::READ_BYTES];
        while !to_client.scanner.at_boundary() {
            let read = upstream.read(&mut buffer).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let chunk = buffer.get(..read).unwrap_or_default();
            let end = to_client.scanner.to_boundary(chunk);
            let rest = chunk.get(..end).unwrap_or(chunk);
            to_client.scanner.feed(rest, |_| {}).map_err(|_| std::io::ErrorKind::InvalidData)?;
            client.write_all(rest).await?;
        }
        client.flush().await
    };
    matches!(timeout(within, finishing).await, Ok(Ok(())))
}

/// Waits for the client's next request, or for this time. True if the client sends Terminate or closes instead.
async fn has_left<C: AsyncRead + Unpin>(client: &mut C, until: Time) -> bool {
    let wait = until.since(clock::now());
    if wait.is_zero() {
        return false;
    }
    match timeout(wait, client.read_u8()).await {
        Ok(Ok(tag)) => tag == TERMINATE,
        Ok(Err(_)) => true,
        Err(_) => false,
    }
}

/// Sends a CancelRequest for the statement that runs: neither a lost socket nor a Terminate would stop it. True once the
/// server has taken the request.
async fn stop_statement(target: Option<&CancelTarget>, gone_by: Time) -> bool {
    let Some(target) = target else { return false };
    let sent = target.send(gone_by.since(clock::now())).await;
    if let Err(error) = &sent {
        tracing::warn!(error = %error, "the running statement could not be cancelled");
    }
    sent.is_ok()
}

/// Sends the last bytes and closes in the order that lets them arrive: a socket closed with unread bytes in it is
/// reset, and a reset may overtake what was sent.
pub(in crate::postgres) async fn close_client<C>(client: &mut C, last: &[u8], within: Duration)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let telling = async {
        client.write_all(last).await?;
        client.flush().await?;
        client.shutdown().await
    };
    if matches!(timeout(within, telling).await, Ok(Ok(()))) {
        let _ = timeout(LINGER_FOR.min(within), read_to_end(client)).await;
    }
}

/// Sends Terminate and waits until the server closes. Reads meanwhile: a server that cannot write does not read either.
/// The socket of a server that has not closed by `gone_by` is reset, so that what it has not taken never arrives.
pub(in crate::postgres) async fn terminate_upstream<U>(
    upstream: U,
    mut guard: Guard,
    terminate: bool,
    gone_by: Time,
) where
    U: AsyncRead + AsyncWrite + Unpin + Discard,
{
    let (mut from, mut to) = tokio::io::split(upstream);
    let leaving = async {
        if terminate && to.write_all(&written::terminate()).await.is_err() {
            return;
        }
        let _ = to.flush().await;
        let _ = to.shutdown().await;
    };
    let gone = timeout(gone_by.since(clock::now()), async {
        let (gone, ()) = tokio::join!(read_to_end(&mut from), leaving);
        gone
    });
    if gone.await == Ok(true) {
        guard.upstream_gone();
    } else {
        from.unsplit(to).discard_unsent();
        warn_of_stray(&guard);
    }
}

fn warn_of_stray(guard: &Guard) {
    tracing::warn!(
        lease.generation = guard.generation().number().get(),
        db.user = guard.generation().username(),
        "upstream did not close: its session may outlive this one"
    );
}

/// Reads and discards. True at the end of the socket.
async fn read_to_end<S: AsyncRead + Unpin>(stream: &mut S) -> bool {
    let mut scrap = vec![0; SCRAP_BYTES];
    loop {
        match stream.read(&mut scrap).await {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                return matches!(super::upstream_failed(error.kind()), RelayExit::UpstreamGone { .. });
            }
        }
    }
}

/// Long enough for a client across a network to read its last message, and short enough for the end of the process.
const LINGER_FOR: Duration = Duration::from_secs(1);
/// A client that has not read its last answer by then is not about to read this one.
const ANSWER_READ_WITHIN: Duration = Duration::from_millis(250);
/// How long a server that was idle is waited for.
const GONE_WITHIN: Duration = Duration::from_secs(5);
/// How long a server may take to end a session whose socket was reset and whose statement was cancelled.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// What a server is given even if all bounds have passed in a suspend.
const AT_LEAST: Duration = Duration::from_secs(1);
const SCRAP_BYTES: usize = 8 * 1024;
