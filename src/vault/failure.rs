//! The failure of a request to Vault: its meaning, and its text for the log. Floor 2.
//!
//! Its text is for logs, at most one line, and holds no secret that was sent: a body is never kept, only the first
//! of Vault's `errors`, with the request's own secrets taken out. It is never shown to a client of the proxy.

use std::fmt;

use crate::error::Blame;
use crate::secret::Secret;

use super::lease::Leftover;
use super::operation::Operation;

/// The meaning of a failure for the caller.
///
/// | kind | meaning | what to do |
/// |---|---|---|
/// | `Transient` | it may work next time | ask again, later |
/// | `TimedOut` | no answer in time | ask again, later; a reply may have been lost |
/// | `TokenDead` | the token is no more, and its leases with it | log in |
/// | `Forbidden` | the token lives, its policy says no | do without |
/// | `Gone` | the lease, or what it stood for, is no more | issue |
/// | `CannotExtend` | it lives on to its end, and no longer | rotate |
/// | `Refused` | Vault gives the same answer until its configuration changes | report it, and back off |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The network, an overloaded, sealed or leaderless Vault, and whatever is not known to be something else.
    Transient,
    /// No answer within the bound; what became of the request is unknown.
    TimedOut,
    /// The token has expired or was revoked.
    TokenDead,
    /// The policy of the token forbids it.
    Forbidden,
    /// The lease is not known any more, has expired, or its role in the database was dropped.
    Gone,
    /// The lease or token lives, and cannot be renewed (maximum reached, Vault role missing, not renewable).
    CannotExtend,
    /// An unknown role, a bad login, a reply without a password.
    Refused,
}

impl Kind {
    /// The word used in logs and in the status.
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
    /// What it means.
    pub(crate) kind: Kind,
    /// The HTTP status, where there was an answer.
    pub(crate) status: Option<u16>,
    /// Whether Vault may have done what was asked although its reply did not arrive: a grant may have been lost.
    pub(crate) outcome_unknown: bool,
    /// The lease that Vault made although the request failed. It is unused, and is to be given back.
    pub(crate) left: Option<Box<Leftover>>,
    operation: Operation,
    reason: String,
    /// The database's SQLSTATE, where Vault passes one on.
    sqlstate: Option<String>,
    blame: Blame,
}

impl Failure {
    /// The failure of a request of this kind for which the caller waits no longer; its outcome is unknown.
    #[must_use]
    pub(crate) fn gave_up(operation: Operation) -> Self {
        Self::local(operation, Kind::TimedOut, "no answer in time")
    }

    /// What it means, in few fixed words, with the database's SQLSTATE where Vault passes one on.
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

    /// Who has to act.
    #[must_use]
    pub(crate) fn blame(&self) -> Blame {
        self.blame
    }

    /// Whether Vault's certificate was not taken: a wrong CA, a wrong name, out of its time.
    #[must_use]
    pub(crate) fn is_about_certificate(&self) -> bool {
        self.status.is_none() && self.reason.contains("certificate")
    }

    /// A failure without an answer, or before any question. `reason` is our own text or that of a socket; it may name a file.
    pub(super) fn local(operation: Operation, kind: Kind, reason: &str) -> Self {
        Self {
            kind,
            status: None,
            outcome_unknown: kind == Kind::TimedOut,
            left: None,
            operation,
            reason: one_line(reason, &[], LOCAL_REASON_LIMIT),
            sqlstate: None,
            blame: Blame::Vault,
        }
    }

    /// An answer that is a refusal. `said` is the first of Vault's `errors`, from which `secrets` are taken out.
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
            operation,
            reason: one_line(said, secrets, REASON_LIMIT),
            sqlstate: sqlstate(said).map(str::to_ascii_uppercase),
            blame: Blame::Vault,
        }
    }

    /// An answer that is not Vault's, but that of something in between. Vault may have been asked all the same, unless the
    /// status says that the request was not passed on.
    pub(super) fn not_vaults(operation: Operation, status: u16) -> Self {
        let said =
            "the answer is not Vault's: something between here and Vault gave it, such as a load balancer";
        let not_passed_on = matches!(status, 300..=499 | 503);
        Self {
            outcome_unknown: !not_passed_on,
            ..Self::answered(operation, Kind::Transient, status, said, &[])
        }
    }

    /// The same, where it is not Vault that has to be mended but what was written or put here: a file, a setting.
    pub(super) fn of_ours(self) -> Self {
        Self { blame: Blame::Config, ..self }
    }

    /// The same with another meaning, which was found out since.
    pub(super) fn meaning(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same, where Vault may have done what was asked.
    pub(super) fn with_outcome_unknown(self) -> Self {
        Self { outcome_unknown: true, ..self }
    }

    /// The same with the lease that the reply names.
    pub(super) fn leaving(self, left: Option<Leftover>) -> Self {
        Self { left: left.map(Box::new).or(self.left), ..self }
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

/// Text from outside as one short line: secrets out, control characters and runs of blanks to one blank, cut.
fn one_line(text: &str, secrets: &[&Secret], limit: usize) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        let secret = secret.expose();
        if !secret.is_empty() {
            text = text.replace(secret, "[redacted]");
        }
    }
    let words: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(limit).collect()
}

/// The most characters of it: any sentence of Vault's fits, and a log line stays one line.
const REASON_LIMIT: usize = 200;

/// The paths of two files, one of the configuration and one that it names, and the reason.
const LOCAL_REASON_LIMIT: usize = 600;

/// The SQLSTATE that a text of Vault's names, in the letters of the text.
pub(super) fn sqlstate(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let at = lower.find("sqlstate ")? + "sqlstate ".len();
    text.get(at..at + 5).filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// A login that failed before Vault was asked, or for what its answer lacks.
pub(super) fn login_failed(kind: Kind, reason: &str) -> Failure {
    Failure::local(Operation::LogIn, kind, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_without_secrets() {
        let token = Secret::new("hvs.secret".to_owned());
        let said = "1 error occurred:\n\t* bad \u{1b}[31mtoken hvs.secret\n\n";
        let failure = Failure::answered(Operation::Issue, Kind::Refused, 400, said, &[&token]);
        assert_eq!(failure.to_string(), "issue: status 400: 1 error occurred: * bad [31mtoken [redacted]");
    }

    #[test]
    fn a_summary_names_the_databases_word_for_its_cause_and_nothing_else_of_the_text() {
        let said = "failed to execute query: ERROR: syntax error at or near \"p4ss\" (SQLSTATE 42601)";
        let failure = Failure::answered(Operation::Issue, Kind::Refused, 500, said, &[]);
        assert_eq!(
            failure.summary(),
            "refused: the database does not accept the role's creation_statements (SQLSTATE 42601)"
        );
        let away = Failure::answered(Operation::Issue, Kind::Transient, 503, "Vault is sealed", &[]);
        assert_eq!(away.summary(), "transient");
    }

    #[test]
    fn a_secret_is_taken_out_before_the_cut() {
        let token = Secret::new("s".repeat(40));
        let said = format!("{}{}", "x".repeat(190), token.expose());
        let failure = Failure::answered(Operation::Issue, Kind::Refused, 400, &said, &[&token]);
        assert!(!failure.to_string().contains("sss"));
        assert!(failure.to_string().len() < 240);
    }

    #[test]
    fn an_empty_secret_changes_nothing() {
        let empty = Secret::new(String::new());
        let failure = Failure::answered(Operation::LogIn, Kind::Refused, 400, "no", &[&empty]);
        assert_eq!(failure.to_string(), "login: status 400: no");
    }
}
