//! The sessions as operators see them: `/sessions` and `leasehold sessions`.

use reqwest::Method;
use serde_json::Value;
use tokio_postgres::NoTls;

use crate::harness::{Backends, Leasehold, SOON, Spec, bench, eventually, same};

/// The sessions that `/sessions` shows for this query.
async fn sessions(leasehold: &Leasehold, query: &str) -> Vec<Value> {
    let reply = leasehold.admin(Method::GET, &format!("/sessions{query}")).await;
    reply.json["sessions"].as_array().cloned().unwrap_or_else(|| panic!("{query}: {}", reply.text))
}

/// Waits until the only session of this query is in this state.
async fn until_state(leasehold: &Leasehold, query: &str, state: &str) -> Value {
    eventually(SOON, async || {
        let [session] = &sessions(leasehold, query).await[..] else { return Err("not one".to_owned()) };
        same(session["state"].as_str(), Some(state)).map(|()| session.clone())
    })
    .await
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_is_listed_with_who_it_is_and_what_it_does() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    assert_eq!(sessions(&leasehold, "").await, Vec::<Value>::new());

    let mut config = leasehold.config("shop", db.name());
    config.application_name("checkout");
    let (client, connection) = config.connect(NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let other = leasehold.connect("app", db.name()).await;
    let own = client
        .query_one("SELECT pg_backend_pid(), session_user::text, inet_client_port()", &[])
        .await
        .unwrap();
    let (pid, role): (i32, String) = (own.get(0), own.get(1));

    let session = until_state(&leasehold, "?user=shop", "idle").await;
    assert_eq!((session["backend_pid"].as_i64(), session["role"].as_str()), (Some(pid.into()), Some(&*role)));
    assert_eq!(session["database"], db.name());
    assert_eq!((&session["application_name"], &session["route"]), (&"checkout".into(), &"app".into()));
    assert!(session["client_addr"].as_str().unwrap().starts_with("127.0.0.1:"), "{session}");
    assert_eq!((&session["client_uid"], &session["client_pid"]), (&Value::Null, &Value::Null));
    assert_eq!(session["upstream"], db.server.addr());
    let generation = &leasehold.generations().await[0];
    assert_eq!((&session["generation"], &session["lease_id"]), (&1.into(), &generation["lease_id"]));
    assert_eq!(session["transaction_since"], Value::Null);
    let bytes = |session: &Value| {
        ["bytes_to_upstream", "bytes_to_client"].map(|field| session[field].as_u64().unwrap())
    };
    assert!(bytes(&session).iter().all(|bytes| *bytes > 0), "{session}");

    client.batch_execute("BEGIN").await.unwrap();
    let begun = until_state(&leasehold, "?user=shop", "idle in transaction").await;
    assert!(begun["transaction_since"].is_string() && bytes(&begun) > bytes(&session), "{begun}");
    let cancel = client.cancel_token();
    let slow = tokio::spawn(async move { client.batch_execute("SELECT pg_sleep(60)").await });
    let active = until_state(&leasehold, "?user=shop", "active").await;
    // The transaction is older than its statement.
    let at = |field: &str| humantime::parse_rfc3339(active[field].as_str().unwrap()).unwrap();
    assert!(at("transaction_since") < at("state_since"), "{active}");

    // The list and its filters, as a person asks for them.
    let by_pid = leasehold.command(&["sessions", "--backend-pid", &pid.to_string()]).await;
    let lines: Vec<String> = text(&by_pid.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let (begins, ends) = (&role[..6], &role[role.len() - 6..]);
    assert!(lines[0].starts_with("ID  CLIENT"), "{lines:?}");
    assert!(
        lines[1].split_whitespace().any(|cell| cell.starts_with(begins) && cell.ends_with(ends)),
        "{lines:?}"
    );
    assert!(lines.iter().all(|line| line.chars().count() <= 100), "what is cut is in --json: {lines:?}");
    assert_eq!(text(&leasehold.command(&["sessions"]).await.stdout).lines().count(), 3);
    assert_eq!(text(&leasehold.command(&["sessions", "--state=idle"]).await.stdout).lines().count(), 2);
    let json = leasehold.command(&["sessions", "--json", "--user=app", "--route=app"]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["sessions"][0]["role"], other.user().await);
    let unknown = leasehold.command(&["sessions", "--state=busy"]).await;
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(1), 0));
    assert!(text(&unknown.stderr).contains("idle, active, idle in transaction"), "{unknown:?}");

    cancel.cancel_query(NoTls).await.unwrap();
    slow.await.unwrap().unwrap_err();
    connection.abort();
    drop(other);
    eventually(SOON, async || same(sessions(&leasehold, "").await.len(), 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_on_a_unix_socket_is_listed_with_its_user_and_process() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let directory = bench().directory().await;
    let listen = format!("127.0.0.1:0,{}", directory.to_str().unwrap());
    let leasehold = backends.leasehold().flag("--listen", &listen).start().await;
    leasehold.wait_ready().await;
    let mut config = tokio_postgres::Config::new();
    config.host_path(&directory).port(6432).user("app").dbname(db.name());
    let (_client, connection) = config.connect(NoTls).await.unwrap();
    let connection = tokio::spawn(connection);

    let session = until_state(&leasehold, "", "idle").await;
    assert_eq!(session["client_uid"], rustix::process::getuid().as_raw());
    assert_eq!(session["client_pid"], std::process::id());
    assert_eq!(session["client_addr"], Value::Null);
    let client = format!("pid {}", std::process::id());
    let table = leasehold.command(&["sessions", "--client", &client]).await;
    assert!(text(&table.stdout).contains(&client), "{table:?}");
    connection.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_keeps_its_credential_in_the_list_through_a_rotation() {
    let backends = Backends::new(Spec::new("app")).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().start().await;
    leasehold.wait_ready().await;
    let old = leasehold.connect("app", db.name()).await;
    leasehold.rotate().await;
    let new = leasehold.connect("app", db.name()).await;
    let listed = sessions(&leasehold, "").await;
    let seen: Vec<_> = listed.iter().map(|session| (&session["generation"], &session["role"])).collect();
    let (one, two) = (old.user().await.into(), new.user().await.into());
    assert_eq!(seen, [(&1.into(), &one), (&2.into(), &two)]);
    let ids: Vec<_> = listed.iter().map(|session| session["id"].as_u64().unwrap()).collect();
    assert!(ids.is_sorted(), "{ids:?}");
    assert_eq!(sessions(&leasehold, "?generation=2").await.len(), 1);
}
