//! Which methods a server may ask for, and what is answered.

use super::*;

#[test]
fn trust_needs_no_challenge() {
    let bench = Bench::new("pencil");
    assert!(matches!(bench.begin(terms(Transport::Local)).handle(&request(OK, b"")).unwrap(), Step::Done));
}

#[test]
fn cleartext_goes_only_over_tls_or_a_unix_socket() {
    let bench = Bench::new("pencil");
    for transport in [tls(), Transport::Local] {
        let (message, next) = sent(bench.begin(terms(transport)).handle(&request(CLEARTEXT, b"")).unwrap());
        assert_eq!(message, b"pencil\0");
        assert!(matches!(next.handle(&request(OK, b"")).unwrap(), Step::Done));
    }
    let written = Terms { require_auth: "password".parse().unwrap(), ..terms(Transport::Plain) };
    let outcome = bench.begin(written).handle(&request(CLEARTEXT, b""));
    assert!(matches!(outcome, Err(Error::Cleartext)));
}

#[test]
fn cleartext_goes_to_a_server_that_is_not_verified_only_where_it_is_written() {
    let bench = Bench::new("pencil");
    let unverified = || terms(Transport::Tls { end_point: Some(vec![7; 32]), verified: false });
    let outcome = bench.begin(unverified()).handle(&request(CLEARTEXT, b""));
    assert!(matches!(outcome, Err(Error::UnverifiedPeer)));
    for list in ["password", "!md5"] {
        let written = Terms { require_auth: list.parse().unwrap(), ..unverified() };
        let (message, _) = sent(bench.begin(written).handle(&request(CLEARTEXT, b"")).unwrap());
        assert_eq!(message, b"pencil\0");
    }
    let (first, _) = sent(bench.begin(unverified()).handle(&both_mechanisms()).unwrap());
    assert!(first.starts_with(b"SCRAM-SHA-256-PLUS\0"));
}

#[test]
fn md5_is_answered_with_the_salted_hash() {
    let bench = Bench::new("pencil");
    let (message, _) =
        sent(bench.begin(terms(Transport::Local)).handle(&request(MD5, &[1, 2, 3, 4])).unwrap());
    let expected = md5_hash(b"alice", b"pencil", [1, 2, 3, 4]);
    assert_eq!(message, [expected.as_bytes(), b"\0"].concat());
}

#[test]
fn require_auth_refuses_what_it_leaves_out() {
    let bench = Bench::new("pencil");
    for (list, code, fine) in [
        ("scram-sha-256", OK, false),
        ("scram-sha-256", MD5, false),
        ("!md5,!none", OK, false),
        ("!md5", OK, true),
        ("none,md5", OK, true),
        ("gss", OK, false),
    ] {
        let terms = Terms { require_auth: list.parse().unwrap(), ..terms(tls()) };
        let outcome = bench.begin(terms).handle(&request(code, &[0; 4]));
        assert_eq!(!matches!(outcome, Err(Error::NotAllowed { .. })), fine, "{list} {code}");
    }
    for list in ["", "md5,!none", "md5,md5", "MD5", "md5,"] {
        assert!(list.parse::<RequireAuth>().is_err(), "{list}");
    }
}

#[test]
fn without_tls_a_server_has_to_know_the_password_unless_it_is_written_otherwise() {
    let bench = Bench::new("pencil");
    let begin = |terms: Terms, code| bench.begin(terms).handle(&request(code, &[0; 4]));
    for code in [OK, MD5, CLEARTEXT] {
        assert!(matches!(begin(terms(Transport::Plain), code), Err(Error::NeedsTls { .. })), "{code}");
        assert!(begin(terms(tls()), code).is_ok() && begin(terms(Transport::Local), code).is_ok(), "{code}");
    }
    let written = Terms { require_auth: "md5,none".parse().unwrap(), ..terms(Transport::Plain) };
    assert!(begin(written.clone(), OK).is_ok() && begin(written, MD5).is_ok());
}

#[test]
fn kerberos_is_named_as_unsupported() {
    let bench = Bench::new("pencil");
    for code in [KERBEROS_V5, GSS, SSPI] {
        let outcome = bench.begin(terms(tls())).handle(&request(code, b""));
        assert!(matches!(outcome, Err(Error::Unsupported { .. })));
    }
    let outcome = bench.begin(terms(tls())).handle(&request(SASL, b"OAUTHBEARER\0\0"));
    assert!(matches!(outcome, Err(Error::Unsupported { .. })));
}
