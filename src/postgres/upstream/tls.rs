//! TLS with the server: SSLRequest, and `sslmode` as in libpq. Floor 2.
//!
//! | `sslmode` | TLS | certificate |
//! |---|---|---|
//! | `disable` | never | |
//! | `allow` | if the server refuses without | the chain, if `sslrootcert` is given |
//! | `prefer` | if the server supports it | the same |
//! | `require` | always | the same |
//! | `verify-ca` | always | the chain |
//! | `verify-full` | always | chain and name |
//!
//! The handshake itself, the certificates and their files are in [`crate::tls`].
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::error::Error as StdError;
use std::fmt;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::uri::{RootCert, SslMode, SslNegotiation, TlsWords};
use crate::crypto;
use crate::postgres::protocol::plain::{self, OtherProtocol};
use crate::postgres::protocol::startup::ALPN;
use crate::postgres::protocol::written::ssl_request;
use crate::tls::{self, Connector, Level};

/// The TLS settings of one upstream. Clones share the certificates.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) connector: Connector,
    negotiation: SslNegotiation,
    pub(super) mode: SslMode,
}

/// The server's answer to the request for TLS.
pub(super) enum Answer {
    /// The server speaks TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// The server does not support TLS; the connection continues without it.
    No(TcpStream),
}

impl Tls {
    /// Reads the files that the parameters name, and blocks. `None`: `sslmode=disable`.
    pub(super) fn new(words: &TlsWords) -> Result<Option<Self>, FileError> {
        if words.mode == SslMode::Disable {
            return Ok(None);
        }
        let connector = Connector::new(settings(words))?;
        Ok(Some(Self { connector, negotiation: words.negotiation, mode: words.mode }))
    }

    /// Requests TLS and performs the handshake. Not cancel safe.
    pub(super) async fn start(&self, mut tcp: TcpStream, host: &str) -> Result<Answer, Error> {
        if self.negotiation == SslNegotiation::Postgres && !request(&mut tcp).await? {
            return Ok(Answer::No(tcp));
        }
        let connected = self.connector.connect(tcp, host).await;
        let stream = connected.map_err(|error| Error::of_handshake(error, self.negotiation))?;
        if self.negotiation == SslNegotiation::Direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err(Error::NotDirect);
        }
        Ok(Answer::Tls(Box::new(stream)))
    }
}

fn settings(words: &TlsWords) -> tls::Settings {
    let roots = match &words.root_cert {
        Some(RootCert::File(file)) => Some(file.clone()),
        Some(RootCert::System) | None => None,
    };
    let level = match words.mode {
        SslMode::VerifyFull => Level::ChainAndName,
        SslMode::VerifyCa => Level::Chain,
        SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require if roots.is_some() => {
            Level::Chain
        }
        SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Level::Nothing,
    };
    let (revocation_lists, client) = (words.crl.clone(), words.client.clone());
    tls::Settings { level, roots, revocation_lists, client, alpn: ALPN }
}

/// Sends SSLRequest and returns whether the server agreed.
///
/// The answer is one byte. Further bytes would be read as if they had come encrypted (CVE-2021-23222).
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

/// Reads the rest of the error, as far as it comes, and returns its text.
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

