//! The client side of SCRAM-SHA-256, with the two keys remembered between logins. Floor 1.
//!
//! The thousands of hash rounds that turn a password into keys are half of a direct login, and their result depends on
//! password, salt and round count alone; [`Keys`] keeps it. The rounds are a [`Derivation`] of their own, so that the
//! caller decides which thread they keep busy. `postgres_protocol` has SCRAM too but cannot keep keys: the
//! tests hold this one to it, byte for byte.
//!
//! Sources: RFC 5802, RFC 7677, <https://www.postgresql.org/docs/current/sasl-authentication.html#SASL-SCRAM-SHA-256>

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::zeroize::Zeroizing;

use crate::secret::Secret;

/// Random bytes in a client nonce; libpq's size.
pub(crate) const NONCE_LEN: usize = 18;

/// The GS2 header: what the client says about channel binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gs2 {
    /// `n`: the client cannot bind.
    Unsupported,
    /// `y`: the client can, and thinks that the server cannot. A server that can aborts: its offer was cut on the way.
    NotOffered,
    /// `p=tls-server-end-point`, with the hash of the server's certificate.
    EndPoint(Vec<u8>),
}

impl Gs2 {
    fn header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }
}

/// A conversation whose first message has been made.
pub(crate) struct Scram {
    gs2: Gs2,
    nonce: String,
}

impl Scram {
    /// Makes the client-first-message. The user name in it stays empty, as with libpq: PostgreSQL takes the startup
    /// message's.
    #[must_use]
    pub(crate) fn new(gs2: Gs2, nonce: &[u8; NONCE_LEN]) -> (String, Self) {
        Self::with_nonce(gs2, BASE64.encode(nonce))
    }

    pub(super) fn with_nonce(gs2: Gs2, nonce: String) -> (String, Self) {
        let scram = Self { gs2, nonce };
        (format!("{}{}", scram.gs2.header(), scram.first_bare()), scram)
    }

    /// Takes the server-first-message.
    ///
    /// # Errors
    /// The message is malformed, or its nonce is not ours with an addition, or it asks for more than
    /// [`MAX_ITERATIONS`] rounds.
    pub(crate) fn challenge(self, server_first: &[u8], password: &Secret) -> Result<Challenged, Error> {
        let server_first = std::str::from_utf8(server_first).map_err(|_| Error::Malformed)?;
        let (nonce, salt, iterations) = first_attributes(server_first)?;
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(Error::Nonce);
        }
        let salt = BASE64.decode(salt).map_err(|_| Error::Malformed)?;
        let mut binding = self.gs2.header().as_bytes().to_vec();
        if let Gs2::EndPoint(end_point) = &self.gs2 {
            binding.extend_from_slice(end_point);
        }
        let without_proof = format!("c={},r={nonce}", BASE64.encode(binding));
        let message = format!("{},{server_first},{without_proof}", self.first_bare());
        let derivation = Derivation { password: password.clone(), salt, iterations };
        Ok(Challenged { message, without_proof, derivation })
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }
}

/// A conversation in which the server has named salt and rounds.
pub(crate) struct Challenged {
    /// What both sides sign.
    message: String,
    without_proof: String,
    /// What the keys are made of.
    pub(crate) derivation: Derivation,
}

impl Challenged {
    /// Makes the client-final-message with the keys that its derivation gives.
    #[must_use]
    pub(crate) fn prove(self, pair: Pair) -> (String, Proved) {
        let stored_key = digest::digest(&digest::SHA256, pair.client_key.as_slice());
        let signature = sign(stored_key.as_ref(), self.message.as_bytes());
        let proof: Vec<u8> =
            pair.client_key.iter().zip(signature.as_ref()).map(|(key, bit)| key ^ bit).collect();
        let client_final = format!("{},p={}", self.without_proof, BASE64.encode(proof));
        (client_final, Proved { message: self.message, server_key: pair.server_key })
    }
}

/// A conversation in which the client has proved itself; the server's turn.
pub(crate) struct Proved {
    message: String,
    server_key: Key,
}

impl Proved {
    /// Takes the server-final-message, in constant time.
    ///
    /// # Errors
    /// The server does not know the password, or said so of us.
    pub(crate) fn verify(self, server_final: &[u8]) -> Result<(), Error> {
        let server_final = std::str::from_utf8(server_final).map_err(|_| Error::Malformed)?;
        if server_final.starts_with("e=") {
            return Err(Error::Rejected);
        }
        let signature = server_final.strip_prefix("v=").ok_or(Error::Malformed)?;
        let signature = signature.split(',').next().unwrap_or_default();
        let signature = BASE64.decode(signature).map_err(|_| Error::Malformed)?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.server_key.as_slice());
        hmac::verify(&key, self.message.as_bytes(), &signature).map_err(|_| Error::ServerSignature)
    }
}

