//! The failure of a request to Vault: its meaning, and its text for the log. Floor 2.
//!
//! The text is for logs, is at most one line, and contains no secret that was sent: of a body only the first of Vault's
//! `errors` is kept, without the request's own secrets. It is never sent to a client of the proxy.

use std::fmt;
use std::time::Duration;

use crate::error::Blame;
use crate::secret::Secret;

use super::lease::Leftover;
use super::operation::Operation;
use super::replies;

/// The meaning of a failure for the caller.
///
/// | kind | meaning | what to do |
/// |---|---|---|
/// | `Transient` | it may succeed later | repeat it later |
/// | `TimedOut` | there was no answer in time | repeat it later; a reply may have been lost |
/// | `TokenDead` | the token does not exist any more, nor do its leases | log in |
/// | `Forbidden` | the token is valid, its policy forbids the request | continue without |
/// | `Gone` | the lease, or its role in the database, does not exist any more | issue |
/// | `CannotExtend` | the lease or token is valid to its end, and cannot be renewed | rotate |
/// | `Refused` | Vault gives the same answer until its configuration changes | report it, and back off |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The network failed, Vault is overloaded, sealed or without a leader, or the failure is unknown.
    Transient,
    /// There was no answer within the bound. The outcome of the request is unknown.
    TimedOut,
    /// The token has expired or was revoked.
    TokenDead,
    /// The policy of the token forbids it.
    Forbidden,
    /// The lease is unknown or has expired, or its role in the database was dropped.
    Gone,
    /// The lease or token is valid and cannot be renewed (maximum reached, Vault role missing, not renewable).
    CannotExtend,
    /// The role is unknown, the login was refused, or the reply has no password.
    Refused,
}

impl Kind {
    /// The name for logs and the status.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::TimedOut => "timed_out",
            Self::TokenDead => "token_dead",
            Self::Forbidden => "forbidden",
            Self::Gone => "gone",
            Self::CannotExtend => "cannot_extend",
            Self::Refused => "refused",
        }
    }
}

impl From<Kind> for crate::lease::Failure {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Transient => Self::Transient,
            Kind::TimedOut => Self::TimedOut,
            Kind::TokenDead => Self::TokenDead,
            Kind::Forbidden => Self::Forbidden,
            Kind::Gone => Self::Gone,
            Kind::CannotExtend => Self::CannotExtend,
            Kind::Refused => Self::Refused,
        }
    }
}

/// A request that did not succeed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The meaning of the failure.
    pub(crate) kind: Kind,
    /// The HTTP status, if there was an answer.
    pub(crate) status: Option<u16>,
    /// Whether Vault may have carried out the request although its reply did not arrive: a grant may have been lost.
    pub(crate) outcome_unknown: bool,
    /// The lease that Vault made although the request failed. It is unused, and must be revoked.
    pub(crate) left: Option<Box<Leftover>>,
    /// The token that Vault made although the login failed. It is unused, and must be revoked.
    pub(super) unused_token: Option<Secret>,
    operation: Operation,
    reason: String,
    /// The path that was asked, without `/v1/`; empty before any request.
    path: String,
    /// The database's SQLSTATE, if Vault passes it on.
    sqlstate: Option<String>,
    blame: Blame,
    /// Set where nothing was sent, since Vault refused the same credential a while ago: it is asked again after that.
    again_in: Option<Duration>,
}

impl Failure {
    /// The failure of a request for which the caller has stopped waiting. Its outcome is unknown.
    #[must_use]
    pub(crate) fn gave_up(operation: Operation) -> Self {
        Self::local(operation, Kind::TimedOut, "no answer in time")
    }

    /// The meaning in a few fixed words, with the database's SQLSTATE if Vault passes it on.
    #[must_use]
    pub(crate) fn summary(&self) -> String {
        let kind = self.kind.as_str();
        match &self.sqlstate {
            Some(code) if self.operation == Operation::Issue && self.kind == Kind::Refused => {
                format!(
                    "{kind}: the database does not accept the role's creation_statements (SQLSTATE {code})"
                )
            }
            Some(code) => format!("{kind}: the database answers Vault with SQLSTATE {code}"),
            None => kind.to_owned(),
        }
    }

