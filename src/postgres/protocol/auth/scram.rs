//! The client side of SCRAM-SHA-256. It remembers the two keys between logins. Floor 1.
//!
//! The thousands of hash rounds that derive keys from a password take half the time of a direct login. The result
//! depends only on password, salt and round count, so [`Keys`] remembers it. The rounds are a separate [`Derivation`],
//! so that the caller chooses the thread that runs them. `postgres_protocol` has SCRAM too but cannot remember keys;
//! the tests check that both produce the same bytes.
//!
//! Sources: RFC 5802, RFC 7677, <https://www.postgresql.org/docs/current/sasl-authentication.html#SASL-SCRAM-SHA-256>

use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::zeroize::Zeroizing;

use crate::secret::{Secret, WeakSecret};

/// The number of random bytes in a client nonce, as in libpq.
pub(crate) const NONCE_LEN: usize = 18;

/// The GS2 header, in which the client declares its support of channel binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Gs2 {
    /// `n`: the client does not support channel binding.
    Unsupported,
    /// `y`: the client supports it and believes that the server does not. A server that does support it aborts, since
    /// its offer was removed on the way.
    NotOffered,
    /// `p=tls-server-end-point`: the client binds to this hash of the server's certificate.
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

/// The state after the client-first-message.
pub(crate) struct Scram {
    gs2: Gs2,
    nonce: String,
}

impl Scram {
    /// Builds the client-first-message. Its user name is empty, as in libpq: PostgreSQL uses the StartupMessage's.
    #[must_use]
    pub(crate) fn new(gs2: Gs2, nonce: &[u8; NONCE_LEN]) -> (String, Self) {
        Self::with_nonce(gs2, BASE64.encode(nonce))
    }

    pub(super) fn with_nonce(gs2: Gs2, nonce: String) -> (String, Self) {
        let scram = Self { gs2, nonce };
        (format!("{}{}", scram.gs2.header(), scram.first_bare()), scram)
    }

    /// Handles the server-first-message.
    ///
    /// # Errors
    /// The message is malformed, its nonce does not extend ours, or it asks for more than [`MAX_ITERATIONS`] rounds.
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

/// The state after the server-first-message, which has salt and rounds.
pub(crate) struct Challenged {
    /// The AuthMessage of RFC 5802, which both sides sign.
    message: String,
    without_proof: String,
    /// What the keys are derived from.
    pub(crate) derivation: Derivation,
}

impl Challenged {
    /// Builds the client-final-message with the keys from `derivation`.
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

/// The state after the client-final-message. The server must now prove itself.
pub(crate) struct Proved {
    message: String,
    server_key: Key,
}

impl Proved {
    /// Checks the server-final-message, in constant time.
    ///
    /// # Errors
    /// The message is malformed, the server does not know the password, or it rejected the client's proof.
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

/// The keys of the last few passwords: a login with a known password needs no rounds. Those of a password that nobody keeps any more
/// are forgotten at the next login. Bounded; share one per upstream.
#[derive(Default)]
pub(crate) struct Keys(Mutex<Vec<Remembered>>);

struct Remembered {
    /// Whoever else has it may drop it: then the keys are forgotten too.
    password: WeakSecret,
    salt: Vec<u8>,
    iterations: NonZeroU32,
    pair: Pair,
}

/// What derives keys from a password, in up to [`MAX_ITERATIONS`] rounds of hashing.
#[derive(Clone)]
pub(crate) struct Derivation {
    password: Secret,
    salt: Vec<u8>,
    pub(super) iterations: NonZeroU32,
}

/// The ClientKey and ServerKey of RFC 5802.
#[derive(Clone)]
pub(crate) struct Pair {
    client_key: Key,
    server_key: Key,
}

/// 32 bytes, on the heap: what is moved leaves no copy on a stack.
type Key = Zeroizing<Vec<u8>>;

impl Keys {
    /// Returns the remembered keys of this derivation.
    #[must_use]
    pub(crate) fn get(&self, derivation: &Derivation) -> Option<Pair> {
        let mut entries = self.lock();
        entries.retain(|entry| entry.password.is_kept());
        entries.iter().find(|entry| entry.is_of(derivation)).map(|entry| entry.pair.clone())
    }

    /// Remembers the keys of a derivation. If there is no room, drops the oldest.
    pub(crate) fn keep(&self, derivation: Derivation, pair: Pair) {
        let mut entries = self.lock();
        if entries.iter().any(|entry| entry.is_of(&derivation)) {
            return;
        }
        if entries.len() >= REMEMBERED {
            entries.remove(0);
        }
        let Derivation { password, salt, iterations } = derivation;
        entries.push(Remembered { password: password.downgrade(), salt, iterations, pair });
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Remembered {
    fn is_of(&self, derivation: &Derivation) -> bool {
        self.iterations == derivation.iterations
            && self.salt == derivation.salt
            && self.password.is(&derivation.password)
    }
}

impl Derivation {
    /// Derives the keys, which keeps a core busy: about a millisecond with PostgreSQL's default of 4,096 rounds, and
    /// more than a second with [`MAX_ITERATIONS`].
    #[must_use]
    pub(crate) fn run(&self) -> Pair {
        // Like PostgreSQL, uses the password unchanged if SASLprep prohibits it or leaves nothing of it.
        let prepared =
            stringprep::saslprep(self.password.expose()).map(|text| Zeroizing::new(text.into_owned()));
        let prepared = prepared.as_ref().ok().filter(|text| !text.is_empty());
        let text = prepared.map_or_else(|| self.password.expose(), |text| text.as_str());
        let mut salted = Zeroizing::new([0; digest::SHA256_OUTPUT_LEN]);
        let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
        pbkdf2::derive(algorithm, self.iterations, &self.salt, text.as_bytes(), salted.as_mut_slice());
        let key_of = |label: &[u8]| Key::new(sign(salted.as_slice(), label).as_ref().to_vec());
        Pair { client_key: key_of(b"Client Key"), server_key: key_of(b"Server Key") }
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
        let bytes = |key: &Key| key.as_slice().try_into().unwrap();
        (bytes(&self.client_key), bytes(&self.server_key))
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

/// Parses nonce, salt (base64) and rounds, in this order. A mandatory extension, `m=` at the front, is malformed here.
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
    /// The message does not have the form of the RFC.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The server's nonce does not extend the client's.
    #[error("server did not keep the nonce")]
    Nonce,
    /// The server asks for more than [`MAX_ITERATIONS`] rounds.
    #[error("server asks for {asked} rounds, more than {MAX_ITERATIONS}")]
    Iterations {
        /// The rounds that the server asks for.
        asked: u32,
    },
    /// The server-final-message holds an error, `e=`.
    #[error("server rejected the proof")]
    Rejected,
    /// The server does not know the password, so another machine may answer in its place.
    #[error("server's signature is wrong")]
    ServerSignature,
}

/// The maximum number of rounds. It takes a core a second or two, once per password and salt. PostgreSQL's default is
/// 4,096, OWASP recommends 600,000, and `scram_iterations` can be 2,147,483,647.
///
/// Source: <https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-SCRAM-ITERATIONS>
pub(crate) const MAX_ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4_999_999);

/// The number of remembered passwords: a few generations, and hosts with different salts.
const REMEMBERED: usize = 8;
