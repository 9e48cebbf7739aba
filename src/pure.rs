//! The pure parts as `cargo bench` measures them; nothing else uses this. Floor 6.
//!
//! Each function does the work of one event in the life of a session or a lease, with no socket, clock or server. None
//! of them fails on the input that the benchmarks give; on other input the returned value is smaller, or `None`.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};

use crate::lease::{Action, DynamicRole, Event, GenerationId, Settings, TokenFacts, TokenId};
use crate::postgres::protocol::auth::method::{ChannelBinding, RequireAuth};
use crate::postgres::protocol::auth::scram::{Derivation, Pair};
use crate::postgres::protocol::auth::{Authentication, Step, Terms, Transport};
use crate::postgres::protocol::frame::Scanner;
use crate::postgres::protocol::phase::Phase;
use crate::postgres::protocol::startup::{self, Packet};
use crate::secret::Secret;
use crate::time::Time;

/// A stream of messages of one type, each with a body of so many bytes.
#[must_use]
pub fn messages(tag: u8, body: usize, count: usize) -> Vec<u8> {
    let mut stream = BytesMut::with_capacity((body + 5) * count);
    for _ in 0..count {
        stream.put_u8(tag);
        stream.put_u32(u32::try_from(body + 4).unwrap_or(u32::MAX));
        stream.put_bytes(b'x', body);
    }
    stream.into()
}

/// Follows a server's stream that comes in chunks of this size, as the relay does. The number of messages in it.
#[must_use]
pub fn follow(stream: &[u8], chunk: usize) -> u64 {
    let (mut scanner, mut phase, mut seen) = (Scanner::default(), Phase::<65_536>::default(), 0);
    phase.frontend(b'Q');
    for chunk in stream.chunks(chunk.max(1)) {
        let fed = scanner.feed(chunk, |frame| {
            phase.backend(frame.tag, frame.body);
            seen += 1;
        });
        if fed.is_err() {
            break;
        }
    }
    seen
}

/// A client's StartupMessage with the parameters of an ordinary driver.
#[must_use]
pub fn startup_packet() -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_u32(3 << 16);
    for word in ["user", "app", "database", "myapp", "application_name", "web", "client_encoding", "UTF8", ""]
    {
        body.put_slice(word.as_bytes());
        body.put_u8(0);
    }
    let mut packet = BytesMut::with_capacity(body.len() + 4);
    packet.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    packet.unsplit(body);
    packet.into()
}

/// Parses a StartupMessage and writes the upstream's. The number of bytes in it.
#[must_use]
pub fn rewrite_startup(packet: &[u8]) -> usize {
    match startup::parse(&mut BytesMut::from(packet)) {
        Ok(Some(Packet::Startup(message))) => message
            .for_upstream("v-approle-app-Zt5yT0kqvQhYq0bGJXrT-1764500000", b"myapp", Some("app_owner"))
            .map_or(0, |written| written.len()),
        _ => 0,
    }
}

/// The client's side of SCRAM-SHA-256 with 4,096 rounds.
pub struct ScramLogin {
    password: Secret,
    pair: Option<Pair>,
}

impl Default for ScramLogin {
    fn default() -> Self {
        Self { password: Secret::new("-password-of-a-benchmark-".to_owned()), pair: None }
    }
}

impl ScramLogin {
    /// Derives the keys of the password and remembers them for [`ScramLogin::with_known_keys`]. The length of the proof's
    /// message.
    pub fn with_derived_keys(&mut self) -> Option<usize> {
        let (length, pair) = self.prove(|derivation| Some(derivation.run()))?;
        self.pair = Some(pair);
        Some(length)
    }

    /// Uses the keys of an earlier login. The length of the proof's message; `None` without an earlier login.
    #[must_use]
    pub fn with_known_keys(&self) -> Option<usize> {
        self.prove(|_| self.pair.clone()).map(|(length, _)| length)
    }

    fn prove(&self, keys: impl FnOnce(Derivation) -> Option<Pair>) -> Option<(usize, Pair)> {
        let terms = Terms {
            transport: Transport::Local,
            channel_binding: ChannelBinding::default(),
            require_auth: RequireAuth::default(),
        };
        let begun = Authentication::new("v-approle-app", &self.password, [7; _], terms);
        let sasl = [&10_i32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat();
        let Ok(Step::Send { message, next }) = begun.handle(&sasl) else { return None };
        let said = std::str::from_utf8(&message).ok()?;
        let nonce = said.split("r=").nth(1)?;
        let first = format!("r={nonce}abcdefghijklmnopqrstuvwx,s=c2FsdHNhbHRzYWx0c2FsdA==,i=4096");
        let challenge = [&11_i32.to_be_bytes()[..], first.as_bytes()].concat();
        let Ok(Step::Derive { derivation, next }) = next.handle(&challenge) else { return None };
        let pair = keys(derivation)?;
        let Ok(Step::Send { message, .. }) = next.derived(pair.clone()) else { return None };
        Some((message.len(), pair))
    }
}

/// A dynamic role with a published credential whose lease is renewed again and again.
pub struct RenewedLease {
    role: DynamicRole,
    now: Time,
}

impl Default for RenewedLease {
    fn default() -> Self {
        let settings = Settings::new(1);
        let now = Time::from_nanos(1_000_000_000);
        let mut role = DynamicRole::new(settings);
        let token = TokenId(1);
        let facts = TokenFacts { sent_at: now, ttl: None, renewable: false, owned: true };
        for event in [
            Event::Tick,
            Event::LoggedIn(token, facts),
            Event::Granted { sent_at: now, lease: LEASE, renewable: true },
            Event::Proved(GenerationId::FIRST),
        ] {
            role.handle(now, event);
        }
        Self { role, now }
    }
}

impl RenewedLease {
    /// Two steps: the deadline of a renewal, and Vault's answer. False if the machine did not ask for the renewal.
    pub fn renew(&mut self) -> bool {
        self.now = self.role.next_deadline();
        let asked = self.role.handle(self.now, Event::Tick);
        let renewed = Event::LeaseRenewed {
            number: GenerationId::FIRST,
            sent_at: self.now,
            lease: LEASE,
            renewable: true,
        };
        self.role.handle(self.now, renewed);
        asked.iter().any(|action| matches!(action, Action::RenewLease(..)))
    }
}

const LEASE: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_the_whole_work() {
        assert_eq!(follow(&messages(b'D', 100, 50), 8192), 50);
        assert!(rewrite_startup(&startup_packet()) > startup_packet().len());
        let mut login = ScramLogin::default();
        assert_eq!(login.with_known_keys(), None);
        let derived = login.with_derived_keys();
        assert!(derived.is_some() && login.with_known_keys() == derived);
        let mut lease = RenewedLease::default();
        assert!((0..100).all(|_| lease.renew()));
    }
}