    /// The cause in words for people, one line: what Vault, the database or the network said, and where.
    #[must_use]
    pub(crate) fn reason(&self) -> String {
        let said = &self.reason;
        match (self.status, self.kind) {
            (None, _) if self.blame == Blame::Vault => format!("Vault: {said}"),
            (None, _) => said.clone(),
            (Some(403), Kind::Forbidden) => {
                format!("403 on {}: the policy lacks {}", self.path, self.operation.capability())
            }
            (Some(503), _) if said.to_lowercase().contains("is sealed") => "Vault is sealed".to_owned(),
            (Some(_), Kind::Refused) if self.operation == Operation::Issue && self.sqlstate.is_some() => {
                format!("the role's creation statements fail: {}", words_of_database(said))
            }
            (Some(_), _) if self.sqlstate.is_some() => {
                format!("the database answers Vault: {}", words_of_database(said))
            }
            (Some(status), _) if said.is_empty() => format!("{status} on {}", self.path),
            (Some(status), _) => format!("{status} on {}: {said}", self.path),
        }
    }

    /// What follows the reason where Vault was not asked this time: the reason is that of the time before. It is apart from
    /// the reason, which stays the same while the wait becomes shorter.
    #[must_use]
    pub(crate) fn outlook(&self) -> Option<String> {
        let seconds = self.again_in?.as_secs_f64().ceil();
        Some(format!("asked again in {seconds} s, at `leasehold rotate`, or once its file has changed"))
    }

    /// How long Vault is not asked, if it was not.
    #[must_use]
    pub(crate) fn again_in(&self) -> Option<Duration> {
        self.again_in
    }

    /// The same refusal, which is not asked for again before this time has passed.
    pub(super) fn not_asked_for(self, wait: Duration) -> Self {
        Self { again_in: Some(wait), ..self }
    }

    /// The party that has to act.
    #[must_use]
    pub(crate) fn blame(&self) -> Blame {
        self.blame
    }

    /// Whether Vault's certificate was rejected: a wrong CA, a wrong name, or an expired certificate.
    #[must_use]
    pub(crate) fn is_about_certificate(&self) -> bool {
        self.status.is_none() && self.reason.contains("certificate")
    }

    /// Whether what answered the begin of TLS was something else, as HTTP is.
    #[must_use]
    pub(crate) fn is_about_plain_http(&self) -> bool {
        self.status.is_none() && self.reason.contains(NO_TLS)
    }

    /// Whether the server speaks TLS, and was sent plain HTTP.
    #[must_use]
    pub(crate) fn is_about_https(&self) -> bool {
        self.status == Some(400) && self.reason == WANTS_TLS
    }

    /// A failure without an answer, or before any request. `reason` is our own text or a socket's error; it may name a
    /// file.
    pub(super) fn local(operation: Operation, kind: Kind, reason: &str) -> Self {
        Self {
            kind,
            status: None,
            outcome_unknown: kind == Kind::TimedOut,
            left: None,
            unused_token: None,
            operation,
            reason: one_line(reason, &[], LOCAL_REASON_LIMIT),
            path: String::new(),
            sqlstate: None,
            blame: Blame::Vault,
            again_in: None,
        }
    }

    /// A refusal by Vault. `said` is the first of Vault's `errors`, from which `secrets` are removed.
    pub(super) fn answered(
        operation: Operation,
        kind: Kind,
        status: u16,
        said: &str,
        secrets: &[&Secret],
    ) -> Self {
        Self {
            kind,
            status: Some(status),
            outcome_unknown: false,
            left: None,
            unused_token: None,
            operation,
            reason: one_line(&without_values(said), secrets, REASON_LIMIT),
            path: String::new(),
            sqlstate: sqlstate(said).map(str::to_ascii_uppercase),
            blame: Blame::Vault,
            again_in: None,
        }
    }

    /// An answer from something between us and Vault. Vault may have received the request, unless the status says that
    /// it was not passed on. Nothing of its body is kept.
    pub(super) fn not_vaults(operation: Operation, status: u16, body: &[u8]) -> Self {
        let has = |words: &&str| body.windows(words.len()).any(|window| window == words.as_bytes());
        let said = if status == 400 && OF_TLS_SERVERS.iter().any(has) { WANTS_TLS } else { FOREIGN };
        let not_passed_on = matches!(status, 300..=499 | 503);
        Self {
            outcome_unknown: !not_passed_on,
            ..Self::answered(operation, Kind::Transient, status, said, &[])
        }
    }

    /// The same failure, to be corrected on this machine instead of in Vault: a file or a setting.
    pub(super) fn of_ours(self) -> Self {
        Self { blame: Blame::Config, ..self }
    }

