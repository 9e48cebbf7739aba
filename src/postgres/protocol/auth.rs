//! The client side of PostgreSQL's authentication: takes the bodies of `R` messages, returns responses. Floor 1.
//!
//! It reads no socket, frames no messages and makes no random numbers: the caller passes the nonce.
//!
//! ```text
//! Started ── Ok ───────────────────────────────────────────────▶ Done   (trust)
//!    ├────── cleartext, md5 ─▶ Answered ── Ok ─────────────────▶ Done
//!    └────── SASL ─▶ First ── Continue ─▶ Challenged ── keys ─▶ Proved ── Final ─▶ Verified ── Ok ─▶ Done
//! ```
//!
//! AuthenticationOk in `First`, `Challenged` or `Proved` is refused: the server has not proved itself.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-START-UP>

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod method;
pub(crate) mod scram;
#[cfg(test)]
mod tests;

use std::fmt;

use postgres_protocol::authentication::md5_hash;
use secrecy::zeroize::Zeroizing;

use crate::secret::Secret;
use method::{ChannelBinding, Method, RequireAuth};
use scram::{Derivation, Gs2, NONCE_LEN, Pair, Scram};

/// The transport that carries the conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    /// TCP without TLS. A cleartext password is never sent over it.
    Plain,
    /// A Unix socket.
    Local,
    Tls {
        /// The `tls-server-end-point` data of RFC 5929; `None` if the certificate's signature does not define it.
        end_point: Option<Vec<u8>>,
        /// Whether a trusted CA has signed the server's certificate. Otherwise anybody may be at the other end.
        verified: bool,
    },
}

/// What the configuration demands of the authentication.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) transport: Transport,
    /// The URI's `channel_binding`.
    pub(crate) channel_binding: ChannelBinding,
    /// The configured `require_auth`.
    pub(crate) require_auth: RequireAuth,
}

/// One authentication in progress. Each step consumes it, so an old state cannot be used again.
pub(crate) struct Authentication<'a> {
    user: &'a str,
    password: &'a Secret,
    nonce: [u8; NONCE_LEN],
    terms: Terms,
    state: State,
}

enum State {
    Started,
    Answered,
    First(Scram),
    Challenged(scram::Challenged),
    Proved(scram::Proved),
    Verified,
}

/// What the caller does after an `R` message.
pub(crate) enum Step<'a> {
    /// Send `message` and continue with `next`.
    Send {
        /// A whole frame, which may hold a password.
        message: Zeroizing<Vec<u8>>,
        /// The conversation after this step.
        next: Authentication<'a>,
    },
    /// Derive the keys of the password, or find them, and pass them to [`Authentication::derived`].
    Derive {
        /// The work, which keeps a core busy.
        derivation: Derivation,
        /// The conversation that takes the keys.
        next: Authentication<'a>,
    },
    /// Send nothing and read the next message.
    Wait(Authentication<'a>),
    /// The server sent AuthenticationOk, and it may be trusted.
    Done,
}

impl<'a> Authentication<'a> {
    /// Starts a conversation. `nonce` must be fresh random bytes.
    #[must_use]
    pub(crate) fn new(user: &'a str, password: &'a Secret, nonce: [u8; NONCE_LEN], terms: Terms) -> Self {
        Self { user, password, nonce, terms, state: State::Started }
    }

