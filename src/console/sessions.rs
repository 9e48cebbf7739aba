//! SHOW SESSIONS. Floor 5.

use super::{text, time};
use crate::postgres::protocol::backend::{Column, Type, Value};
use crate::session::status::SessionStatus;

pub(super) const COLUMNS: &[Column] = &[
    ("id", Type::Int8),
    ("client", Type::Text),
    ("user", Type::Text),
    ("database", Type::Text),
    ("application_name", Type::Text),
    ("route", Type::Text),
    ("generation", Type::Int8),
    ("role", Type::Text),
    ("lease_id", Type::Text),
    ("state", Type::Text),
    ("state_since", Type::Timestamptz),
    ("transaction_since", Type::Timestamptz),
    ("opened_at", Type::Timestamptz),
    ("upstream", Type::Text),
    ("backend_pid", Type::Int4),
    ("bytes_to_upstream", Type::Int8),
    ("bytes_to_client", Type::Int8),
];

pub(super) fn row(session: SessionStatus) -> Vec<Value> {
    let number = |number: u64| Value::Int8(i64::try_from(number).unwrap_or(i64::MAX));
    let client = session.client();
    vec![
        number(session.id),
        text(client),
        text(session.user),
        text(session.database),
        text(session.application_name),
        text(session.route),
        number(session.generation),
        text(session.role),
        text(session.lease_id),
        text(session.state.as_str().to_owned()),
        time(Some(&session.state_since)),
        time(session.transaction_since.as_deref()),
        time(Some(&session.opened_at)),
        text(session.upstream),
        session.backend_pid.map_or(Value::Null, Value::Int4),
        number(session.bytes_to_upstream),
        number(session.bytes_to_client),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::activity::SessionState;

    #[test]
    fn a_session_has_a_value_for_each_column() {
        let at = "2026-01-01T00:00:00Z".to_owned();
        let session = SessionStatus {
            id: 1,
            client_addr: None,
            client_uid: Some(7),
            client_pid: None,
            user: "app".to_owned(),
            database: "d".to_owned(),
            application_name: String::new(),
            route: "app".to_owned(),
            generation: 2,
            lease_id: "12345678".to_owned(),
            role: "v-app".to_owned(),
            upstream: "127.0.0.1:5432".to_owned(),
            backend_pid: Some(9),
            opened_at: at.clone(),
            state: SessionState::Idle,
            state_since: at,
            transaction_since: None,
            bytes_to_upstream: 3,
            bytes_to_client: 4,
        };
        let row = row(session);
        assert_eq!(row.len(), COLUMNS.len());
        assert_eq!((&row[1], &row[14]), (&text("uid 7".to_owned()), &Value::Int4(9)));
    }
}
