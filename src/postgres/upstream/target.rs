//! `target_session_attrs`: whether a server that accepted the login is of the wanted kind. Floor 2.
//!
//! PostgreSQL 14 and later report their state before the first ReadyForQuery; older servers are asked by a query, as in
//! libpq.
//!
//! | value | matches |
//! |---|---|
//! | `any` | every server |
//! | `read-write` | neither a hot standby nor read-only by default |
//! | `read-only` | a hot standby, or read-only by default |
//! | `primary` | not a hot standby |
//! | `standby`, `prefer-standby` at first | a hot standby |
//!
//! Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-TARGET-SESSION-ATTRS>

use super::uri::TargetSessionAttrs;

/// The known state of a server; `None` until the server has reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ServerState {
    in_hot_standby: Option<bool>,
    read_only_by_default: Option<bool>,
}

/// Whether a server matches `target_session_attrs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matches {
    Yes,
    No,
    /// The server has not reported its state; this query asks for it.
    Ask(Question),
}

/// A query for the state of an older server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    ReadOnly,
    InRecovery,
}

impl Question {
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::ReadOnly => "SHOW transaction_read_only",
            Self::InRecovery => "SELECT pg_catalog.pg_is_in_recovery()",
        }
    }
}

impl ServerState {
    /// Reads the body of a ParameterStatus.
    pub(super) fn note(&mut self, body: &[u8]) {
        match body {
            b"in_hot_standby\0on\0" => self.in_hot_standby = Some(true),
            b"in_hot_standby\0off\0" => self.in_hot_standby = Some(false),
            b"default_transaction_read_only\0on\0" => self.read_only_by_default = Some(true),
            b"default_transaction_read_only\0off\0" => self.read_only_by_default = Some(false),
            _ => {}
        }
    }

    /// Records the answer to a query. An unexpected value leaves the state unknown.
    pub(super) fn answered(&mut self, question: Question, value: &[u8]) {
        match (question, value) {
            // With `on`, at least one of the two is on, and it does not matter which. With `off`, neither is.
            (Question::ReadOnly, b"on" | b"off") => {
                let on = Some(value == b"on");
                *self = Self { in_hot_standby: on, read_only_by_default: on };
            }
            (Question::InRecovery, b"t" | b"f") => self.in_hot_standby = Some(value == b"t"),
            _ => {}
        }
    }

    /// Whether a server in this state matches `wanted`.
    pub(super) fn matches(self, wanted: TargetSessionAttrs) -> Matches {
        let read_only = || match (self.in_hot_standby, self.read_only_by_default) {
            (Some(standby), Some(by_default)) => Ok(standby || by_default),
            _ => Err(Question::ReadOnly),
        };
        let standby = || self.in_hot_standby.ok_or(Question::InRecovery);
        let matches = match wanted {
            TargetSessionAttrs::Any => Ok(true),
            TargetSessionAttrs::ReadWrite => read_only().map(|read_only| !read_only),
            TargetSessionAttrs::ReadOnly => read_only(),
            TargetSessionAttrs::Primary => standby().map(|standby| !standby),
            TargetSessionAttrs::Standby | TargetSessionAttrs::PreferStandby => standby(),
        };
        match matches {
            Ok(true) => Matches::Yes,
            Ok(false) => Matches::No,
            Err(question) => Matches::Ask(question),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TargetSessionAttrs::{Any, PreferStandby, Primary, ReadOnly, ReadWrite, Standby};

    /// The state as the server reports it: in hot standby, and read-only by default.
    fn said(standby: &str, read_only: &str) -> ServerState {
        let mut state = ServerState::default();
        state.note(b"server_version\x0018.4\0");
        state.note(format!("in_hot_standby\0{standby}\0").as_bytes());
        state.note(format!("default_transaction_read_only\0{read_only}\0").as_bytes());
        state
    }

    #[test]
    fn every_word_has_the_servers_that_libpq_takes() {
        for (standby, read_only, matching) in [
            ("off", "off", [true, true, false, true, false, false]),
            ("off", "on", [true, false, true, true, false, false]),
            ("on", "off", [true, false, true, false, true, true]),
            ("on", "on", [true, false, true, false, true, true]),
        ] {
            let words = [Any, ReadWrite, ReadOnly, Primary, Standby, PreferStandby];
            for (word, matches) in words.into_iter().zip(matching) {
                let matches = if matches { Matches::Yes } else { Matches::No };
                assert_eq!(said(standby, read_only).matches(word), matches, "{word:?} {standby} {read_only}");
            }
        }
    }

    #[test]
    fn an_older_server_is_asked_what_it_does_not_tell() {
        let silent = ServerState::default();
        assert_eq!(silent.matches(Any), Matches::Yes);
        for (word, question, yes, no) in [
            (ReadWrite, Question::ReadOnly, "off", "on"),
            (ReadOnly, Question::ReadOnly, "on", "off"),
            (Primary, Question::InRecovery, "f", "t"),
            (Standby, Question::InRecovery, "t", "f"),
            (PreferStandby, Question::InRecovery, "t", "f"),
        ] {
            assert_eq!(silent.matches(word), Matches::Ask(question), "{word:?}");
            for (value, matches) in [(yes, Matches::Yes), (no, Matches::No), ("", Matches::Ask(question))] {
                let mut state = silent;
                state.answered(question, value.as_bytes());
                assert_eq!(state.matches(word), matches, "{word:?} {value}");
            }
        }
    }
}