    /// Handles the body of an `R` message: the bytes after its length.
    ///
    /// # Errors
    /// The message is malformed, or asks for something unsupported or forbidden. The connection must be closed.
    pub(crate) fn handle(mut self, body: &[u8]) -> Result<Step<'a>, Error> {
        let (code, data) = body.split_first_chunk::<4>().ok_or(Error::Malformed)?;
        let state = std::mem::replace(&mut self.state, State::Answered);
        match (i32::from_be_bytes(*code), state) {
            (OK, State::Started) => self.permit(Method::None).map(|()| Step::Done),
            (OK, State::Answered | State::Verified) => Ok(Step::Done),
            (OK, State::First(_) | State::Challenged(_) | State::Proved(_)) => Err(Error::NotVerified),
            (CLEARTEXT, State::Started) => self.cleartext(),
            (MD5, State::Started) => self.md5(data),
            (SASL, State::Started) => self.sasl(data),
            (SASL_CONTINUE, State::First(scram)) => {
                let challenged = scram.challenge(data, self.password)?;
                let derivation = challenged.derivation.clone();
                let next = Self { state: State::Challenged(challenged), ..self };
                Ok(Step::Derive { derivation, next })
            }
            (SASL_FINAL, State::Proved(proved)) => {
                proved.verify(data)?;
                Ok(Step::Wait(Self { state: State::Verified, ..self }))
            }
            (code @ (KERBEROS_V5 | GSS | SSPI), State::Started) => {
                Err(Error::Unsupported { method: foreign(code) })
            }
            (CLEARTEXT | MD5 | SASL | SASL_CONTINUE | SASL_FINAL, _) => Err(Error::OutOfTurn),
            (code, _) => Err(Error::Unknown { code }),
        }
    }

    /// Continues with the keys that [`Step::Derive`] asked for.
    ///
    /// # Errors
    /// The conversation did not ask for keys.
    pub(crate) fn derived(mut self, pair: Pair) -> Result<Step<'a>, Error> {
        match std::mem::replace(&mut self.state, State::Answered) {
            State::Challenged(challenged) => {
                let (message, proved) = challenged.prove(pair);
                Ok(self.send(message.as_bytes(), State::Proved(proved)))
            }
            _ => Err(Error::OutOfTurn),
        }
    }

    fn cleartext(self) -> Result<Step<'a>, Error> {
        self.permit(Method::Password)?;
        match self.terms.transport {
            Transport::Plain => return Err(Error::Cleartext),
            Transport::Tls { verified: false, .. } if self.terms.require_auth.is_default() => {
                return Err(Error::UnverifiedPeer);
            }
            Transport::Tls { .. } | Transport::Local => {}
        }
        let message = terminated(self.password.expose().as_bytes())?;
        Ok(self.send(&message, State::Answered))
    }

    fn md5(self, data: &[u8]) -> Result<Step<'a>, Error> {
        self.permit(Method::Md5)?;
        let salt = <[u8; 4]>::try_from(data).map_err(|_| Error::Malformed)?;
        let hash = md5_hash(self.user.as_bytes(), self.password.expose().as_bytes(), salt);
        let message = terminated(hash.as_bytes())?;
        Ok(self.send(&message, State::Answered))
    }

    fn sasl(self, mechanisms: &[u8]) -> Result<Step<'a>, Error> {
        self.permit(Method::ScramSha256)?;
        let offered = |name: &str| mechanisms.split(|byte| *byte == 0).any(|word| word == name.as_bytes());
        let gs2 = self.binding(offered(SCRAM_SHA_256), offered(SCRAM_SHA_256_PLUS))?;
        let name = if matches!(gs2, Gs2::EndPoint(_)) { SCRAM_SHA_256_PLUS } else { SCRAM_SHA_256 };
        let (first, scram) = Scram::new(gs2, &self.nonce);
        let mut message = terminated(name.as_bytes())?;
        let len = i32::try_from(first.len()).map_err(|_| Error::Malformed)?;
        message.extend_from_slice(&len.to_be_bytes());
        message.extend_from_slice(first.as_bytes());
        Ok(self.send(&message, State::First(scram)))
    }

    /// Chooses the mechanism and its GS2 flag. PostgreSQL aborts on flag `y` if it offered SCRAM-SHA-256-PLUS, so
    /// without an end point the flag is `n`.
    ///
    /// Source: <https://www.postgresql.org/docs/current/sasl-authentication.html#SASL-SCRAM-SHA-256>
    fn binding(&self, scram: bool, plus: bool) -> Result<Gs2, Error> {
        let wanted = self.terms.channel_binding;
        let end_point = match &self.terms.transport {
            Transport::Tls { end_point, .. } if wanted != ChannelBinding::Disable => end_point.as_deref(),
            _ => None,
        };
        match (end_point, scram, plus) {
            (Some(end_point), _, true) => Ok(Gs2::EndPoint(end_point.to_vec())),
            _ if wanted == ChannelBinding::Require => Err(Error::NoChannelBinding),
            (Some(_), true, false) => Ok(Gs2::NotOffered),
            (None, true, _) => Ok(Gs2::Unsupported),
            (_, false, _) => Err(Error::Unsupported { method: "a SASL mechanism other than SCRAM-SHA-256" }),
        }
    }

    /// Refuses a method that `require_auth` does not allow, or that cannot bind while binding is required.
    fn permit(&self, method: Method) -> Result<(), Error> {
        let Terms { require_auth, transport, .. } = &self.terms;
        if !require_auth.allows(method, *transport != Transport::Plain) {
            let error = if require_auth.is_default() {
                Error::NeedsTls { method }
            } else {
                Error::NotAllowed { method }
            };
            return Err(error);
        }
        if self.terms.channel_binding == ChannelBinding::Require && method != Method::ScramSha256 {
            return Err(Error::NoChannelBinding);
        }
        Ok(())
    }

    fn send(self, payload: &[u8], state: State) -> Step<'a> {
        let len = u32::try_from(payload.len() + 4).unwrap_or(u32::MAX);
        let mut message = Zeroizing::new(Vec::with_capacity(payload.len() + 5));
        message.push(b'p');
        message.extend_from_slice(&len.to_be_bytes());
        message.extend_from_slice(payload);
        Step::Send { message, next: Self { state, ..self } }
    }
}

