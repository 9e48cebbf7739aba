//! The server's own error in place of a session, kept byte for byte. Floor 2.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::dial::Address;
use crate::postgres::protocol::error_response::Fields;

/// An ErrorResponse that ended a login.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-error-fields.html>
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The whole frame.
    pub error: Bytes,
    /// What the server said before it that a client may have: NegotiateProtocolVersion and, where it let the credential
    /// in, AuthenticationOk and all that followed.
    before: Bytes,
    /// Its SQLSTATE; `XX000` where it has none.
    pub sqlstate: [u8; 5],
    /// Whether AuthenticationOk came before.
    pub after_authentication: bool,
    /// The address of the server that said it.
    pub address: Option<Address>,
    suspect: bool,
    /// Whether the routine that looks at the role said it.
    of_role: bool,
}

impl Refusal {
    pub(super) fn read(before: Bytes, error: Bytes, after_authentication: bool) -> Self {
        // Behind tag and length.
        let fields = Fields::new(error.get(5..).unwrap_or_default());
        let sqlstate = fields.sqlstate().and_then(|code| code.try_into().ok()).unwrap_or(*b"XX000");
        // A role that was dropped or may not log in is found out after the password was accepted, in this routine;
        // pg_hba.conf refuses with 28000 too, from another.
        let of_role = fields.routine() == Some(b"InitializeSessionUserId");
        let suspect = match &sqlstate {
            b"28P01" => true,
            b"28000" => of_role,
            _ => false,
        };
        Self { error, before, sqlstate, after_authentication, address: None, suspect, of_role }
    }

    /// What the client gets where the refusal is final: as much as it would have had from the server itself. A client
    /// that has not seen AuthenticationOk may take an error for one about TLS, and try again without or with.
    #[must_use]
    pub fn for_client(&self) -> Bytes {
        let mut message = BytesMut::with_capacity(self.before.len() + self.error.len());
        message.extend_from_slice(&self.before);
        message.extend_from_slice(&self.error);
        message.freeze()
    }

    /// Whether the credential itself may be at fault: 28P01, or 28000 of a role that is gone or may not log in.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.suspect
    }

    /// Whether it is about the role itself, as its connection limit is, and not about the server or the database.
    #[must_use]
    pub fn is_of_role(&self) -> bool {
        self.of_role
    }

    /// Whether the server took the credential before it refused for another reason, as with 3D000.
    #[must_use]
    pub fn proves_credential(&self) -> bool {
        self.after_authentication && !self.suspect
    }

    /// Whether TLS or its absence may be the reason: pg_hba.conf has `hostssl` and `hostnossl`.
    pub(super) fn may_be_about_tls(&self) -> bool {
        !self.after_authentication && !self.suspect && self.sqlstate == *b"28000"
    }

    /// The SQLSTATE as text.
    #[must_use]
    pub fn sqlstate(&self) -> &str {
        std::str::from_utf8(&self.sqlstate).unwrap_or("XX000")
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
