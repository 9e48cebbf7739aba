//! Clients that are not served, for lack of file descriptors or because of their address: each gets an error; the cancel
//! request of one that is allowed is sent. Floor 4.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::handshake::Request;
use super::{Shared, answer_cancel, encryption};
use crate::error::ClientFacing;
use crate::metrics::{self, LoginFailure};
use crate::postgres::protocol::error_response;
use crate::postgres::relay;
use crate::session::Admission;
use crate::socket::{Client, Peer, Progress, Unserved};

/// Turns a client away in a task of its own. There are never many of them: when they are too many, the client that has
/// waited longest without a whole StartupMessage is closed for the new one.
pub(crate) async fn turn_away(
    client: Client,
    peer: Peer,
    why: Unserved,
    (shared, admission): (&Arc<Shared>, &Admission),
    span: tracing::Span,
) {
    let within = admission.handshake_timeout(shared.limits.handshake_timeout).min(ASKED_WITHIN);
    let mut clients = shared.turned_away.lock().await;
    let answer = |progress| answer(client, why, within, Arc::clone(shared), progress).instrument(span);
    clients.admit(peer, answer).await;
}

async fn answer(client: Client, why: Unserved, within: Duration, shared: Arc<Shared>, progress: Progress) {
    let send_timeout = shared.limits.send_timeout;
    let acceptor = shared.acceptor.in_force();
    match encryption::answer(client, acceptor.as_deref(), within, send_timeout).await {
        Ok((Request::Session(startup), mut client)) => {
            progress.answered();
            let user = startup.user();
            let (reason, facing) = match why {
                Unserved::NoDescriptors => (LoginFailure::Limit, ClientFacing::DescriptorsKept),
                Unserved::Handshakes(whose) => (LoginFailure::Limit, ClientFacing::TooManyHandshakes(whose)),
                Unserved::Address => (LoginFailure::Denied, ClientFacing::AddressNotAllowed),
            };
            match shared.routes().pick(user, startup.database().unwrap_or(user)) {
                Some(route) => route.metrics.login_failed(reason),
                None => metrics::login_failed("", reason),
            }
            let message = error_response::fatal(&facing.into());
            relay::close_client(&mut client.stream, &message, send_timeout).await;
        }
        Ok((Request::Cancel(_), _)) if why == Unserved::Address => {}
        Ok((Request::Cancel(cancel), client)) => {
            progress.answering();
            answer_cancel(client.stream, &cancel, &shared).await;
        }
        Err(error) => metrics::handshake_failed(error.word()),
    }
}

/// How long the client has for its StartupMessage.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
