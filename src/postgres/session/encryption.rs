//! What a client wants, over TLS where it asks for that and it is offered. Floor 4.
//!
//! As PostgreSQL does it: TLS is offered over TCP alone, on request (`sslmode`) or from the first byte
//! (`sslnegotiation=direct`), and then only to a client that names the protocol by ALPN.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>; where the manual is silent,
//! `ProcessSSLStartup`, <https://github.com/postgres/postgres/blob/master/src/backend/tcop/backend_startup.c>

use std::io;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::handshake::{Error, Handshake, Place, Request, Wish, end_tls};
use crate::acceptor::{HandshakeError, InForce};
use crate::postgres::relay::close_client;
use crate::session::Buffered;
use crate::socket::Client;

/// Reads the client's request, at most for `handshake_within`, TLS included. A client that cannot be served gets an error,
/// at most for `send_within`, and is closed.
///
/// Not cancel safe.
pub(super) async fn answer(
    client: Client,
    acceptor: Option<&InForce>,
    handshake_within: Duration,
    send_within: Duration,
) -> Result<(Request, Buffered<Client>), Error> {
    let until = Instant::now() + handshake_within;
    let offered = acceptor.filter(|_| matches!(client, Client::Tcp(_)));
    let place = if offered.is_some() { Place::TlsOffered } else { Place::Plain };
    let mut handshake = Handshake::new(client, place);
    loop {
        let (wish, mut client) = handshake.answer(until, send_within).await?;
        match wish {
            Wish::Request(request) => {
                if matches!(request, Request::Session(_)) {
                    check_certificate(&mut client.stream, offered, send_within).await?;
                }
                return Ok((request, client));
            }
            Wish::Tls(place) => {
                let stream = begin_tls(client, offered, place, until, send_within).await?;
                handshake = Handshake::new(stream, place);
            }
        }
    }
}

/// Does the TLS handshake that a client waits for.
async fn begin_tls(
    client: Buffered<Client>,
    offered: Option<&InForce>,
    place: Place,
    until: Instant,
    send_within: Duration,
) -> Result<Client, Error> {
    let (Some(acceptor), Client::Tcp(socket)) = (offered, client.stream) else {
        return Err(Error::Tls(io::ErrorKind::Unsupported.into()));
    };
    let accepting = Box::pin(acceptor.accept(socket, &client.buffer));
    let mut stream = match timeout_at(until, accepting).await.map_err(|_| Error::TimedOut)? {
        Ok(stream) => stream,
        Err(HandshakeError { reason, socket }) => {
            if let Some(mut socket) = socket {
                // The alert has been sent: it must not be overtaken by a reset.
                close_client(&mut socket, b"", send_within).await;
            }
            return Err(Error::Tls(reason));
        }
    };
    if place == Place::DirectTls && stream.get_ref().1.alpn_protocol().is_none() {
        end_tls(&mut stream, send_within).await;
        return Err(Error::NoAlpn);
    }
    Ok(Client::Tls(stream))
}

/// Refuses a client that has shown no certificate where one is asked for. A cancel needs none: it has its key.
async fn check_certificate(
    client: &mut Client,
    offered: Option<&InForce>,
    send_within: Duration,
) -> Result<(), Error> {
    let asks = offered.is_some_and(InForce::asks_for_certificate);
    if !asks || client.identity().is_some() {
        return Ok(());
    }
    let error = Error::NoCertificate;
    close_client(client, &error.message().unwrap_or_default(), send_within).await;
    Err(error)
}
