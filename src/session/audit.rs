//! The audit trail: one event at each session's begin and one at its end, each with all that tells whose it was. Floor 4.
//!
//! The events have this module's target, by which the log finds those that belong into `audit_file`; in the log they are of the level
//! `debug`. What a client sent stands in them as text of bounded length, and no secret does.

use super::registry::Session;
use crate::clock;
use crate::metrics::Closed;
use crate::socket::ClientAddress;

/// The client's side of a connection, beside its address.
pub(crate) struct Secured<'a> {
    /// `off`, or the version of TLS.
    pub(crate) tls: &'static str,
    /// What its certificate says.
    pub(crate) identity: Option<&'a dyn std::fmt::Display>,
}

/// One event: `$session`'s fields, then those that are given.
macro_rules! event {
    ($session:ident, $message:literal $(, $($field:ident).+ = $value:expr)*) => {{
        let (uid, pid) = match $session.client() {
            ClientAddress::Unix { uid, pid } => (uid, pid),
            ClientAddress::Tcp(..) | ClientAddress::Unknown => (None, None),
        };
        tracing::debug!(
            session.id = $session.id,
            client.addr = %$session.client(),
            client.uid = uid,
            client.pid = pid,
            user = $session.user(),
            database = $session.database(),
            application_name = $session.application_name(),
            route = $session.route(),
            lease.generation = $session.generation().get(),
            lease.id = $session.lease_id_tail(),
            db.user = $session.role(),
            upstream.addr = $session.upstream(),
            upstream.pid = $session.backend_pid(),
            $($($field).+ = $value,)*
            $message
        );
    }};
}

/// A client has had its first ReadyForQuery.
pub(crate) fn opened(session: &Session, secured: &Secured<'_>) {
    event!(
        session,
        "session opened",
        client.tls = secured.tls,
        client.identity = secured.identity.map(tracing::field::display)
    );
}

/// A session is over: its server has let go of it, is given up, or is ready for another client.
pub(crate) fn closed(session: &Session, cause: Closed) {
    let seen = session.activity.seen();
    let took = clock::now().since(session.opened_at());
    event!(
        session,
        "session closed",
        cause = cause.as_str(),
        bytes_to_upstream = seen.to_upstream,
        bytes_to_client = seen.to_client,
        duration_s = took.as_secs_f64()
    );
}
