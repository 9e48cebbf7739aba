//! Tests the conversation against RFC 7677's vector, `postgres_protocol` and a scripted server.

mod methods;

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use postgres_protocol::authentication::sasl;
use proptest::prelude::*;

use super::scram::Keys;
use super::*;

fn terms(transport: Transport) -> Terms {
    Terms { transport, channel_binding: ChannelBinding::Prefer, require_auth: RequireAuth::default() }
}

fn tls() -> Transport {
    Transport::Tls { end_point: Some(vec![7; 32]), verified: true }
}

fn request(code: i32, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), data].concat()
}

fn both_mechanisms() -> Vec<u8> {
    request(SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0")
}

fn sent(step: Step<'_>) -> (Vec<u8>, Authentication<'_>) {
    match step {
        Step::Derive { derivation, next } => sent(next.derived(derivation.run()).unwrap()),
        Step::Send { message, next } => {
            assert_eq!(message[0], b'p');
            let len = u32::from_be_bytes(message[1..5].try_into().unwrap());
            assert_eq!(len as usize, message.len() - 1);
            (message[5..].to_vec(), next)
        }
        other => panic!("nothing to send: {other:?}"),
    }
}

/// Holds the password that a conversation borrows.
struct Bench {
    password: Secret,
}

impl Bench {
    fn new(password: &str) -> Self {
        Self { password: Secret::new(password.to_owned()) }
    }

    fn begin(&self, terms: Terms) -> Authentication<'_> {
        Authentication::new("alice", &self.password, [9; NONCE_LEN], terms)
    }
}

/// The server's side of SCRAM, written from the RFC.
struct Server {
    salted: [u8; 32],
    first: String,
}

impl Server {
    fn new(password: &str, client_nonce: &str) -> Self {
        let mut salted = [0; 32];
        aws_lc_rs::pbkdf2::derive(
            aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256,
            NonZeroU32::new(4096).unwrap(),
            b"0123456789abcdef",
            password.as_bytes(),
            &mut salted,
        );
        let salt = BASE64.encode("0123456789abcdef");
        Self { salted, first: format!("r={client_nonce}SERVER,s={salt},i=4096") }
    }

    fn key(&self, label: &[u8]) -> Vec<u8> {
        hmac(&self.salted, label)
    }

    /// Checks the client's proof and returns the server-final-message.
    fn finish(&self, client_first: &str, client_final: &str) -> String {
        let bare = client_first.splitn(3, ',').nth(2).unwrap();
        let (without_proof, proof) = client_final.rsplit_once(",p=").unwrap();
        let message = format!("{bare},{},{without_proof}", self.first);
        let stored =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.key(b"Client Key")).as_ref().to_vec();
        let signature = hmac(&stored, message.as_bytes());
        let expected: Vec<u8> =
            self.key(b"Client Key").iter().zip(&signature).map(|(key, bit)| key ^ bit).collect();
        assert_eq!(BASE64.decode(proof).unwrap(), expected, "client's proof");
        format!("v={}", BASE64.encode(hmac(&self.key(b"Server Key"), message.as_bytes())))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    aws_lc_rs::hmac::sign(&aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key), message)
        .as_ref()
        .to_vec()
}

/// Returns the mechanism and the client-first-message of a SASLInitialResponse.
fn initial(message: &[u8]) -> (String, String) {
    let end = message.iter().position(|byte| *byte == 0).unwrap();
    let len = u32::from_be_bytes(message[end + 1..end + 5].try_into().unwrap());
    assert_eq!(len as usize, message.len() - end - 5);
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&message[..end]), text(&message[end + 5..]))
}

/// A nonce has no comma, but may contain `r=`.
fn nonce_of(client_first: &str) -> &str {
    client_first.rsplit_once(",r=").unwrap().1
}

#[test]
fn scram_binds_to_the_certificate_and_verifies_the_server() {
    let bench = Bench::new("pencil");
    let (message, next) = sent(bench.begin(terms(tls())).handle(&both_mechanisms()).unwrap());
    let (mechanism, first) = initial(&message);
    assert_eq!(mechanism, "SCRAM-SHA-256-PLUS");
    assert!(first.starts_with("p=tls-server-end-point,,n=,r="));

    let server = Server::new("pencil", nonce_of(&first));
    let (last, next) = sent(next.handle(&request(SASL_CONTINUE, server.first.as_bytes())).unwrap());
    let last = String::from_utf8(last).unwrap();
    let bound = BASE64.decode(last.split(',').next().unwrap().strip_prefix("c=").unwrap()).unwrap();
    assert_eq!(bound, [b"p=tls-server-end-point,,".as_slice(), &[7; 32]].concat());

    let verdict = server.finish(&first, &last);
    let Step::Wait(next) = next.handle(&request(SASL_FINAL, verdict.as_bytes())).unwrap() else {
        panic!("final message is not answered")
    };
    assert!(matches!(next.handle(&request(OK, b"")).unwrap(), Step::Done));
}

