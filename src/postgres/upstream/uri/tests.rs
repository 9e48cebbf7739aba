//! Tests which URIs are accepted and what they mean.

use proptest::prelude::*;

use super::*;

fn name(name: &str, port: u16) -> Host {
    Host::Tcp { name: name.to_owned(), port }
}

fn file(path: &str) -> FileSetting {
    FileSetting::new(path, "its place does not count")
}

fn hosts(text: &str) -> Vec<Host> {
    Uri::parse(text).unwrap().hosts
}

#[test]
fn defaults_are_the_safe_ones() {
    let uri = Uri::parse("postgresql://db").unwrap();
    assert_eq!(uri.hosts, [name("db", 5432)]);
    assert_eq!(uri.database, None);
    assert_eq!(uri.tls, TlsWords::default());
    assert_eq!(uri.tls.mode, SslMode::VerifyFull);
    assert!(uri.tcp.keepalives);
    assert_eq!(uri.connect_timeout, None);
    assert_eq!(uri.channel_binding, ChannelBinding::Prefer);
}

#[test]
fn hosts_are_read_in_every_form_libpq_knows() {
    assert_eq!(hosts("postgres://h1:5433,h2/db"), [name("h1", 5433), name("h2", 5432)]);
    assert_eq!(hosts("postgres://[::1]:6000,[fe80::1]"), [name("::1", 6000), name("fe80::1", 5432)]);
    assert_eq!(hosts("postgres:///db?host=a,b&port=1,2"), [name("a", 1), name("b", 2)]);
    assert_eq!(hosts("postgres:///db?host=a,b&port=7"), [name("a", 7), name("b", 7)]);
    assert_eq!(hosts("postgres://x:9/?host=::1"), [name("::1", 9)]);
    let socket = Host::Unix("/var/run/pg/.s.PGSQL.5432".into());
    assert_eq!(hosts("postgres://%2Fvar%2Frun%2Fpg/db"), std::slice::from_ref(&socket));
    assert_eq!(hosts("postgres:///db?host=/var/run/pg"), std::slice::from_ref(&socket));
    assert_eq!(socket.to_string(), "/var/run/pg/.s.PGSQL.5432");
    assert_eq!(name("::1", 5432).to_string(), "[::1]:5432");
}

