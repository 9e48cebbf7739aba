//! Replies of OpenBao 2.7, and incomplete or wrong replies.

use super::*;

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
    assert_eq!(renewed(b"{}"), Err(Unusable::NotJson));
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