#[test]
fn gs2_flag_follows_transport_offer_and_policy() {
    let plain_offer = request(SASL, b"SCRAM-SHA-256\0\0");
    let none = Transport::Tls { end_point: None, verified: true };
    let cases = [
        (tls(), ChannelBinding::Prefer, both_mechanisms(), Some("p=tls-server-end-point,,")),
        (tls(), ChannelBinding::Prefer, plain_offer.clone(), Some("y,,")),
        (tls(), ChannelBinding::Disable, both_mechanisms(), Some("n,,")),
        (tls(), ChannelBinding::Require, plain_offer.clone(), None),
        (none.clone(), ChannelBinding::Prefer, both_mechanisms(), Some("n,,")),
        (none.clone(), ChannelBinding::Prefer, plain_offer.clone(), Some("n,,")),
        (none, ChannelBinding::Require, both_mechanisms(), None),
        (Transport::Plain, ChannelBinding::Prefer, plain_offer.clone(), Some("n,,")),
        (Transport::Local, ChannelBinding::Require, plain_offer, None),
    ];
    for (transport, channel_binding, offer, expected) in cases {
        let bench = Bench::new("pencil");
        let terms = Terms { channel_binding, ..terms(transport.clone()) };
        let step = bench.begin(terms).handle(&offer);
        match expected {
            None => assert!(matches!(step, Err(Error::NoChannelBinding)), "{transport:?}"),
            Some(flag) => {
                let (_, first) = initial(&sent(step.unwrap()).0);
                assert!(first.starts_with(flag), "{transport:?} {channel_binding:?}: {first}");
            }
        }
    }
}

#[test]
fn ok_is_not_believed_before_the_server_has_proved_itself() {
    let bench = Bench::new("pencil");
    let (message, next) = sent(bench.begin(terms(tls())).handle(&both_mechanisms()).unwrap());
    assert!(matches!(next.handle(&request(OK, b"")), Err(Error::NotVerified)));

    let (_, next) = sent(bench.begin(terms(tls())).handle(&both_mechanisms()).unwrap());
    let server = Server::new("pencil", nonce_of(&initial(&message).1));
    let (_, next) = sent(next.handle(&request(SASL_CONTINUE, server.first.as_bytes())).unwrap());
    assert!(matches!(next.handle(&request(OK, b"")), Err(Error::NotVerified)));
}

#[test]
fn a_server_that_does_not_know_the_password_is_refused() {
    let bench = Bench::new("pencil");
    let (message, next) = sent(bench.begin(terms(tls())).handle(&both_mechanisms()).unwrap());
    let server = Server::new("pencil", nonce_of(&initial(&message).1));
    let (_, next) = sent(next.handle(&request(SASL_CONTINUE, server.first.as_bytes())).unwrap());
    let forged = format!("v={}", BASE64.encode([0; 32]));
    let outcome = next.handle(&request(SASL_FINAL, forged.as_bytes()));
    assert!(matches!(outcome, Err(Error::Scram(scram::Error::ServerSignature))));
}

#[test]
fn hostile_first_messages_are_refused() {
    let ours = BASE64.encode([9; NONCE_LEN]);
    let cases = [
        (format!("r={ours},s=QUJD,i=4096"), scram::Error::Nonce),
        ("r=other,s=QUJD,i=4096".to_owned(), scram::Error::Nonce),
        (format!("r={ours}x,s=QUJD,i=0"), scram::Error::Malformed),
        (format!("r={ours}x,s=QUJD,i=5000001"), scram::Error::Iterations { asked: 5_000_001 }),
        (format!("r={ours}x,s=Q,i=1"), scram::Error::Malformed),
        (format!("m=x,r={ours}x,s=QUJD,i=1"), scram::Error::Malformed),
        (format!("r={ours}x,s=QUJD"), scram::Error::Malformed),
    ];
    for (first, expected) in cases {
        let bench = Bench::new("pencil");
        let (_, next) = sent(bench.begin(terms(Transport::Plain)).handle(&both_mechanisms()).unwrap());
        match next.handle(&request(SASL_CONTINUE, first.as_bytes())) {
            Err(Error::Scram(error)) => assert_eq!(error, expected, "{first}"),
            other => panic!("{first}: {other:?}"),
        }
    }
}

#[test]
fn a_nonce_may_look_like_an_attribute() {
    let nonce = "abr=c=i=~r=";
    let (first, scram) = Scram::with_nonce(Gs2::EndPoint(vec![7; 32]), nonce.to_owned());
    assert_eq!(nonce_of(&first), nonce);
    let server = Server::new("pencil", nonce);
    let secret = Secret::new("pencil".to_owned());
    let challenged = scram.challenge(server.first.as_bytes(), &secret).unwrap();
    let pair = challenged.derivation.run();
    let (last, proved) = challenged.prove(pair);
    proved.verify(server.finish(&first, &last).as_bytes()).unwrap();
}