    /// The same failure, of a request for this path of the URL.
    pub(super) fn at(self, path: &str) -> Self {
        Self { path: path.trim_start_matches("/v1/").to_owned(), ..self }
    }

    /// The same failure with another meaning, which was found out later.
    pub(super) fn meaning(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same failure; Vault may have carried out the request.
    pub(super) fn with_outcome_unknown(self) -> Self {
        Self { outcome_unknown: true, ..self }
    }

    /// The same failure, with what must be given back of the reply to this operation: the lease that was made at this
    /// path, or the token of a login. The reply may be cut.
    pub(super) fn with_granted(self, body: &[u8], path: &str) -> Self {
        match self.operation {
            Operation::Issue => Self { left: replies::leftover(body, path).map(Box::new), ..self },
            Operation::LogIn => Self { unused_token: replies::unused_token(body), ..self },
            _ => self,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.operation.as_str())?;
        match (self.status, self.reason.is_empty()) {
            (Some(status), true) => write!(f, "status {status}"),
            (Some(status), false) => write!(f, "status {status}: {}", self.reason),
            (None, _) => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Failure {}

/// Foreign text as one short line: secrets are removed, control characters and runs of blanks become one blank, and it
/// is cut.
fn one_line(text: &str, secrets: &[&Secret], limit: usize) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = secret.taken_out_of(&text);
    }
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(limit).collect()
}

/// The text without what the database quotes of a statement that it could not read: a password may stand in it. Names that
/// it quotes otherwise, of a role that does not exist for example, are kept.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn without_values(said: &str) -> String {
    let is_of_statement = said.contains("at or near")
        || sqlstate(said).is_some_and(|code| code.starts_with("22") || OF_STATEMENTS.contains(&code));
    let (Some(first), Some(last)) = (said.find(QUOTES), said.rfind(QUOTES)) else { return said.to_owned() };
    if !is_of_statement {
        return said.to_owned();
    }
    // What is quoted may hold quotes itself. A text that was cut has the first one only.
    let after = if first == last { "" } else { said.get(last..).unwrap_or_default() };
    format!("{}…{}", said.get(..first).unwrap_or_default(), after.trim_start_matches(QUOTES))
}

/// What the database said, in a text of Vault's: `syntax error at or near … (42601)`.
fn words_of_database(text: &str) -> String {
    let words = text.rsplit_once("ERROR: ").map_or(text, |(_, words)| words);
    words.replace("(SQLSTATE ", "(")
}

/// How databases quote in their messages, in several languages.
const QUOTES: [char; 7] = ['"', '«', '»', '“', '”', '„', '‹'];

/// Errors in which a piece of the statement is quoted, beside those of class 22: syntax_error, invalid_name,
/// name_too_long, undefined_column.
const OF_STATEMENTS: [&str; 4] = ["42601", "42602", "42622", "42703"];

/// The text of an answer that is not Vault's.
const FOREIGN: &str =
    "the answer is not Vault's: something between here and Vault gave it, such as a load balancer";

/// The text of a 400 from a server that speaks TLS.
const WANTS_TLS: &str = "the server speaks TLS, and was sent plain HTTP: write https:// in --vault-addr";

/// What such servers say in place of Vault: those of Go's library, Vault and OpenBao among them, and nginx. Apache has other
/// words: `speaking plain HTTP to an SSL-enabled server port`.
const OF_TLS_SERVERS: [&str; 3] = [
    "HTTP request to an HTTPS server",
    "plain HTTP request was sent to HTTPS port",
    "speaking plain HTTP to",
];

/// The text about a server that answers the begin of TLS with something else.
pub(super) const NO_TLS: &str =
    "what answers does not speak TLS: have Vault listen with TLS, or write http:// in --vault-addr";

/// The most characters of the text. Any sentence of Vault's fits, and a log line stays one line.
const REASON_LIMIT: usize = 200;

/// As [`REASON_LIMIT`], for the paths of two files, of the configuration and of a file that it names, with the reason.
const LOCAL_REASON_LIMIT: usize = 600;

/// The SQLSTATE in a text of Vault's, in the case of the text.
pub(super) fn sqlstate(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let at = lower.find("sqlstate ")? + "sqlstate ".len();
    text.get(at..at + 5).filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A login that failed before a request, or because its answer is incomplete.
pub(super) fn login_failed(kind: Kind, reason: &str) -> Failure {
    Failure::local(Operation::LogIn, kind, reason)
}

#[cfg(test)]
mod tests;
