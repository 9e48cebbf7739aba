//! Replies of OpenBao 2.7, and incomplete or wrong replies.

use super::*;
use crate::vault::lease::Leftover;

#[test]
fn a_creds_reply_is_a_grant() {
    let grant = grant(
        br#"{"request_id":"x","lease_id":"database/creds/app/abc","renewable":true,"lease_duration":60,
            "data":{"password":"p-w","username":"v-root-app"},"wrap_info":null,"warnings":null,"auth":null,
            "mount_type":"database"}"#,
        "ns1/database/creds/app",
    )
    .unwrap();
    assert_eq!(grant.username, "v-root-app");
    assert_eq!(grant.password.expose(), "p-w");
    assert_eq!(grant.ttl, Duration::from_secs(60));
    assert!(grant.renewable);
    assert_eq!(grant.lease.path("sys/leases/renew"), "ns1/sys/leases/renew");
    assert!(!format!("{grant:?}").contains("p-w"));
}

#[test]
fn the_lease_of_a_reply_that_is_of_no_use_is_read() {
    let left = |id: &str, username: &str, seconds: Option<f64>| {
        let lease = Lease::new(id.to_owned(), "d/creds/app");
        let ttl = seconds.map(Duration::from_secs_f64);
        Some(Leftover { lease, username: username.to_owned(), ttl })
    };
    let cases: &[(&str, Option<Leftover>)] = &[
        (
            r#"{"lease_id":"d/creds/app/1","lease_duration":60,"data":{"username":"v-app"}}"#,
            left("d/creds/app/1", "v-app", Some(60.0)),
        ),
        (
            r#"{ "lease_id" : "d/creds/app/1", "lease_duration": 3600.5, "x":"#,
            left("d/creds/app/1", "", Some(3600.5)),
        ),
        (r#"{"lease_id":"d/creds/app/1","lease_duration":36"#, left("d/creds/app/1", "", None)),
        (r#"{"lease_id":"d/creds/app/1","lease_duration":"soon"}"#, left("d/creds/app/1", "", None)),
        (r#"{"lease_id":"d/creds/a"#, None),
        (r#"{"lease_id":"","data":null}"#, None),
        (r#"{"lease_id":null}"#, None),
        (r#"{"data":{"password":"x \"lease_id\": y"}}"#, None),
        ("<html>504 Gateway Time-out</html>", None),
        ("", None),
    ];
    for (body, wanted) in cases {
        assert_eq!(leftover(body.as_bytes(), "d/creds/app"), *wanted, "{body}");
    }
}

#[test]
fn creds_without_a_lease_or_password_are_unusable() {
    let cases: &[(&[u8], Unusable)] = &[
        (br#"{"lease_id":"","data":{"username":"u","password":"p"}}"#, Unusable::NoLease),
        (br#"{"lease_id":null,"data":{"username":"u","password":"p"}}"#, Unusable::NoLease),
        (br#"{"lease_id":"l","data":{"username":"u","rsa_private_key":"k"}}"#, Unusable::NoPassword),
        (br#"{"lease_id":"l","data":null}"#, Unusable::NoPassword),
        (br#"{"lease_id":"l","lease_duration":"60"}"#, Unusable::OtherShape),
        (br#"{"lease_id":"l","lease_duration":60.0}"#, Unusable::OtherShape),
        (b"<html>", Unusable::NotJson),
        (b"", Unusable::NotJson),
    ];
    for (body, unusable) in cases {
        assert_eq!(grant(body, "x").err(), Some(*unusable));
    }
}

#[test]
fn a_renewal_needs_no_data() {
    let reply = br#"{"lease_id":"l","renewable":true,"lease_duration":11,"data":null,"warnings":["capped"]}"#;
    assert_eq!(renewed(reply), Ok(Renewed { ttl: Duration::from_secs(11), renewable: true }));
    assert_eq!(renewed(b"{}"), Err(Unusable::NoSpan));
}

/// A span that is left out is not that of a token without an end, which is 0.
#[test]
fn what_is_granted_has_a_span() {
    let token = br#"{"auth":{"client_token":"s.x","renewable":true}}"#;
    assert_eq!(login(token).err(), Some(Unusable::NoSpan));
    assert_eq!(renewed_token(token), Err(Unusable::NoSpan));
    assert_eq!(token_facts(br#"{"data":{"renewable":true,"type":"service"}}"#), Err(Unusable::NoSpan));
    assert_eq!(token_facts(br#"{"data":{}}"#), Err(Unusable::NoSpan));
}

#[test]
fn a_span_is_a_whole_number_that_vault_can_count() {
    let spans = [
        "-1",
        "-9223372036854775808",
        "60.0",
        "60.5",
        "6e1",
        "1000000000000000000",
        "1e400",
        "\"60\"",
        "[60]",
        "{}",
        "true",
    ];
    for span in spans {
        let lease =
            format!(r#"{{"lease_id":"l","lease_duration":{span},"data":{{"username":"u","password":"p"}}}}"#);
        let token = format!(r#"{{"auth":{{"client_token":"s.x","lease_duration":{span}}}}}"#);
        let facts = format!(r#"{{"data":{{"ttl":{span},"type":"service"}}}}"#);
        let refused = [
            grant(lease.as_bytes(), "x").err(),
            renewed(lease.as_bytes()).err(),
            login(token.as_bytes()).err(),
            renewed_token(token.as_bytes()).err(),
            token_facts(facts.as_bytes()).err(),
        ];
        assert!(refused.iter().all(Option::is_some), "{span}: {refused:?}");
    }
}

/// However deep or wide a value is that nobody asked for: it costs no stack, and no more than its bytes.
#[test]
fn a_bomb_that_is_not_read_does_no_harm_and_one_that_is_read_is_refused() {
    let bomb = ["[", "{\"a\":"].map(|open| open.repeat(200_000));
    for bomb in bomb {
        let beside = format!(r#"{{"lease_id":"l","lease_duration":9,"more":{bomb}"#);
        assert_eq!(renewed(beside.as_bytes()), Err(Unusable::NotJson));
        let within = format!(r#"{{"lease_id":{bomb}"#);
        assert!(grant(within.as_bytes(), "x").is_err() && renewed(within.as_bytes()).is_err());
        assert_eq!(leftover(within.as_bytes(), "x"), None);
    }
    let whole = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    let beside = format!(r#"{{"lease_id":"l","lease_duration":9,"more":{whole}}}"#);
    assert_eq!(renewed(beside.as_bytes()), Ok(Renewed { ttl: Duration::from_secs(9), renewable: false }));
}

#[test]
fn a_root_token_does_not_end() {
    let facts =
        token_facts(br#"{"data":{"ttl":0,"expire_time":null,"type":"service","id":"root"}}"#).unwrap();
    assert_eq!(facts.ttl, None);
    let facts = token_facts(br#"{"data":{"ttl":0,"expire_time":"2026-01-01T00:00:00Z"}}"#).unwrap();
    assert_eq!(facts.ttl, Some(Duration::ZERO));
}

#[test]
fn a_batch_token_is_told_by_its_type() {
    let auth = login(
        br#"{"auth":{"client_token":"b.x","accessor":"","lease_duration":8,"renewable":false,
            "token_type":"batch","num_uses":0,"mfa_requirement":null}}"#,
    )
    .unwrap();
    assert!(auth.facts().batch);
    assert_eq!(auth.facts().ttl, Some(Duration::from_secs(8)));
    assert_eq!(login(br#"{"auth":null}"#).err(), Some(Unusable::NoToken));
}

#[test]
fn only_vaults_own_errors_are_read() {
    assert_eq!(errors(br#"{"errors":["lease not found"]}"#), Some(vec!["lease not found".to_owned()]));
    assert_eq!(errors(br#"{"errors":null}"#), Some(vec![]));
    for foreign in [&b"<html>bad gateway</html>"[..], b"", b"{}", br#"{"errors":"no"}"#, br#"{"error":[]}"#] {
        assert_eq!(errors(foreign), None);
    }
}