#[test]
fn bad_hosts_and_ports_are_refused() {
    for (text, error) in [
        ("postgres://", Error::NoHost),
        ("postgres:///db", Error::NoHost),
        ("postgres://a,,b", Error::Host { position: 2 }),
        ("postgres://[::1", Error::Host { position: 1 }),
        ("postgres://[::1]x", Error::Host { position: 1 }),
        ("postgres://[]", Error::Host { position: 1 }),
        ("postgres://a b", Error::Host { position: 1 }),
        ("postgres://%40abstract", Error::Host { position: 1 }),
        ("postgres://a:0", Error::Port { position: 1 }),
        ("postgres://a,b:65536", Error::Port { position: 2 }),
        ("postgres://a:+1", Error::Port { position: 1 }),
        ("postgres://a,b,c?port=1,2", Error::PortCount { ports: 2, hosts: 3 }),
        ("mysql://a", Error::Scheme),
        ("postgres://%zz", Error::Percent),
        ("postgres://a/%", Error::Percent),
        ("postgres://a/%00", Error::Percent),
        ("postgres://a/%ff", Error::Percent),
    ] {
        assert_eq!(Uri::parse(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn words_are_read() {
    let uri = Uri::parse(
        "postgresql://db:1/my%20db?sslmode=verify-ca&sslrootcert=/etc/ca%2B.crt&sslcrl=r&sslcert=c&sslkey=k\
         &sslnegotiation=direct&connect_timeout=3&keepalives=1&keepalives_idle=4&keepalives_interval=5\
         &keepalives_count=6&tcp_user_timeout=7&channel_binding=require&load_balance_hosts=random\
         &target_session_attrs=prefer-standby",
    )
    .unwrap();
    assert_eq!(uri.database.as_deref(), Some("my db"));
    assert_eq!(
        uri.tls,
        TlsWords {
            mode: SslMode::VerifyCa,
            negotiation: SslNegotiation::Direct,
            root_cert: Some(RootCert::File(file("/etc/ca+.crt"))),
            crl: Some(file("r")),
            client: Some(ClientFiles { cert: file("c"), key: file("k") }),
        }
    );
    assert_eq!(uri.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!(
        uri.tcp,
        TcpSettings {
            keepalives: true,
            keepalives_idle: Some(Duration::from_secs(4)),
            keepalives_interval: Some(Duration::from_secs(5)),
            keepalives_count: Some(6),
            user_timeout: Some(Duration::from_millis(7)),
        }
    );
    assert_eq!(uri.channel_binding, ChannelBinding::Require);
    assert_eq!(uri.load_balance_hosts, Order::Random);
    assert_eq!(uri.target_session_attrs, TargetSessionAttrs::PreferStandby);
}

#[test]
fn zero_is_the_default_and_the_last_word_wins() {
    let uri =
        Uri::parse("postgres://a/x?connect_timeout=0&keepalives_idle=-1&keepalives=0&dbname=y").unwrap();
    assert_eq!(uri.connect_timeout, None);
    assert_eq!(uri.tcp, TcpSettings { keepalives: false, ..TcpSettings::default() });
    assert_eq!(uri.database.as_deref(), Some("y"));
    let mode = |query: &str| Uri::parse(&format!("postgres://a?{query}")).unwrap().tls.mode;
    assert_eq!(mode("sslmode=disable&sslmode=require"), SslMode::Require);
}

#[test]
fn words_that_do_not_fit_are_refused() {
    for (query, error) in [
        ("sslmode=off", "sslmode in upstream takes"),
        ("connect_timeout=soon", "connect_timeout in upstream takes a whole number"),
        ("sslmode=require&sslcrl=/x", "sslcrl has no effect"),
        ("target_session_attrs=master", "target_session_attrs in upstream takes any, read-write,"),
        ("application_name=x", "unknown word application_name"),
        ("p%20w=1", "unknown word (not a word)"),
        ("sslrootcert=system&sslmode=require", "sslrootcert=system takes"),
        ("sslnegotiation=direct&sslmode=prefer", "sslnegotiation=direct takes"),
        ("sslcert=/x", "sslcert and sslkey go together"),
        ("sslmode", "without a value"),
    ] {
        let text = Uri::parse(&format!("postgres://a?{query}")).unwrap_err().to_string();
        assert!(text.contains(error), "{query}: {text}");
    }
}

#[test]
fn a_password_is_refused_and_not_repeated() {
    for text in [
        "postgresql://app:hunter2@db/x",
        "postgresql://app@db/x",
        "postgresql://app:hun/ter2@db/x",
        "postgresql://app:hun?ter2@db/x",
        "postgresql://db/x?password=hunter2",
        "postgresql://db/x?user=app",
        "postgresql://db/x?p%61ssword=hunter2",
    ] {
        let error = Uri::parse(text).unwrap_err();
        assert_eq!(error, Error::Credentials, "{text}");
        assert!(!error.to_string().contains("ter2"));
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// A host as written in a URI, and as read from it.
fn host() -> impl Strategy<Value = (String, Host)> {
    let tcp = |name: String, port| {
        let host = Host::Tcp { name, port };
        (host.to_string(), host)
    };
    let place = prop_oneof![
        "[a-z0-9.-]{1,20}".prop_map(|name| (false, name)),
        any::<std::net::Ipv6Addr>().prop_map(|address| (false, address.to_string())),
        "/[^\\x00,]{0,20}".prop_map(|directory| (true, directory)),
    ];
    (place, 1_u16..).prop_map(move |((is_socket, place), port)| match is_socket {
        true => {
            let file = std::path::Path::new(&place).join(format!(".s.PGSQL.{port}"));
            (format!("{}:{port}", encode(&place)), Host::Unix(file))
        }
        false => tcp(place, port),
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}", tail in any::<String>()) {
        let _ = Uri::parse(&text);
        let _ = Uri::parse(&format!("postgresql://{text}"));
        let _ = Uri::parse(&format!("postgresql://h/?{tail}"));
    }

    #[test]
    fn hosts_and_database_come_back(
        hosts in prop::collection::vec(host(), 1..4),
        database in prop::option::of("[^\\x00]{1,20}"),
    ) {
        let (written, hosts): (Vec<String>, Vec<Host>) = hosts.into_iter().unzip();
        let path = database.as_deref().map(encode).unwrap_or_default();
        let uri = Uri::parse(&format!("postgresql://{}/{path}", written.join(","))).unwrap();
        prop_assert_eq!(uri.hosts, hosts);
        prop_assert_eq!(uri.database, database);
    }
}