impl fmt::Debug for Authentication<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authentication").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Send { .. } => "Send([redacted])",
            Self::Derive { .. } => "Derive",
            Self::Wait(_) => "Wait",
            Self::Done => "Done",
        })
    }
}

/// Why the authentication failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The message is too short, or does not have the form of its type.
    #[error("malformed authentication message")]
    Malformed,
    /// The message is not valid at this point.
    #[error("authentication message out of turn")]
    OutOfTurn,
    /// The protocol does not list this code.
    #[error("unknown authentication request {code}")]
    Unknown {
        /// The code, which follows the length.
        code: i32,
    },
    /// Leasehold does not support the method.
    #[error("server asks for {method}, which is not supported")]
    Unsupported {
        /// The method's name.
        method: &'static str,
    },
    /// The server asked for a cleartext password over TCP without TLS.
    #[error("server asks for a cleartext password over a connection without TLS")]
    Cleartext,
    /// The server asked for a cleartext password over TLS, and no setting has its certificate verified.
    #[error(
        "server asks for a cleartext password, which without a verified certificate only require_auth allows"
    )]
    UnverifiedPeer,
    /// The password holds a zero byte.
    #[error("password holds a zero byte")]
    Password,
    /// `require_auth` does not allow the method.
    #[error("server asks for method {method}, which require_auth does not allow")]
    NotAllowed {
        /// The method that the server asked for.
        method: Method,
    },
    /// Without TLS and without a `require_auth`, only SCRAM is used.
    #[error("server asks for method {method}, which without TLS only require_auth allows")]
    NeedsTls {
        /// The method that the server asked for.
        method: Method,
    },
    /// `channel_binding=require` is set, but the server or the transport does not support channel binding.
    #[error("channel_binding=require, but the server did not bind the login to its TLS certificate")]
    NoChannelBinding,
    /// AuthenticationOk came before the server proved itself.
    #[error("server said ok before it showed that it knows the password")]
    NotVerified,
    /// The SCRAM exchange failed.
    #[error("SCRAM failed")]
    Scram(#[from] scram::Error),
}

impl Error {
    /// The reason as one fixed sentence, for a client.
    #[must_use]
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Malformed | Self::OutOfTurn | Self::Unknown { .. } => {
                "It broke the protocol of authentication."
            }
            Self::Unsupported { .. } => "It asks for a method of authentication that is not supported.",
            Self::Cleartext => "It asks for a cleartext password over a connection without TLS.",
            Self::UnverifiedPeer => {
                "It asks for a cleartext password, and its certificate is not verified: sslmode=verify-full or sslrootcert \
                 would, or require_auth=password allows it."
            }
            Self::Password => "The password has a character that cannot be sent.",
            Self::NotAllowed { .. } => {
                "It asks for a method of authentication that require_auth does not allow."
            }
            Self::NeedsTls { .. } => {
                "Without TLS it has to ask for SCRAM, unless require_auth says otherwise."
            }
            Self::NoChannelBinding => "It did not bind the login to its TLS certificate.",
            Self::NotVerified | Self::Scram(_) => "It did not show that it knows the password.",
        }
    }
}

fn terminated(text: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    if text.contains(&0) {
        return Err(Error::Password);
    }
    let mut terminated = Zeroizing::new(Vec::with_capacity(text.len() + 1));
    terminated.extend_from_slice(text);
    terminated.push(0);
    Ok(terminated)
}

fn foreign(code: i32) -> &'static str {
    match code {
        KERBEROS_V5 => "Kerberos V5",
        GSS => "GSSAPI",
        _ => "SSPI",
    }
}

const SCRAM_SHA_256: &str = "SCRAM-SHA-256";
const SCRAM_SHA_256_PLUS: &str = "SCRAM-SHA-256-PLUS";

// Source: https://www.postgresql.org/docs/current/protocol-message-formats.html#PROTOCOL-MESSAGE-FORMATS-AUTHENTICATIONOK
// and the messages after it.
const OK: i32 = 0;
const KERBEROS_V5: i32 = 2;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const GSS: i32 = 7;
const SSPI: i32 = 9;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;
