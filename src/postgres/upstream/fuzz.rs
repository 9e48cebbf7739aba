//! The address of a server as it is written, and a server that answers a login with any bytes. Floor 2.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use super::conversation::{ask, command, converse};
use super::keys::{Derivations, KeysOfUpstream};
use super::refusal::Refusal;
use super::uri::Uri;
use crate::postgres::protocol::auth::method::ChannelBinding;
use crate::postgres::protocol::auth::{Authentication, Terms, Transport};
use crate::postgres::protocol::{error_response, plain};
use crate::secret::Secret;

/// It is no word of an address, and stands for a secret that is written in one.
const SECRET: &str = "pa55word";

/// An address; no error repeats what it cannot read, and what is read has at least one host.
pub(crate) fn uri(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Uri::parse(text) {
        Ok(uri) => assert!(!uri.hosts.is_empty()),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains(SECRET), "{said}");
        }
    }
}

/// The login, and then the commands of leasehold's own in the session.
pub(crate) fn login(data: &[u8]) {
    texts(data);
    let password = Secret::new("a-password".to_owned());
    let terms = Terms {
        transport: Transport::Local,
        channel_binding: ChannelBinding::Disable,
        // Its keys are derived on a thread.
        require_auth: "!scram-sha-256".parse().unwrap_or_default(),
    };
    let keys = KeysOfUpstream::new(Derivations::default());
    let mut stream = tokio::io::join(data, Vec::new());
    let begun = Authentication::new("v-app", &password, [7; _], terms);
    let Ok(ready) = at_once(converse(&mut stream, b"startup", begun, &keys)) else { return };
    assert!(ready.prologue.ends_with(b"\0\0\0\x05I") || ready.prologue.len() > 6);
    let mut rest = ready.rest;
    if at_once(ask(&mut stream, "SHOW x", &mut rest)).is_ok() {
        let _ = at_once(command(&mut stream, "DISCARD ALL", b"DISCARD ALL"));
    }
}

/// What is read of errors, and of what is none.
fn texts(data: &[u8]) {
    let _ = error_response::sqlstate(data);
    let _ = plain::OtherProtocol::of(data);
    let words = plain::words(data);
    assert!(!words.chars().any(char::is_control), "{words:?}");
    let frame = BytesMut::from(data).freeze();
    let refusal = Refusal::read(frame.clone(), frame, false);
    assert!(refusal.sqlstate().len() <= 15);
    let _ = (refusal.for_client(), refusal.is_suspect(), refusal.proves_credential());
}

/// What this comes to, with a stream that never makes it wait.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => unreachable!("a stream of bytes is always ready"),
    }
}
