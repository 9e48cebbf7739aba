//! Why a server lets no session in, and what to do about it. Floor 6.

use super::{HostCheck, NoSession};
use crate::check::finding::{Finding, Outcome};
use crate::error::Chain;
use crate::postgres::protocol::auth;
use crate::postgres::protocol::error_response::Fields;
use crate::postgres::upstream::refusal::Refusal;
use crate::postgres::upstream::tls;
use crate::postgres::upstream::{Fault, LoginError, Turn};
use crate::tls::Error as TlsError;

impl HostCheck {
    /// What a login that failed says of the server, and of the role.
    pub(super) fn refused(&self, turn: Turn, error: &NoSession) -> Finding {
        match error {
            NoSession::Startup(_) => Finding::error(
                "server",
                Chain(error).to_string(),
                "shorten --set-role or --probe-database, or mend username_template of the role in Vault",
            ),
            NoSession::Login(error) => self.login_failed(turn, error),
        }
    }

    fn login_failed(&self, turn: Turn, error: &LoginError) -> Finding {
        let name = self.upstream.host_name(turn.host());
        let detail = format!("{name}: {}", Chain(error));
        match error {
            LoginError::Unreachable(_) | LoginError::TimedOut { .. } => Finding::error(
                "server",
                detail,
                "is PostgreSQL up, is --upstream its address, and does the network let us through?",
            ),
            LoginError::Tls(tls::Error::Handshake(tls::InWords(TlsError::NothingInCommon(_)))) => {
                Finding::error(
                    "tls",
                    detail,
                    "let ssl_min_protocol_version, ssl_ciphers and ssl_groups (ssl_ecdh_curve before 18) of the server \
                 admit TLS 1.3, or issue its certificate on P-256",
                )
            }
            LoginError::Tls(tls::Error::Other(_)) | LoginError::Protocol(Fault::Other(_)) => {
                Finding::error("server", detail, "write the host and port of PostgreSQL in --upstream")
            }
            LoginError::Tls(tls::Error::Said { .. }) | LoginError::Said { .. } => Finding::error(
                "server",
                detail,
                "the server's machine may be out of processes or memory: see the server's log there",
            ),
            LoginError::Tls(tls::Error::NotOffered) => Finding::error(
                "tls",
                detail,
                "let the server have TLS (ssl = on), or write sslmode=disable in --upstream, as in --upstream \
                 'postgresql://HOST/?sslmode=disable'",
            ),
            LoginError::Tls(_) => Finding::error(
                "tls",
                detail,
                "mend the certificate, name its CA by sslrootcert in --upstream, or set there the word that is named",
            ),
            LoginError::Refused(refusal) => self.server_said(name, refusal),
            LoginError::Auth(auth::Error::UnverifiedPeer) => Finding::error(
                "server",
                detail,
                "set sslmode=verify-full or sslrootcert in --upstream, so that the password goes to no other; or \
                 require_auth=password there, to send it to whoever answers",
            ),
            LoginError::Auth(_)
            | LoginError::NoKeys(_)
            | LoginError::Protocol(_)
            | LoginError::Unsuitable(_)
            | LoginError::Closed
            | LoginError::Lost(_) => Finding::error(
                "server",
                detail,
                "see the server's log; is it PostgreSQL itself, with SCRAM or md5?",
            ),
        }
    }

    fn server_said(&self, name: &str, refusal: &Refusal) -> Finding {
        let message = Fields::new(refusal.error.get(5..).unwrap_or_default()).message().unwrap_or_default();
        let code = refusal.sqlstate();
        let detail = format!("{name}: {code} {}", String::from_utf8_lossy(message));
        let database = &self.database;
        match code {
            _ if refusal.is_suspect() => Finding::error(
                "role",
                detail,
                "the role cannot log in: creation_statements must say LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}', \
                 and no other time; \
                 and the upstream must be the cluster that Vault makes roles on, with a clock like Vault's",
            ),
            "28000" => Finding::error(
                "pg_hba",
                detail,
                "add a line to pg_hba.conf: hostssl all +<group of the role> <our address> scram-sha-256 (host without TLS); then reload",
            ),
            // Where it is only PostgreSQL's own, sessions go to others.
            "3D000" => Finding {
                outcome: if self.is_named { Outcome::Error } else { Outcome::Warning },
                ..Finding::warning(
                    "database",
                    detail,
                    format!(
                        "there is no database {database}: create it, or name the app's by --probe-database or in --upstream"
                    ),
                )
            },
            "42501" => Finding::warning(
                "database",
                detail,
                format!(
                    "GRANT CONNECT ON DATABASE {database} to the group, or name the app's by --probe-database"
                ),
            ),
            // The limit of the role itself; that of the server and of a database come from other routines.
            "53300" if refusal.is_of_role() => Finding::error(
                "role",
                detail,
                "creation_statements give the role a CONNECTION LIMIT that leaves no session: raise it, or leave it out (-1)",
            ),
            "53300" => Finding::error(
                "server",
                detail,
                "raise max_connections of the server (or CONNECTION LIMIT of the database), close sessions, or let fewer come \
                 by --max-sessions",
            ),
            _ => Finding::error("server", detail, "the server's own words and its log tell more"),
        }
    }
}
