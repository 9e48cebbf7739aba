//! What a client asks for at its startup arrives, and what the server says of it comes back.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::{
    Backends, Fault, Frame, Raw, SOON, Scene, Server, Spec, bench, eventually, leasehold, same, startup_body,
    tags,
};

/// The value of a one-row query.
fn value(frames: &[Frame]) -> String {
    let row = frames.iter().find(|frame| frame.tag == 'D').unwrap_or_else(|| panic!("{frames:?}"));
    String::from_utf8_lossy(&row.body[6..]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_parameter_arrives_byte_for_byte() {
    let server = bench().postgres().await;
    let fault = Fault::before(&server.addr()).await;
    let uri = format!("postgresql://{}/?sslmode=disable", fault.addr());
    let scene = Scene::with(&server, Spec::new("app"), |builder, _| builder.upstream_uri(&uri)).await;
    // Odd bytes, odd order, names of nobody's, one twice.
    let parameters: [(&[u8], &[u8]); 12] = [
        (b"application_name", b"caf\xe9 \xff"),
        (b"DateStyle", b"SQL, DMY"),
        (b"user", b"app"),
        (b"TimeZone", b"Asia/Kathmandu"),
        (b"client_encoding", b"LATIN1"),
        (b"search_path", b"\"$user\", pg_catalog"),
        (b"extra_float_digits", b"-3"),
        (b"options", b"-c statement_timeout=4321 -c my.odd=a\\ b\\\\c --work_mem=7MB"),
        (b"my.own", b"x'; DROP TABLE y; --"),
        (b"geqo", b"off"),
        (b"lock_timeout", b"1"),
        (b"lock_timeout", b"7654"),
    ];
    let named = [&parameters[..], &[(&b"database"[..], scene.db.name().as_bytes())]].concat();
    let mut raw = scene.leasehold.connect_raw().await;
    raw.packet(Raw::PROTOCOL_3_0, &startup_body(named.iter().copied())).await;
    let frames = raw.until("ZE").await;
    assert!(tags(&frames).ends_with('Z'), "{frames:?}");

    for (name, wanted) in [
        ("DateStyle", "SQL, DMY"),
        ("TimeZone", "Asia/Kathmandu"),
        ("client_encoding", "LATIN1"),
        ("search_path", "\"$user\", pg_catalog"),
        ("extra_float_digits", "-3"),
        ("statement_timeout", "4321ms"),
        ("my.odd", "a b\\c"),
        ("work_mem", "7MB"),
        ("my.own", "x'; DROP TABLE y; --"),
        ("geqo", "off"),
        ("lock_timeout", "7654ms"),
    ] {
        assert_eq!(value(&raw.query(&format!("SHOW {name}")).await), wanted, "{name}");
    }
    let user = value(&raw.query("SELECT session_user").await);
    let sent =
        named.iter().map(|(name, bytes)| (*name, if *name == b"user" { user.as_bytes() } else { bytes }));
    let body = startup_body(sent);
    let recordings = fault.recordings();
    let arrived = recordings.iter().any(|recording| {
        recording.to_server[4..].starts_with(&[0, 3, 0, 0]) && recording.to_server[8..].starts_with(&body)
    });
    assert!(arrived, "only the user is replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_no_database_means_the_one_of_its_name() {
    let scene = Scene::on(&bench().postgres().await).await;
    for parameters in [&[("user", scene.db.name())][..], &[("user", scene.db.name()), ("database", "")]] {
        let mut raw = scene.leasehold.connect_raw().await;
        raw.startup(Raw::PROTOCOL_3_0, parameters).await;
        assert!(tags(&raw.until("ZE").await).ends_with('Z'));
        assert_eq!(value(&raw.query("SELECT current_database()").await), scene.db.name());
    }
}

/// A leasehold whose sessions begin as this role; a database's name is put in front of it.
async fn with_role(server: &Server, role: &str) -> (Scene, String) {
    let db = server.database().await;
    let role = format!("{}{role}", db.name());
    let quoted = format!("\"{}\"", role.replace('"', "\"\""));
    let owner = db.owner();
    db.admin.batch_execute(&format!("CREATE ROLE {quoted}; GRANT {quoted} TO {owner}")).await.unwrap();
    let backends = Backends::with_database(db, Spec::new("app")).await;
    let leasehold = backends.leasehold().flag("--set-role", &role).start().await;
    leasehold.wait_ready().await;
    let Backends { db, setup, .. } = backends;
    (Scene { db, setup, leasehold }, role)
}

#[tokio::test(flavor = "multi_thread")]
async fn set_role_and_the_clients_options_both_hold() {
    let server = bench().postgres().await;
    for role in ["plain", "two words", "back\\slash", "quo'te\"d", "Ünï-cödé", "-c work_mem=1MB"] {
        let (scene, wanted) = with_role(&server, role).await;
        for options in
            ["", "-c statement_timeout=4321", "-c my.odd=a\\ b", "-c my.odd=end\\\\", "-c my.odd=end\\"]
        {
            let (mut raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, &[("options", options)]).await;
            assert_eq!(value(&raw.query("SELECT current_user").await), wanted, "{options}");
            assert_eq!(value(&raw.query("SHOW role").await), wanted);
            if let Some(odd) = options.strip_prefix("-c my.odd=") {
                let plain = odd.replace("\\\\", "/").replace('\\', "").replace('/', "\\");
                assert_eq!(value(&raw.query("SHOW my.odd").await), plain, "{role}");
            } else if !options.is_empty() {
                assert_eq!(value(&raw.query("SHOW statement_timeout").await), "4321ms", "{role}");
            }
        }
        let (mut raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, &[]).await;
        assert_eq!(value(&raw.query("SELECT current_user").await), wanted, "a client without options");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_the_uri_is_the_only_one() {
    let server = bench().postgres().await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| {
        builder.upstream_uri(&format!("postgresql://{}/{}?sslmode=disable", server.addr(), db.name()))
    })
    .await;
    let name = scene.db.name();
    for parameters in [&[("user", "app")][..], &[("user", "app"), ("database", name)]] {
        let mut raw = scene.leasehold.connect_raw().await;
        raw.startup(Raw::PROTOCOL_3_0, parameters).await;
        assert!(tags(&raw.until("ZE").await).ends_with('Z'));
        assert_eq!(value(&raw.query("SELECT current_database()").await), name);
    }
    let (mut raw, frames) = Raw::login(scene.leasehold.addr(), "app", "postgres").await;
    assert_eq!(frames[0].sqlstate(), "3D000");
    assert_eq!(raw.recv().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_picks_the_route_and_a_stranger_has_none() {
    let server = bench().postgres().await;
    let backends = Backends::on(&server, Spec::new("reader")).await;
    let Backends { db, vault, setup: reader } = &backends;
    let may_read = format!("path \"{}\" {{ capabilities = [\"read\"] }}\n", reader.path);
    let writer = backends.another(Spec::new("writer").policy(&may_read)).await;
    let route = |user: &str, path: &str| {
        format!(
            "[[route]]\nname = '{user}'\nuser = '{user}'\nvault_path = '{path}'\n\
                 upstream = 'postgresql://{}/?sslmode=disable'\n",
            server.addr()
        )
    };
    let leasehold = leasehold()
        .vault(vault)
        .approle(&writer)
        .config_toml(&(route("reader", &reader.path) + &route("writer", &writer.path)))
        .start()
        .await;
    leasehold.wait_ready().await;
    eventually(SOON, async || same(db.roles().await.len(), 2)).await;

    for user in ["reader", "writer"] {
        let session = leasehold.connect(user, db.name()).await;
        assert!(session.user().await.contains(&format!("-{user}-")), "{}", session.user().await);
    }
    let (mut raw, frames) = Raw::login(leasehold.addr(), "stranger", db.name()).await;
    let fields = frames[0].fields();
    assert_eq!(fields[&'C'], "28000");
    assert_eq!(fields[&'M'], format!("no route for user \"stranger\" and database \"{}\"", db.name()));
    assert_eq!(raw.recv().await, None);
    assert_eq!(leasehold.metrics().await.get("login_failures_total", &[("reason", "no_route")]), 1.0);
}

/// All fields, but for the name of the role.
fn fields(frames: &[Frame], user: &str) -> BTreeMap<char, String> {
    let error = frames.last().unwrap();
    assert_eq!(error.tag, 'E', "{frames:?}");
    error.fields().into_iter().map(|(letter, text)| (letter, text.replace(user, "ROLE"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_startup_errors_reach_the_client_unchanged() {
    for version in ["system", "18"] {
        let hba = ["host all direct all trust", "host forbidden all all reject"];
        let server = bench().own_postgres(json!({"version": version, "hba": hba})).await;
        let spec = Spec::new("app").creation_statements(
            "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' CONNECTION LIMIT 1 IN ROLE \"{{owner}}\";",
        );
        let scene = Scene::with(&server, spec, |builder, db| builder.upstream(db)).await;
        let admin = &scene.db.admin;
        for statement in [
            "CREATE ROLE direct LOGIN CONNECTION LIMIT 1",
            "CREATE DATABASE closed",
            "CREATE DATABASE forbidden",
            "CREATE DATABASE crowded CONNECTION LIMIT 0",
            "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
        ] {
            admin.batch_execute(statement).await.unwrap();
        }
        // The proof has let go of the one connection that the role may have.
        eventually(SOON, async || same(scene.db.backends().await.len(), 0)).await;
        let role = scene.db.roles().await.remove(0);
        let name = scene.db.name();
        let direct: std::net::SocketAddr = server.addr().parse().unwrap();
        // A role's place is free only a moment after its connection is no more to be seen in pg_stat_activity: until
        // then either of the two may hear of that instead.
        let both = async |parameters: &[(&str, &str)]| {
            eventually(SOON, async || {
                let mut seen = Vec::new();
                for (addr, user, shown) in
                    [(direct, "direct", "direct"), (scene.leasehold.addr(), "app", role.as_str())]
                {
                    let mut raw = Raw::connect(addr).await;
                    raw.startup(Raw::PROTOCOL_3_0, &[&[("user", user)], parameters].concat()).await;
                    seen.push(fields(&raw.until("ZE").await, shown));
                    assert_eq!(raw.recv().await, None, "the server closes");
                }
                if seen[0] == seen[1] { Ok(seen[0][&'C'].clone()) } else { Err(seen) }
            })
            .await
        };
        let held = async |addr: std::net::SocketAddr, user: &str| {
            eventually(SOON, async || {
                let (raw, frames) = Raw::login(addr, user, name).await;
                if tags(&frames).ends_with('Z') { Ok(raw) } else { Err(frames) }
            })
            .await
        };
        assert_eq!(both(&[("database", "nonsense")]).await, "3D000");
        assert_eq!(both(&[("database", "closed")]).await, "42501");
        assert_eq!(both(&[("database", "crowded")]).await, "53300");
        assert_eq!(both(&[("database", name), ("no_such_setting", "1")]).await, "42704");
        assert_eq!(both(&[("database", name), ("work_mem", "nonsense")]).await, "22023");
        assert_eq!(both(&[("database", name), ("options", "-c nonsense")]).await, "42601");

        // One more than the role may have.
        let _held = (held(scene.leasehold.addr(), "app").await, held(direct, "direct").await);
        let mut seen = Vec::new();
        for (addr, user, shown) in
            [(direct, "direct", "direct"), (scene.leasehold.addr(), "app", role.as_str())]
        {
            seen.push(fields(&Raw::login(addr, user, name).await.1, shown));
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0][&'C'], "53300");
        assert_eq!(scene.leasehold.metrics().await.get("suspect_logins_total", &[]), 0.0);
        assert_eq!(scene.leasehold.generations().await.len(), 1, "none of it is the credential's fault");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_names_the_process_behind_what_the_client_wrote_and_cuts_nothing_of_it() {
    let server = bench().postgres_18().await;
    let scene = Scene::with(&server, Spec::new("app"), |builder, db| {
        builder.upstream(db).switch("--tag-application-name").flag("--warm", "2")
    })
    .await;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    // Its last 32 bytes.
    let host = &host.trim()[host.trim().len().saturating_sub(32)..];
    let tag = format!("leasehold@{host}:{}", scene.leasehold.pid());
    let long = "x".repeat(63);
    let seen = async |parameters: &[(&str, &str)]| {
        let (mut raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, parameters).await;
        let sql = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        value(&raw.query(sql).await)
    };
    // The second one may be a session that was logged in ahead of need.
    for _ in 0..2 {
        assert_eq!(seen(&[("application_name", "web")]).await, format!("web {tag}"));
    }
    assert_eq!(seen(&[]).await, tag);
    assert_eq!(seen(&[("application_name", &long)]).await, long);
    assert_eq!(seen(&[("options", "-c application_name=batch")]).await, "batch");
    // What the client wrote is what leasehold itself shows.
    let (_raw, _) = scene.raw_with(Raw::PROTOCOL_3_0, &[("application_name", "web")]).await;
    let listed = scene.leasehold.command(&["sessions", "--json"]).await;
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let names: Vec<_> =
        listed["sessions"].as_array().unwrap().iter().map(|one| &one["application_name"]).collect();
    assert!(names.contains(&&json!("web")), "{names:?}");
}