/// Why there is no TLS with the server. The text names the URI parameter that would help, if any.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// SSLRequest could not be sent, or was not answered.
    #[error("server did not answer the request for TLS")]
    Request(#[source] io::Error),
    /// The answer is neither `S` nor `N`.
    #[error("server answered the request for TLS with neither S nor N; is it a PostgreSQL server?")]
    NotPostgres,
    /// The answer belongs to another protocol.
    #[error("{0} answers at this address, and no PostgreSQL server")]
    Other(OtherProtocol),
    /// The server answered with an error, as it does if it cannot start a process. The text is not authenticated, so it
    /// is only logged (CVE-2024-10977).
    #[error("server answered the request for TLS with an error: {words}")]
    Said {
        /// One line, cleaned and truncated.
        words: String,
    },
    /// Bytes came after the answer.
    #[error("bytes came before the TLS handshake: something between here and the server adds to its traffic")]
    Stuffed,
    /// The server does not support TLS.
    #[error("server does not support TLS; sslmode=disable or sslmode=prefer would connect without")]
    NotOffered,
    /// `sslnegotiation=direct` is set, but the server is older than PostgreSQL 17 or is not PostgreSQL.
    #[error("server did not take TLS from the first byte; sslnegotiation=postgres would ask for it first")]
    NotDirect,
    /// The handshake failed.
    #[error(transparent)]
    Handshake(#[from] InWords),
}

impl Error {
    /// Whether each attempt fails in the same way until a setting or a certificate changes.
    #[must_use]
    pub(crate) fn is_lasting(&self) -> bool {
        match self {
            // The connection broke, or a server without resources answered.
            Self::Request(_) | Self::NotPostgres => false,
            Self::Handshake(InWords(error)) => error.is_lasting(),
            _ => true,
        }
    }

    /// Whether a certificate was rejected: the server's by us, or ours by the server.
    pub(super) fn is_about_certificates(&self) -> bool {
        matches!(self, Self::Handshake(InWords(error)) if error.is_about_certificates())
    }

    fn of_handshake(error: tls::Error, negotiation: SslNegotiation) -> Self {
        if let tls::Error::Handshake(failed) = &error {
            match crypto::of_rustls(failed) {
                Some(rustls::Error::NoApplicationProtocol) => return Self::NotDirect,
                None if negotiation == SslNegotiation::Direct => return Self::NotDirect,
                _ => {}
            }
        }
        Self::Handshake(InWords(error))
    }
}

/// Why the handshake failed, with the URI parameter that would help.
#[derive(Debug)]
pub(crate) struct InWords(pub(crate) tls::Error);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = match &self.0 {
            tls::Error::HostName => "sslmode=disable would connect without TLS",
            tls::Error::LeafIsCa => {
                "put that very certificate into the file of sslrootcert, or sslmode=require without sslrootcert would \
                 connect without checking it"
            }
            tls::Error::UnknownIssuer => {
                "name its CA's file with sslrootcert, or sslmode=require without sslrootcert would connect without \
                 checking it"
            }
            tls::Error::Signature(_) => {
                "was the CA made anew? name its present certificate with sslrootcert, or sslmode=require without \
                 sslrootcert would connect without checking it"
            }
            tls::Error::WrongName(_) => "sslmode=verify-ca would not compare names",
            tls::Error::Certificate(_) => "sslmode=require without sslrootcert would not check it",
            tls::Error::Revoked => {
                return f.write_str(
                    "server's certificate, or that of a CA between, is revoked by a list of sslcrl",
                );
            }
            tls::Error::NoRevocationList => {
                return f.write_str(
                    "sslcrl has no list of a CA that signed the server's certificate, so it may be revoked",
                );
            }
            tls::Error::OldRevocationList => {
                return f
                    .write_str("sslcrl's list of a CA that signed the server's certificate is out of date");
            }
            tls::Error::Version | tls::Error::NothingInCommon(_) | tls::Error::Handshake(_) => {
                return self.0.fmt(f);
            }
        };
        write!(f, "{}; {remedy}", self.0)
    }
}

impl StdError for InWords {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Why the URI's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// A file is missing or has the wrong content.
    #[error(transparent)]
    Files(tls::FileError),
    /// The system has no root certificates.
    #[error("the system has no root certificates; name a file with sslrootcert")]
    NoSystemRoots,
}

impl From<tls::FileError> for FileError {
    fn from(error: tls::FileError) -> Self {
        match error {
            tls::FileError::NoSystemRoots => Self::NoSystemRoots,
            error => Self::Files(error),
        }
    }
}

/// The maximum of bytes read of an error; PostgreSQL's has less than a hundred.
const MOST_OF_AN_ERROR: usize = 1024;
