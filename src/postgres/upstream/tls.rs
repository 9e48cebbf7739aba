//! TLS to the server: the request for it, and `sslmode` as libpq means it. Floor 2.
//!
//! | `sslmode` | TLS | certificate |
//! |---|---|---|
//! | `disable` | never | |
//! | `allow` | if the server refuses without | the chain, where `sslrootcert` is given |
//! | `prefer` | if the server can | the same |
//! | `require` | always | the same |
//! | `verify-ca` | always | the chain |
//! | `verify-full` | always | chain and name |
//!
//! In every mode the handshake's signature must fit the certificate shown.
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-ssl.html>

mod certificate;
mod files;
mod name;
mod revocation;
#[cfg(test)]
mod tests;
mod verify;

use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::CertificateError;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::uri::{SslMode, SslNegotiation, TlsWords};
use crate::crypto;
use crate::postgres::protocol::plain::{self, OtherProtocol};
use crate::postgres::protocol::startup::ssl_request;
use files::Certificates;
use verify::Flaw;

pub(crate) use certificate::end_point;
pub(crate) use files::FileError;

/// How to speak TLS with one upstream. Its clones have the same certificates.
#[derive(Clone)]
pub(super) struct Tls {
    shared: Arc<Shared>,
    negotiation: SslNegotiation,
    pub(super) mode: SslMode,
}

struct Shared {
    words: TlsWords,
    in_force: RwLock<Arc<Certificates>>,
    rereads: Mutex<Rereads>,
}

/// Reads of the certificates because one was not taken.
#[derive(Default)]
struct Rereads {
    /// The latest, while it hangs: no other is begun beside it.
    under_way: Option<JoinHandle<Option<Certificates>>>,
    /// When one was done, or was waited for in vain.
    done_at: Option<Instant>,
}

/// The certificates that were in force at some time.
pub(super) struct InForce(Arc<Certificates>);

/// What the server made of the request for TLS.
pub(super) enum Answer {
    /// It speaks TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// It does not; the connection goes on without.
    No(TcpStream),
}

impl Tls {
    /// Reads the files that the words name. Blocks on them. `None`: `sslmode=disable`.
    pub(super) fn new(words: &TlsWords) -> Result<Option<Self>, FileError> {
        if words.mode == SslMode::Disable {
            return Ok(None);
        }
        let in_force = RwLock::new(Arc::new(Certificates::read(words)?));
        let shared = Shared { words: words.clone(), in_force, rereads: Mutex::default() };
        Ok(Some(Self { shared: Arc::new(shared), negotiation: words.negotiation, mode: words.mode }))
    }

