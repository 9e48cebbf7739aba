//! The app's side before the first query: sockets, encryption requests, what is no client.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::json;
use tokio::net::UnixListener;

use crate::harness::{
    Raw, SOON, Scene, Spec, bench, eventually, field, leasehold, packet, same, startup_body, tags,
    without_place,
};

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;

/// Runs `psql` with this environment and nothing else, without a password.
async fn psql(host: &str, port: &str, database: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new("psql");
    command.args(["-h", host, "-p", port, "-U", "app", "-w", "-XAtd", database, "-c", "SELECT 40 + 2"]);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).envs(environment.iter().copied());
    tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_gets_in_by_ipv4_ipv6_and_unix_socket() {
    let directory = bench().directory().await;
    let listen = format!("127.0.0.1:0,[::1]:0,{}:7001", directory.display());
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--listen", &listen)
    })
    .await;
    let log = scene.leasehold.log();
    let mut addrs: Vec<_> = log.messages("listening").iter().map(|line| field(line, "addr")).collect();
    addrs.truncate(3);
    let [v4, v6, unix] = addrs.try_into().unwrap();
    assert_eq!(Path::new(&unix), directory.join(".s.PGSQL.7001"));
    let port = |addr: &str| addr.rsplit_once(':').unwrap().1.to_owned();
    let directory = directory.to_str().unwrap().to_owned();
    let places = [("127.0.0.1", port(&v4)), ("::1", port(&v6)), (directory.as_str(), "7001".to_owned())];

    for (host, port) in &places {
        for environment in [
            &[][..],
            &[("PGSSLMODE", "prefer"), ("PGGSSENCMODE", "prefer")],
            &[("PGSSLMODE", "disable"), ("PGGSSENCMODE", "disable")],
            // Nobody asks for it.
            &[("PGPASSWORD", "of no role")],
        ] {
            let answer = psql(host, port, scene.db.name(), environment).await;
            assert!(answer.status.success(), "{host} {environment:?}: {answer:?}");
            assert_eq!(answer.stdout, b"42\n");
        }
    }
    let refused = psql("127.0.0.1", &places[0].1, scene.db.name(), &[("PGSSLMODE", "require")]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("server does not support SSL"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let directory = bench().directory().await;
    let file = directory.join(".s.PGSQL.6432");
    drop(UnixListener::bind(&file).unwrap());
    let listen = format!("{},127.0.0.1:0", directory.display());
    let mut scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--listen", &listen)
    })
    .await;
    let port = "6432";
    let place = directory.to_str().unwrap();
    assert!(psql(place, port, scene.db.name(), &[]).await.status.success(), "the stale one was replaced");

    let again = || {
        leasehold()
            .upstream(&scene.db)
            .login(&scene.setup)
            .vault_addr("http://127.0.0.1:1")
            .flag("--listen", place)
    };
    let (status, log) = again().run_to_end().await;
    assert_eq!(status.code(), Some(71));
    assert!(log.0.contains("another process answers"), "{}", log.0);
    assert!(psql(place, port, scene.db.name(), &[]).await.status.success(), "the first one still serves");

    let survivor = again();
    scene.leasehold.kill9();
    assert!(file.exists(), "nobody tidied up");
    let heir = survivor.start().await;
    assert_eq!(heir.listening("client"), [file.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_beyond_this_machine_need_a_word() {
    let scene = Scene::on(&bench().postgres().await).await;
    for open in ["0.0.0.0:0", "[::]:0", "192.0.2.1:6432"] {
        let builder = leasehold()
            .upstream(&scene.db)
            .login(&scene.setup)
            .vault_addr("http://127.0.0.1:1")
            .flag("--listen", open);
        let (status, log) = builder.run_to_end().await;
        assert_eq!(status.code(), Some(78), "{open}");
        assert!(log.0.contains("--listen-public allows it"), "{}", log.0);
        assert!(log.messages("listening").is_empty(), "nothing was bound");
    }
    // The word alone does not do: somebody must be kept out.
    let public = || {
        let builder = leasehold().upstream(&scene.db).login(&scene.setup).vault_addr("http://127.0.0.1:1");
        builder.flag("--listen", "0.0.0.0:0").switch("--listen-public")
    };
    let (status, log) = public().run_to_end().await;
    assert_eq!(status.code(), Some(78));
    assert!(log.0.contains("--tls-client-ca-file") && log.0.contains("--allow-addresses"), "{}", log.0);
    let public = public().flag("--allow-addresses", "10.0.0.0/8").start().await;
    assert!(public.listening("client")[0].starts_with("0.0.0.0:"));
}

/// As a PostgreSQL without TLS does it.
#[tokio::test(flavor = "multi_thread")]
async fn encryption_is_declined_in_any_order_and_once_each() {
    let server = bench().own_postgres(json!({"version": "18", "hba": ["host all app all trust"]})).await;
    let scene = Scene::on(&server).await;
    scene.db.admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    let parameters = [("user", "app"), ("database", scene.db.name())];
    let both = [server.addr().parse().unwrap(), scene.leasehold.addr()];
    for order in
        [&[SSL_REQUEST][..], &[GSS_REQUEST], &[GSS_REQUEST, SSL_REQUEST], &[SSL_REQUEST, GSS_REQUEST]]
    {
        for addr in both {
            let mut raw = Raw::connect(addr).await;
            for request in order {
                // Requests have no body that counts.
                raw.packet(*request, b"body").await;
                assert_eq!(raw.byte().await, Some(b'N'), "{order:?} at {addr}");
            }
            raw.startup(Raw::PROTOCOL_3_0, &parameters).await;
            assert!(tags(&raw.until("ZE").await).ends_with('Z'), "{order:?} at {addr}");
        }
    }
    for order in [
        &[SSL_REQUEST, SSL_REQUEST][..],
        &[GSS_REQUEST, GSS_REQUEST],
        &[GSS_REQUEST, SSL_REQUEST, GSS_REQUEST],
        &[SSL_REQUEST, GSS_REQUEST, SSL_REQUEST],
    ] {
        let mut heard = Vec::new();
        for addr in both {
            let mut raw = Raw::connect(addr).await;
            let (last, first) = order.split_last().unwrap();
            for request in first {
                raw.packet(*request, &[]).await;
                assert_eq!(raw.byte().await, Some(b'N'));
            }
            raw.packet(*last, &[]).await;
            heard.push(without_place(&raw.rest().await.0));
        }
        assert_eq!(heard[0], heard[1], "{order:?}");
        assert!(!heard[0].is_empty());
    }
}

/// Side by side with a PostgreSQL without TLS.
#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_refuses_is_refused_in_its_words() {
    let server = bench().own_postgres(json!({"version": "18"})).await;
    let scene = Scene::on(&server).await;
    let hello = packet(Raw::PROTOCOL_3_0, &startup_body([(&b"user"[..], &b"app"[..])].into_iter()));
    for said in [
        [packet(SSL_REQUEST, &[]), hello.clone()].concat(),
        [packet(GSS_REQUEST, &[]), hello].concat(),
        packet(0x0002_0000, &[0; 288]),
        packet(0x0001_0000, b""),
        packet(0x0004_0000, b"user\0app\0\0"),
        packet(Raw::PROTOCOL_3_0, b"database\0x\0\0"),
        packet(Raw::PROTOCOL_3_0, b"user\0\0\0"),
        packet(Raw::PROTOCOL_3_0, b"user\0app\0"),
        packet(Raw::PROTOCOL_3_0, b"user\0app\0\0behind"),
        packet(Raw::PROTOCOL_3_0, b""),
    ] {
        let mut heard = Vec::new();
        for addr in [server.addr().parse().unwrap(), scene.leasehold.addr()] {
            let mut raw = Raw::connect(addr).await;
            raw.write(&said).await;
            heard.push(without_place(&raw.rest().await.0));
        }
        assert_eq!(heard[0], heard[1], "{said:?}");
        assert!(!heard[0].is_empty());
    }
}

/// One that cannot be served is told so where it would understand, and closed. Others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_client_ends_itself_alone() {
    let scene = Scene::on(&bench().postgres().await).await;
    let mut neighbour = scene.raw().await;
    let hello = packet(Raw::PROTOCOL_3_0, &startup_body([(&b"user"[..], &b"app"[..])].into_iter()));
    let long = vec![b'x'; 10_000];
    let oversized = packet(Raw::PROTOCOL_3_0, &startup_body([(&b"user"[..], &long[..])].into_iter()));
    let stuffed = |request| [packet(request, &[]), hello.clone()].concat();
    let cases = [
        ("bytes behind SSLRequest", stuffed(SSL_REQUEST), Some("08P01"), "ahead_of_answer"),
        ("bytes behind GSSENCRequest", stuffed(GSS_REQUEST), Some("08P01"), "ahead_of_answer"),
        ("direct TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".to_vec(), None, "direct_tls"),
        ("protocol 2", packet(0x0002_0000, &[0; 288]), Some("EFATAL:  unsup"), "unsupported_protocol"),
        ("protocol 4", packet(0x0004_0000, b"user\0app\0\0"), Some("0A000"), "unsupported_protocol"),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec(), None, "malformed"),
        ("a length too small", vec![0, 0, 0, 4, 0, 0, 0, 0], None, "malformed"),
        ("a negative length", vec![0xff; 8], None, "malformed"),
        ("a startup of 10,016 bytes", oversized, None, "malformed"),
        ("no user", packet(Raw::PROTOCOL_3_0, b"database\0x\0\0"), Some("28000"), "malformed"),
        ("no end", packet(Raw::PROTOCOL_3_0, b"user\0app\0"), Some("08P01"), "malformed"),
    ];
    for (what, bytes, sqlstate, reason) in cases {
        let failures =
            async || scene.leasehold.metrics().await.get("handshake_failures_total", &[("reason", reason)]);
        let before = failures().await;
        let mut raw = scene.leasehold.connect_raw().await;
        raw.write(&bytes).await;
        let (said, _) = raw.rest().await;
        match sqlstate {
            Some(code) => assert!(String::from_utf8_lossy(&said).contains(code), "{what}: {said:?}"),
            None => assert!(said.is_empty(), "{what}: {said:?}"),
        }
        drop(raw);
        eventually(SOON, async || same(failures().await, before + 1.0)).await;
        assert_eq!(tags(&neighbour.query("SELECT 1").await), "TDCZ", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_says_too_little_is_closed_in_time() {
    let scene = Scene::with(&bench().postgres().await, Spec::new("app"), |builder, db| {
        builder.upstream(db).flag("--limits-handshake-timeout", "5s")
    })
    .await;
    let mut silent = scene.leasehold.connect_raw().await;
    let mut slow = scene.leasehold.connect_raw().await;
    slow.packet(SSL_REQUEST, &[]).await;
    assert_eq!(slow.byte().await, Some(b'N'));
    slow.write(&[0, 0, 0, 99, 0, 3, 0, 0, b'u']).await;
    // One that is in has all the time there is.
    let mut inside = scene.raw().await;

    assert_eq!(silent.byte().await, None);
    assert_eq!(slow.byte().await, None);
    assert_eq!(tags(&inside.query("SELECT 1").await), "TDCZ");
    let failures = scene.leasehold.metrics().await;
    assert_eq!(failures.get("handshake_failures_total", &[("reason", "timeout")]), 2.0);
}

/// Side by side with the server itself. `half`: the client says no more.
#[tokio::test(flavor = "multi_thread")]
async fn what_postgresql_closes_without_a_word_is_closed_without_a_word() {
    let scene = Scene::on(&bench().postgres().await).await;
    let server = scene.db.server.addr().parse().unwrap();
    let packets: [(&[u8], bool); 16] = [
        // What node-postgres sends for a connection that is ended before it has begun.
        (b"X\0\0\0\x04", false),
        (&[0; 4], false),
        (&[0, 0, 0, 4], false),
        (&[0, 0, 0, 7, 1, 2, 3], false),
        // MAX_STARTUP_PACKET_LENGTH, and the length field.
        (&[0, 0, 0x27, 0x15, 0, 3, 0, 0], false),
        (&[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0], false),
        (&[0x80, 0, 0, 0], false),
        (&[0xff; 8], false),
        (b"GET / HTTP/1.1\r\n\r\n", false),
        (b"p\0\0\0\x0bsecret\0", false),
        (&[0x16, 3, 1, 2, 0, 1], true),
        (b"", true),
        (b"X", true),
        (b"\0\0\0\x10", true),
        (b"\0\0\0\x10\0\x03\0\0us", true),
        (b"\0\0\0\x0b\x04\xd2\x16.abc", false),
    ];
    for (packet, half) in packets {
        for addr in [server, scene.leasehold.addr()] {
            for encryption in [false, true] {
                let mut raw = Raw::connect(addr).await;
                if encryption {
                    raw.packet(SSL_REQUEST, &[]).await;
                    assert_eq!(raw.byte().await, Some(b'N'));
                }
                raw.write(packet).await;
                if half {
                    raw.half_close().await;
                }
                assert_eq!(raw.byte().await, None, "{packet:?} at {addr}");
            }
        }
    }
}

/// A server that lets both in without a password, so that both see all that it says.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_behind_authentication_ok_comes_with_what_came_before_it() {
    let options =
        json!({"version": "18", "hba": ["host all all all trust"], "conf": {"log_connections": "off"}});
    let server = bench().own_postgres(options).await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| builder.upstream(db).trusted()).await;
    scene.db.admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
    let direct = server.addr().parse().unwrap();
    let database = scene.db.name();
    let no_such = [("user", "app"), ("database", "no_such")];
    let unknown = [("user", "app"), ("database", database), ("no_such", "1")];
    let options = [("user", "app"), ("database", database), ("options", "-c no_such=1")];
    let extension = [("user", "app"), ("database", "no_such"), ("_pq_.no_such", "1")];
    for (parameters, expected) in
        [(no_such.as_slice(), "RE"), (&unknown, "RE"), (&options, "RE"), (&extension, "vRE")]
    {
        let mut heard = Vec::new();
        for addr in [direct, scene.leasehold.addr()] {
            let mut raw = Raw::connect(addr).await;
            raw.startup(Raw::PROTOCOL_3_2, parameters).await;
            let frames = raw.until("ZE").await;
            assert_eq!(raw.recv().await, None);
            heard.push(frames);
        }
        assert_eq!(tags(&heard[0]), expected, "{parameters:?}");
        assert_eq!(heard[0], heard[1], "{parameters:?}");
    }

    // libpq takes an error before AuthenticationOk for one about TLS.
    let before = scene.db.server.log().matches("database \"no_such\" does not exist").count();
    let port = scene.leasehold.addr().port().to_string();
    let answer = psql("127.0.0.1", &port, "no_such", &[("PGSSLMODE", "allow")]).await;
    assert!(!answer.status.success(), "{answer:?}");
    let said = String::from_utf8(answer.stderr).unwrap();
    assert_eq!(said.matches("FATAL").count(), 1, "{said}");
    let after = scene.db.server.log().matches("database \"no_such\" does not exist").count();
    assert_eq!(after - before, 1, "one try");
}
