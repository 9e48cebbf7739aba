//! `/sessions` for people. Pure. Floor 6.

use std::time::SystemTime;

use super::table::{age, clean};
use crate::admin::SessionList;
use crate::session::status::SessionStatus;
use crate::table::{fitted, give_way};

/// A table of the sessions, at most `width` characters wide as long as that leaves something to read. What gives way is in the document.
pub(super) fn render(list: &SessionList, now: SystemTime, width: usize) -> String {
    let mut rows = vec![COLUMNS.map(str::to_owned).to_vec()];
    rows.extend(list.sessions.iter().map(|session| session_row(session, now)));
    let at = |name: &str| COLUMNS.iter().position(|column| *column == name);
    let order: Vec<usize> = GIVE_WAY.iter().filter_map(|name| at(name)).collect();
    give_way(&mut rows, &order, ROOM, width);
    fitted(&rows, Some(width))
}

fn session_row(session: &SessionStatus, now: SystemTime) -> Vec<String> {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        session.id.to_string(),
        clean(&session.client()),
        clean(&session.user),
        clean(&session.database),
        or_dash(clean(&session.application_name)),
        clean(&session.route),
        session.generation.to_string(),
        clean(&session.role),
        session.backend_pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        age(&session.opened_at, now),
        session.state.as_str().to_owned(),
        age(&session.state_since, now),
        session.transaction_since.as_ref().map_or_else(|| "-".to_owned(), |since| age(since, now)),
        size(session.bytes_to_upstream),
        size(session.bytes_to_client),
    ]
}

/// A size as `pg_size_pretty` writes it: its unit is left behind at ten of the next one.
fn size(bytes: u64) -> String {
    let mut size = bytes;
    for unit in ["bytes", "kB", "MB", "GB"] {
        if size < 10 * 1024 {
            return format!("{size} {unit}");
        }
        size /= 1024;
    }
    format!("{size} TB")
}

const COLUMNS: [&str; 15] = [
    "ID",
    "CLIENT",
    "USER",
    "DATABASE",
    "APPLICATION",
    "ROUTE",
    "GEN",
    "ROLE",
    "PID",
    "AGE",
    "STATE",
    "FOR",
    "TRANSACTION",
    "SENT",
    "RECEIVED",
];
/// What is not shown first where there is no room: who it is, with which role, and what it does stays.
const GIVE_WAY: [&str; 8] = ["RECEIVED", "SENT", "GEN", "ROUTE", "TRANSACTION", "AGE", "PID", "APPLICATION"];
/// An IPv4 address with its port has 15 characters at least where the port is one of a client's.
const ROOM: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::status::tests::session;

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-03-01T12:00:00Z").unwrap()
    }

    #[test]
    fn sessions_are_a_table() {
        let list = SessionList { sessions: vec![session(7)] };
        let table = render(&list, now(), 200);
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[0],
            "ID  CLIENT           USER  DATABASE  APPLICATION  ROUTE  GEN  ROLE     PID   AGE    STATE                \
             FOR    TRANSACTION  SENT        RECEIVED"
        );
        assert_eq!(
            lines[1],
            "7   [fd00::7]:51234  app   shop      checkout     app    3    v-app-1  4711  2m 0s  idle in transaction  \
             1m 0s  1m 30s       2048 bytes  2929 kB"
        );
    }

    #[test]
    fn a_table_is_no_wider_than_it_may_be_and_says_whose_session_it_is() {
        let role = "v-approle-app-kfkBw1bz1WtqLpqqoUZJ-1796144318".to_owned();
        let long = "a very long name that somebody has chosen".to_owned();
        let odd = SessionStatus { role, database: long.clone(), application_name: long, ..session(12_345) };
        let list = SessionList { sessions: vec![session(7), odd] };
        for width in [64, 80, 100, 120, 150] {
            let table = render(&list, now(), width);
            assert!(table.lines().all(|line| line.chars().count() <= width), "{width}: {table}");
            for column in ["ID", "CLIENT", "USER", "DATABASE", "ROLE", "STATE", "FOR"] {
                assert!(table.contains(column), "{width}: {table}");
            }
        }
        let table = render(&SessionList { sessions: vec![session(7)] }, now(), 100);
        assert_eq!(
            table.lines().last(),
            Some(
                "7   [fd00::7]:51234  app   shop      checkout     v-app-1  4711  2m 0s  idle in transaction  1m 0s"
            ),
        );
    }

    #[test]
    fn what_a_client_sent_does_not_move_the_cursor() {
        let odd = SessionStatus { application_name: "a\x1b[2J".to_owned(), ..session(7) };
        assert!(render(&SessionList { sessions: vec![odd] }, now(), 200).contains("a?[2J"));
    }

    #[test]
    fn sizes_are_those_of_pg_size_pretty() {
        assert_eq!([0, 10_239, 10_240, 3_000_000].map(size), ["0 bytes", "10239 bytes", "10 kB", "2929 kB"]);
        assert_eq!(size(u64::MAX), "16777215 TB");
    }
}