/// The keys of the last few passwords, so that a login with a known one costs no rounds. Bounded; share one per upstream.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Vec<Remembered>>);

struct Remembered {
    derivation: Derivation,
    pair: Pair,
}

/// What turns a password into keys: up to [`MAX_ITERATIONS`] rounds of hashing.
#[derive(Clone)]
pub(crate) struct Derivation {
    password: Secret,
    salt: Vec<u8>,
    iterations: NonZeroU32,
}

/// The keys of both sides.
#[derive(Clone)]
pub(crate) struct Pair {
    client_key: Key,
    server_key: Key,
}

type Key = Zeroizing<[u8; digest::SHA256_OUTPUT_LEN]>;

impl Keys {
    /// What is remembered.
    #[must_use]
    pub(crate) fn get(&self, derivation: &Derivation) -> Option<Pair> {
        self.lock().iter().find(|entry| entry.derivation.same(derivation)).map(|entry| entry.pair.clone())
    }

    /// Remembers what a derivation gave, in place of the oldest.
    pub(crate) fn keep(&self, derivation: Derivation, pair: Pair) {
        let mut entries = self.lock();
        if entries.iter().any(|entry| entry.derivation.same(&derivation)) {
            return;
        }
        if entries.len() >= REMEMBERED {
            entries.remove(0);
        }
        entries.push(Remembered { derivation, pair });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Derivation {
    /// Hashes, which keeps a core busy: about a millisecond with PostgreSQL's default of 4,096 rounds, and more than a
    /// second with [`MAX_ITERATIONS`].
    #[must_use]
    pub(crate) fn run(&self) -> Pair {
        // What SASLprep forbids goes through as it is, on PostgreSQL's side too; and so does what it leaves nothing of.
        let prepared =
            stringprep::saslprep(self.password.expose()).map(|text| Zeroizing::new(text.into_owned()));
        let prepared = prepared.as_ref().ok().filter(|text| !text.is_empty());
        let text = prepared.map_or_else(|| self.password.expose(), |text| text.as_str());
        let mut salted = Zeroizing::new([0; digest::SHA256_OUTPUT_LEN]);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, self.iterations, &self.salt, text.as_bytes(), salted.as_mut_slice());
        let key_of = |label: &[u8]| {
            let mut key = Key::default();
            key.copy_from_slice(sign(salted.as_slice(), label).as_ref());
            key
        };
        Pair { client_key: key_of(b"Client Key"), server_key: key_of(b"Server Key") }
    }

    fn same(&self, other: &Self) -> bool {
        self.iterations == other.iterations && self.salt == other.salt && self.password.same(&other.password)
    }

    #[cfg(test)]
    pub(super) fn new(password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        Self { password: Secret::new(password.to_owned()), salt: salt.to_vec(), iterations }
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derivation").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

#[cfg(test)]
impl Pair {
    pub(super) fn bytes(&self) -> ([u8; 32], [u8; 32]) {
        (*self.client_key, *self.server_key)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys([redacted])")
    }
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// Nonce, salt (base64) and rounds, in this order. A first attribute `m=` is an extension that must be understood.
fn first_attributes(message: &str) -> Result<(&str, &str, NonZeroU32), Error> {
    let mut attributes = message.split(',');
    let mut attribute = |name| attributes.next().and_then(|text| text.strip_prefix(name));
    let nonce = attribute("r=").ok_or(Error::Malformed)?;
    let salt = attribute("s=").ok_or(Error::Malformed)?;
    let iterations = attribute("i=").ok_or(Error::Malformed)?;
    let iterations: NonZeroU32 = iterations.parse().map_err(|_| Error::Malformed)?;
    if iterations > MAX_ITERATIONS {
        return Err(Error::Iterations { asked: iterations.get() });
    }
    Ok((nonce, salt, iterations))
}

/// Why SCRAM failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Not of the RFC's form.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The server answered another client's nonce.
    #[error("server did not keep the nonce")]
    Nonce,
    /// A hostile or careless round count.
    #[error("server asks for {asked} rounds, more than {MAX_ITERATIONS}")]
    Iterations {
        /// Rounds.
        asked: u32,
    },
    /// An `e=` in the last message.
    #[error("server rejected the proof")]
    Rejected,
    /// The server does not know the password: another machine answers in its place.
    #[error("server's signature is wrong")]
    ServerSignature,
}

/// The most rounds: a second or two of one core, once for each password and salt. PostgreSQL's default is 4,096, OWASP
/// recommends 600,000, and `scram_iterations` goes up to two thousand million.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-SCRAM-ITERATIONS>
pub(crate) const MAX_ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4_999_999);

/// Passwords remembered: a few generations, and hosts that salt differently.
const REMEMBERED: usize = 8;