#[test]
fn rfc_7677_vector() {
    // The RFC's user name is "user" and PostgreSQL's is always empty, so only the keys can be compared.
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    let pair = Derivation::new("pencil", &salt, NonZeroU32::new(4096).unwrap()).run().bytes();
    let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                   s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    let stored = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &pair.0);
    let proof: Vec<u8> =
        pair.0.iter().zip(hmac(stored.as_ref(), message.as_bytes())).map(|(key, bit)| key ^ bit).collect();
    assert_eq!(BASE64.encode(proof), "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
    let signature = hmac(&pair.1, message.as_bytes());
    assert_eq!(BASE64.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn speaks_as_postgres_protocol_does(
        password in "\\PC{1,24}",
        salt in prop::collection::vec(any::<u8>(), 1..32),
        iterations in 1_u32..64,
        bound in any::<bool>(),
    ) {
        let (binding, gs2) = if bound {
            (sasl::ChannelBinding::tls_server_end_point(vec![7; 48]), Gs2::EndPoint(vec![7; 48]))
        } else {
            (sasl::ChannelBinding::unrequested(), Gs2::NotOffered)
        };
        let mut theirs = sasl::ScramSha256::new(password.as_bytes(), binding);
        let first = String::from_utf8(theirs.message().to_vec()).unwrap();
        let (our_first, ours) = Scram::with_nonce(gs2, nonce_of(&first).to_owned());
        prop_assert_eq!(&our_first, &first);

        let server_first = format!("r={}SERVER,s={},i={iterations}", nonce_of(&first), BASE64.encode(&salt));
        theirs.update(server_first.as_bytes()).unwrap();
        let secret = Secret::new(password);
        let challenged = ours.challenge(server_first.as_bytes(), &secret).unwrap();
        let pair = challenged.derivation.run();
        let (our_last, _) = challenged.prove(pair);
        prop_assert_eq!(our_last.as_bytes(), theirs.message());
    }

    #[test]
    fn no_body_panics(
        bodies in prop::collection::vec((0_i32..14, prop::collection::vec(any::<u8>(), 0..40)), 1..5),
    ) {
        let bench = Bench::new("pencil");
        let mut conversation = bench.begin(terms(tls()));
        for (code, data) in bodies {
            match conversation.handle(&request(code, &data)) {
                Ok(Step::Send { next, .. } | Step::Wait(next)) => conversation = next,
                Ok(Step::Derive { next, .. }) => {
                    let pair = Derivation::new("pencil", b"salt", NonZeroU32::MIN).run();
                    conversation = next.derived(pair).map(|step| sent(step).1).unwrap();
                }
                Ok(Step::Done) | Err(_) => break,
            }
        }
    }
}

#[test]
fn keys_are_remembered_per_password_and_bounded() {
    let keys = Keys::default();
    let rounds = NonZeroU32::new(2).unwrap();
    let mut kept = Vec::new();
    for i in 0..40 {
        let derivation = Derivation::new(&format!("password {i}"), b"salt", rounds);
        assert!(keys.get(&derivation).is_none());
        let pair = derivation.run();
        keys.keep(derivation.clone(), pair.clone());
        assert_eq!(keys.get(&derivation).unwrap().bytes(), pair.bytes());
        assert!(keys.get(&Derivation::new(&format!("password {i}"), b"other", rounds)).is_none());
        assert!(keys.get(&Derivation::new(&format!("password {i}"), b"salt", NonZeroU32::MIN)).is_none());
        kept.push(derivation);
    }
    assert_eq!(keys.len(), 8);
    // Passwords that nobody keeps are looked for no more.
    let newest = kept.pop().unwrap();
    drop(kept);
    assert!(keys.get(&newest).is_some());
    assert_eq!(keys.len(), 1);
}

/// `pg_saslprep` treats an empty result like a prohibited password, and its callers then use the password unchanged.
///
/// Source: <https://github.com/postgres/postgres/blob/master/src/common/saslprep.c>
#[test]
fn a_password_that_saslprep_leaves_nothing_of_is_taken_as_it_is() {
    let rounds = NonZeroU32::new(2).unwrap();
    let pair = |password: &str| Derivation::new(password, b"salt", rounds).run().bytes();
    let raw = |password: &str| {
        let mut salted = [0; 32];
        let algorithm = aws_lc_rs::pbkdf2::PBKDF2_HMAC_SHA256;
        aws_lc_rs::pbkdf2::derive(algorithm, rounds, b"salt", password.as_bytes(), &mut salted);
        (hmac(&salted, b"Client Key"), hmac(&salted, b"Server Key"))
    };
    let same = |prepared: &str, from: &str| {
        let (client, server) = pair(from);
        (client.to_vec(), server.to_vec()) == raw(prepared)
    };
    assert!(same("\u{ad}\u{ad}", "\u{ad}\u{ad}"), "nothing is left");
    assert!(same("\u{2060}", "\u{2060}"), "nothing is left");
    assert!(same(" ", "\u{200b}"), "a space of no width is one");
    assert!(same("ab", "a\u{ad}b"), "something is left");
    assert!(same("\u{7}a", "\u{7}a"), "prohibited");
}