    /// The certificates that a handshake is made with now.
    pub(super) fn in_force(&self) -> InForce {
        InForce(Arc::clone(&self.shared.in_force.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Whether a connection that the server breaks off without a word may be one that did not take our certificate: its
    /// alert is lost where it closes before it has read all that we sent.
    pub(super) fn shows_client(&self) -> bool {
        self.in_force().0.shows_client()
    }

    /// Whether other certificates than `used` are in force, after the files were read again: at most once in
    /// [`REREAD_EVERY`], and waited for no longer than [`REREAD_WITHIN`]. Cancel safe.
    pub(super) async fn has_other_than(&self, used: &InForce) -> bool {
        self.reread(used).await;
        self.is_other_than(used)
    }

    fn is_other_than(&self, used: &InForce) -> bool {
        !Arc::ptr_eq(&self.in_force().0, &used.0)
    }

    async fn reread(&self, used: &InForce) {
        let mut rereads = self.shared.rereads.lock().await;
        if self.is_other_than(used) || rereads.done_at.is_some_and(|at| at.elapsed() < REREAD_EVERY) {
            return;
        }
        let reading = rereads.under_way.get_or_insert_with(|| {
            let (shared, before) = (Arc::clone(&self.shared), self.in_force().0);
            spawn_blocking(move || before.reread(&shared.words))
        });
        let read = timeout(REREAD_WITHIN, reading).await;
        rereads.done_at = Some(Instant::now());
        let Ok(read) = read else {
            tracing::warn!("reading the certificate files for the upstream server again takes too long");
            return;
        };
        rereads.under_way = None;
        if let Ok(Some(fresh)) = read {
            tracing::info!(
                "the certificate files for the upstream server were read again: they have changed"
            );
            *self.shared.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
    }

    /// Asks for TLS and shakes hands. Not cancel safe.
    pub(super) async fn start(&self, mut tcp: TcpStream, host: &str) -> Result<Answer, Error> {
        if self.negotiation == SslNegotiation::Postgres && !request(&mut tcp).await? {
            return Ok(Answer::No(tcp));
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HostName)?;
        let connector = TlsConnector::from(self.in_force().0.config(host));
        let stream = Box::pin(connector.connect(name, tcp))
            .await
            .map_err(|error| Error::of_handshake(error, self.negotiation))?;
        if self.negotiation == SslNegotiation::Direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Error::NotDirect);
        }
        Ok(Answer::Tls(Box::new(stream)))
    }
}

/// Sends SSLRequest; whether the server agreed.
///
/// The answer is one byte. More than that would be read as if it had come encrypted (CVE-2021-23222).
async fn request(tcp: &mut TcpStream) -> Result<bool, Error> {
    tcp.write_all(&ssl_request()).await.map_err(Error::Request)?;
    let mut answer = Vec::with_capacity(MOST_OF_AN_ERROR);
    if tcp.read_buf(&mut answer).await.map_err(Error::Request)? == 0 {
        return Err(Error::Request(io::ErrorKind::UnexpectedEof.into()));
    }
    if let Some(other) = OtherProtocol::of(&answer) {
        return Err(Error::Other(other));
    }
    match answer.as_slice() {
        [b'S'] => Ok(true),
        [b'N'] => Ok(false),
        [b'S' | b'N', ..] => Err(Error::Stuffed),
        [b'E', ..] => Err(Error::Said { words: rest_of_error(tcp, answer).await }),
        _ => Err(Error::NotPostgres),
    }
}

/// Reads the error on, as far as it comes; and its words.
async fn rest_of_error(tcp: &mut TcpStream, mut answer: Vec<u8>) -> String {
    let complete = |answer: &[u8]| answer.get(5..).is_some_and(|rest| rest.contains(&0));
    while !complete(&answer) && answer.len() < MOST_OF_AN_ERROR {
        match tcp.read_buf(&mut answer).await {
            Ok(read) if read > 0 => {}
            Ok(_) | Err(_) => break,
        }
    }
    plain::words(&answer)
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("words", &self.shared.words).finish_non_exhaustive()
    }
}

/// Why there is no TLS with the server; each says which word would mend it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// SSLRequest could not be sent, or was not answered.
    #[error("server did not answer the request for TLS")]
    Request(#[source] io::Error),
    /// An answer that is neither yes nor no.
    #[error("server answered the request for TLS with neither S nor N; is it a PostgreSQL server?")]
    NotPostgres,
    /// An answer of another protocol.
    #[error("{0} answers at this address, and no PostgreSQL server")]
    Other(OtherProtocol),
    /// An error in place of an answer, as of a server that cannot start a process. Nothing vouches for its words, so they
    /// are for the log alone (CVE-2024-10977).
    #[error("server answered the request for TLS with an error: {words}")]
    Said {
        /// One line, cleaned and cut.
        words: String,
    },
    /// Bytes behind the answer.
    #[error("bytes came before the TLS handshake: something between here and the server adds to its traffic")]
    Stuffed,
    /// It does not speak TLS.
    #[error("server does not support TLS; sslmode=disable or sslmode=prefer would connect without")]
    NotOffered,
    /// A host that can stand in no certificate.
    #[error(
        "host is neither a DNS name nor an address, so TLS cannot name it; sslmode=disable would connect without TLS"
    )]
    HostName,
    /// `sslnegotiation=direct` with a server older than PostgreSQL 17, or none of PostgreSQL.
    #[error("server did not take TLS from the first byte; sslnegotiation=postgres would ask for it first")]
    NotDirect,
    /// The classic self-signed server certificate, not in `sslrootcert`.
    #[error(
        "server's certificate is its own CA; put that very certificate into the file of sslrootcert, \
         or sslmode=require without sslrootcert would connect without checking it"
    )]
    LeafIsCa,
    /// Of X.509 version 1, in whatever mode.
    #[error(
        "server's certificate is of X.509 version 1; issue one of version 3, with a subject alternative name"
    )]
    Version,
    /// Signed by a stranger.
    #[error(
        "server's certificate is signed by none of the roots; name its CA's file with sslrootcert, \
         or sslmode=require without sslrootcert would connect without checking it"
    )]
    UnknownIssuer,
    /// Signed by a namesake of a root: nearly always a CA that was made anew.
    #[error(
        "server's certificate is signed with another key than that of the root by its issuer's name; was the CA made \
         anew? name its present certificate with sslrootcert, or sslmode=require without sslrootcert would connect \
         without checking it"
    )]
    Signature(#[source] rustls::Error),
    /// Of another host. Names in the certificate's common name do not count.
    #[error(
        "server's certificate has no subject alternative name for this host; \
         sslmode=verify-ca would not compare names"
    )]
    WrongName(#[source] rustls::Error),
    /// In a list of `sslcrl`.
    #[error("server's certificate, or that of a CA between, is revoked by a list of sslcrl")]
    Revoked,
    /// `sslcrl` says nothing of a certificate.
    #[error("sslcrl has no list of a CA that signed the server's certificate, so it may be revoked")]
    NoRevocationList,
    /// The list in `sslcrl` is old.
    #[error("sslcrl's list of a CA that signed the server's certificate is out of date")]
    OldRevocationList,
    /// Another fault of the certificate.
    #[error("server's certificate is not valid; sslmode=require without sslrootcert would not check it")]
    Certificate(#[source] rustls::Error),
    /// They speak TLS in different ways.
    #[error(
        "server and leasehold have no algorithm or version of TLS in common; leasehold speaks TLS 1.2 and 1.3, and \
         keeps out what is known to be weak"
    )]
    NothingInCommon(#[source] rustls::Error),
    /// The handshake failed.
    #[error("TLS handshake failed")]
    Handshake(#[source] io::Error),
}

impl Error {
    /// Whether the next attempt will fail in the same way, as long as nobody changes a setting or a certificate.
    #[must_use]
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            // The connection broke, or a server without room answered.
            Self::Request(_) | Self::NotPostgres => false,
            Self::Handshake(error) => error.kind() == io::ErrorKind::InvalidData,
            _ => true,
        }
    }

    /// Whether a certificate was not taken: the server's by us, or ours by the server.
    pub(super) fn is_about_certificates(&self) -> bool {
        match self {
            Self::LeafIsCa
            | Self::Version
            | Self::UnknownIssuer
            | Self::Signature(_)
            | Self::WrongName(_)
            | Self::Revoked
            | Self::NoRevocationList
            | Self::OldRevocationList
            | Self::Certificate(_) => true,
            Self::NothingInCommon(error) => crypto::is_about_certificates(error),
            Self::Handshake(error) => crypto::of_rustls(error).is_some_and(crypto::is_about_certificates),
            _ => false,
        }
    }

    /// Unwraps what rustls found wrong with the certificate.
    fn of_handshake(error: io::Error, negotiation: SslNegotiation) -> Self {
        let rustls = crypto::of_rustls(&error);
        match (rustls, negotiation) {
            (Some(rustls), _) if crypto::is_nothing_in_common(rustls) => {
                Self::NothingInCommon(rustls.clone())
            }
            (Some(rustls::Error::InvalidCertificate(fault)), _) => Self::of_certificate(fault),
            (Some(rustls::Error::NoApplicationProtocol), _) | (None, SslNegotiation::Direct) => {
                Self::NotDirect
            }
            _ => Self::Handshake(error),
        }
    }

    fn of_certificate(fault: &CertificateError) -> Self {
        match fault {
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::BadSignature => Self::Signature(fault.clone().into()),
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::NoRevocationList,
            CertificateError::ExpiredRevocationList
            | CertificateError::ExpiredRevocationListContext { .. } => Self::OldRevocationList,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Self::WrongName(fault.clone().into())
            }
            CertificateError::Other(other) => match other.0.downcast_ref() {
                Some(Flaw::Ca) => Self::LeafIsCa,
                Some(Flaw::Version) => Self::Version,
                None => Self::Certificate(fault.clone().into()),
            },
            _ => Self::Certificate(fault.clone().into()),
        }
    }
}

/// How often the certificate files are read again while a certificate is not taken.
const REREAD_EVERY: Duration = Duration::from_secs(5);
/// How long a login waits for them; a file system that hangs may take for ever.
const REREAD_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of an error that are read; PostgreSQL's is under a hundred.
const MOST_OF_AN_ERROR: usize = 1024;

/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>
const ALPN: &[u8] = b"postgresql";
