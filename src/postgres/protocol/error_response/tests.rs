//! Tests ErrorResponse with examples and with arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Fields, fatal, sqlstate};
use crate::postgres::protocol::fatal::{Fatal, SqlState};

const REFUSED: &[u8] = b"SFATAL\0VFATAL\0C28P01\0Mno entry\0Fauth.c\0L1\0RInitializeSessionUserId\0\0";

#[test]
fn fatal_has_both_severities_and_its_texts() {
    let facing = Fatal {
        sqlstate: SqlState::AdminShutdown,
        message: "the end\0Cxxxxx".into(),
        detail: Some("Why."),
        hint: Some("What to do."),
    };
    let body = &b"SFATAL\0VFATAL\0C57P01\0Mthe endCxxxxx\0DWhy.\0HWhat to do.\0\0"[..];
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    assert_eq!(fatal(&facing), [b"E", &length[..], body].concat());
}

#[test]
fn fatal_leaves_out_what_is_not_said() {
    let facing = Fatal {
        sqlstate: SqlState::TooManyConnections,
        message: "too many sessions".into(),
        detail: None,
        hint: None,
    };
    let message = fatal(&facing);
    assert_eq!(&message[5..], b"SFATAL\0VFATAL\0C53300\0Mtoo many sessions\0\0");
}

#[test]
fn fields_are_found_by_their_code() {
    let fields = Fields::new(REFUSED);
    assert_eq!(fields.severity(), Some(&b"FATAL"[..]));
    assert_eq!(fields.sqlstate(), Some(&b"28P01"[..]));
    assert_eq!(fields.message(), Some(&b"no entry"[..]));
    assert_eq!(fields.routine(), Some(&b"InitializeSessionUserId"[..]));
    assert_eq!(fields.count(), 7);
}

#[test]
fn severity_is_not_the_translated_one() {
    assert_eq!(Fields::new(b"SFEHLER\0VERROR\0\0").severity(), Some(&b"ERROR"[..]));
    assert_eq!(Fields::new(b"SERROR\0C42501\0\0").severity(), Some(&b"ERROR"[..]));
}

#[test]
fn nothing_is_read_behind_the_terminator() {
    assert_eq!(sqlstate(b"SERROR\0\0C42501\0"), None);
}

proptest! {
    #[test]
    fn truncated_body_shows_its_whole_fields_only(cut in 0..REFUSED.len()) {
        let whole: Vec<_> = Fields::new(REFUSED).collect();
        let seen: Vec<_> = Fields::new(&REFUSED[..cut]).collect();
        prop_assert!(whole.starts_with(&seen));
        prop_assert_eq!(sqlstate(&REFUSED[..cut]).is_some(), cut >= 21);
    }

    #[test]
    fn no_input_panics(body in vec(prop_oneof![Just(0_u8), Just(b'C'), any::<u8>()], 0..60)) {
        let _ = sqlstate(&body);
        prop_assert!(Fields::new(&body).count() <= body.len());
    }
}
