//! A server's error in place of a session, with its bytes unchanged. Floor 2.

use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::postgres::protocol::error_response::Fields;
use crate::postgres::protocol::plain;
use crate::secret::Secret;
use crate::socket::Address;

/// An ErrorResponse that ended a login.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The whole frame.
    pub(crate) error: Bytes,
    /// What the server sent before it that a client may receive: NegotiateProtocolVersion and, if it accepted the
    /// credential, AuthenticationOk and everything after.
    before: Bytes,
    /// The SQLSTATE; `XX000` if there is none.
    pub(crate) sqlstate: [u8; 5],
    /// Whether AuthenticationOk came before.
    pub(crate) after_authentication: bool,
    /// The address of the server that sent it.
    pub(crate) address: Option<Address>,
    suspicion: Suspicion,
    refuses_role: bool,
    subject: Subject,
    /// What the server said: one line, cleaned and truncated.
    words: String,
}

/// What the routine that raised the error checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Role,
    Database,
    Other,
}

/// Whether the credential is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suspicion {
    /// The error is known to have another cause.
    No,
    /// It may be: a pooler reports an unknown role or a wrong password like many other errors.
    Perhaps,
    /// PostgreSQL reports that it is.
    Yes,
}

impl Refusal {
    pub(super) fn read(before: Bytes, error: Bytes, after_authentication: bool) -> Self {
        // The fields are behind type and length.
        let fields = Fields::new(error.get(5..).unwrap_or_default());
        let sqlstate = fields.sqlstate().and_then(|code| code.try_into().ok()).unwrap_or(*b"XX000");
        let routine = fields.routine();
        let suspicion = suspicion(&sqlstate, routine, after_authentication);
        let refuses_role = after_authentication && refuses_role(&sqlstate, routine);
        let subject = match routine {
            Some(b"InitializeSessionUserId") => Subject::Role,
            Some(b"CheckMyDatabase") => Subject::Database,
            _ => Subject::Other,
        };
        let words = plain::words(&error);
        Self {
            words,
            error,
            before,
            sqlstate,
            after_authentication,
            address: None,
            suspicion,
            refuses_role,
            subject,
        }
    }

    /// What the client receives if the refusal is final: all that the server itself would have sent. A client that has
    /// not seen AuthenticationOk may think that the error concerns TLS, and try again without or with it.
    #[must_use]
    pub(crate) fn for_client(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(self.before.len() + self.error.len());
        message.extend_from_slice(&self.before);
        message.extend_from_slice(&self.error);
        message.freeze()
    }

    /// Whether the credential itself may be at fault: [`Refusal::blames_credential`], or an error before
    /// AuthenticationOk that is not known to have another cause.
    #[must_use]
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspicion != Suspicion::No
    }

    /// Whether the server blames the credential: 28P01, or 28000 for a role that is gone or may not log in.
    #[must_use]
    pub(crate) fn blames_credential(&self) -> bool {
        self.suspicion == Suspicion::Yes
    }

    /// Whether the server accepted the credential, but refused the role that the session asked for.
    #[must_use]
    pub(crate) fn refuses_role(&self) -> bool {
        self.refuses_role
    }

    /// Whether the error concerns the role itself, such as its connection limit, and not the server or the database.
    #[must_use]
    pub(crate) fn is_of_role(&self) -> bool {
        self.subject == Subject::Role
    }

    /// Whether the check of the database raised it, which lets clients of another database pass.
    #[must_use]
    pub(crate) fn is_of_database(&self) -> bool {
        self.subject == Subject::Database
    }

    /// Whether the server accepted the credential before it refused for another reason, as with 3D000.
    #[must_use]
    pub(crate) fn proves_credential(&self) -> bool {
        self.after_authentication && !self.is_suspect()
    }

    /// Whether TLS or its absence may be the reason: pg_hba.conf has `hostssl` and `hostnossl`.
    pub(super) fn may_be_about_tls(&self) -> bool {
        !self.after_authentication && !self.blames_credential() && self.sqlstate == *b"28000"
    }

    /// Whether the server has no connection left, for all, for the database or for the role.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.sqlstate == *b"53300"
    }

    /// Whether the server starts or stops.
    #[must_use]
    pub(crate) fn is_not_ready(&self) -> bool {
        self.sqlstate == *b"57P03"
    }

    /// Names the server that sent it. It may have been told this password, which its words do not repeat then.
    pub(super) fn sent_by(&mut self, address: &Address, password: &Secret) {
        self.address = Some(address.clone());
        self.words = password.taken_out_of(&self.words);
    }

    /// The SQLSTATE, with the name of the condition where the server as a whole gives no session, and the server's words.
    pub(crate) fn shown(&self) -> String {
        let name = match &self.sqlstate {
            b"53300" => " (too_many_connections)",
            b"57P03" => " (cannot_connect_now)",
            _ => "",
        };
        let separator = if self.words.is_empty() { "" } else { ": " };
        format!("{}{name}{separator}{}", self.sqlstate(), self.words)
    }

    /// The SQLSTATE as text.
    #[must_use]
    pub(crate) fn sqlstate(&self) -> &str {
        std::str::from_utf8(&self.sqlstate).unwrap_or("XX000")
    }
}

/// PostgreSQL sends the routine of each error. Poolers such as PgBouncer send none, and use one SQLSTATE, 08P01, for an
/// unknown role, a wrong password, and nearly everything else.
fn suspicion(sqlstate: &[u8; 5], routine: Option<&[u8]>, after_authentication: bool) -> Suspicion {
    match (sqlstate, routine) {
        (b"28P01", _) => Suspicion::Yes,
        // After the password is accepted, this routine detects a role that was dropped or may not log in. pg_hba.conf
        // refuses with 28000 too, from another routine.
        (b"28000", Some(b"InitializeSessionUserId")) => Suspicion::Yes,
        (_, None) if !after_authentication && !is_about_something_else(sqlstate) => Suspicion::Perhaps,
        _ => Suspicion::No,
    }
}

/// Whether an SQLSTATE alone shows that the credential is not the cause: it concerns a connection, a feature, a
/// parameter, a database, a privilege, resources, the server's state, its configuration or an internal error.
///
/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>
fn is_about_something_else(sqlstate: &[u8; 5]) -> bool {
    const CLASSES: [&[u8; 2]; 12] =
        [b"0A", b"22", b"25", b"3D", b"40", b"42", b"53", b"54", b"55", b"57", b"58", b"F0"];
    const CODES: [&[u8; 5]; 5] = [b"08001", b"08003", b"08004", b"08006", b"XX000"];
    CODES.contains(&sqlstate) || CLASSES.iter().any(|class| sqlstate.starts_with(*class))
}

/// `role` names a role that does not exist, or of which the user is not a member. A missing CONNECT is 42501 too.
fn refuses_role(sqlstate: &[u8; 5], routine: Option<&[u8]>) -> bool {
    match sqlstate {
        b"22023" => true,
        b"42501" => routine != Some(b"CheckMyDatabase"),
        _ => false,
    }
}

/// The server's text may name roles and databases, so it is not shown.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refusal")
            .field("sqlstate", &self.sqlstate())
            .field("after_authentication", &self.after_authentication)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}
