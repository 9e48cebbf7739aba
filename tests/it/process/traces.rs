//! Traces: what a collector gets of a real run, and what becomes of the run when there is none.

use std::collections::BTreeSet;

use serde_json::Value;

use super::output;
use crate::harness::{
    Authority, Backends, Builder, Collector, Fault, Mode, SOON, Spec, bench, eventually, field, same, traced,
};

/// Its environment: spans go to this address, soon.
fn to(described: Builder, addr: &str) -> Builder {
    described
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{addr}"))
        .env("OTEL_BSP_SCHEDULE_DELAY", "50")
}

fn is(span: &Value, key: &str, value: impl Into<Value>) -> bool {
    let value: Value = value.into();
    span["attributes"][key] == value
}

/// The spans right under this one, by their names.
fn under(spans: &[Value], parent: &Value) -> BTreeSet<String> {
    let children = spans.iter().filter(|span| span["parent"] == parent["id"]);
    children
        .map(|span| {
            assert_eq!(span["trace"], parent["trace"], "{span}");
            field(span, "name")
        })
        .collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_spans_of_issuance_rotation_renewal_login_and_revocation() {
    let backends = Backends::new(Spec::new("app").ttl("20s", "1h").policy(Spec::MAY_REVOKE)).await;
    let collector = Collector::start(None).await;
    let described = to(backends.leasehold(), &collector.addr())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20for-the-collector")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        .binary(traced().await);
    let mut leasehold = described.start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", backends.db.name()).await;
    assert!(leasehold.try_connect("app", "no_such_database").await.is_err());
    collector.until("vault.renew", |span| is(span, "outcome", "ok")).await;
    leasehold.rotate().await;
    let role = leasehold.connect("app", backends.db.name()).await.user().await;
    drop(session);
    assert_eq!(leasehold.stop().await.code(), Some(0));
    // Those of the end are sent before the process ends.
    let revoked = collector.until("vault.revoke", |span| is(span, "lease.generation", 2)).await;
    assert_eq!((&revoked["kind"], &revoked["attributes"]["outcome"]), (&"client".into(), &"ok".into()));

    let spans = collector.spans();
    let [first, second] = &collector.named("issuance")[..] else { panic!("two: {spans:?}") };
    assert!(is(first, "reason", "first") && is(first, "outcome", "published"), "{first}");
    assert!(is(first, "lease.generation", 1) && first["parent"] == "", "{first}");
    assert_eq!(under(&spans, first), names(&["vault.login", "vault.issue", "proof"]));
    let [rotation] = &collector.named("rotation")[..] else { panic!("one: {spans:?}") };
    assert!(is(rotation, "reason", "command") && is(rotation, "outcome", "published"), "{rotation}");
    assert!(is(rotation, "lease.generation", 2) && rotation["parent"] == "", "{rotation}");
    assert_eq!(under(&spans, rotation), names(&["issuance"]));
    assert_eq!(second["parent"], rotation["id"]);
    assert!(under(&spans, second).is_superset(&names(&["vault.issue", "proof"])), "{spans:?}");
    assert_ne!(first["trace"], second["trace"]);

    let logins = collector.named("client.login");
    let ok: Vec<_> = logins.iter().filter(|span| is(span, "outcome", "ok")).collect();
    let generations: Vec<_> = ok.iter().map(|span| span["attributes"]["lease.generation"].clone()).collect();
    assert_eq!(generations, [1, 2], "{logins:?}");
    assert_eq!(ok[0]["kind"], "server");
    assert!(is(ok[0], "upstream.addr", backends.db.server.addr()), "{}", ok[0]);
    let opened = leasehold.log().messages("session opened");
    assert_eq!(ok[0]["attributes"]["session.id"].to_string(), field(&opened[0], "session.id"));
    let failed = logins.iter().find(|span| is(span, "outcome", "upstream_error")).unwrap();
    assert_eq!(failed["status"], "error");

    for span in &spans {
        assert!(is(span, "route", "app") && span["ended"].as_u64() >= span["begun"].as_u64(), "{span}");
        assert_eq!(span["resource"]["service.name"], "leasehold");
        assert_eq!(span["resource"]["service.version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(span["resource"]["deployment.environment"], "test");
        assert_eq!(span["headers"]["authorization"], "Bearer for-the-collector");
        assert!(!span.to_string().contains(&role), "{span}");
    }
    assert!(!leasehold.log().0.contains("for-the-collector"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_says_why_as_the_log_does() {
    let backends = Backends::new(Spec::new("app")).await;
    let collector = Collector::start(None).await;
    let leasehold = to(backends.leasehold(), &collector.addr()).binary(traced().await).start().await;
    leasehold.wait_ready().await;
    backends.vault.delete(&format!("{}/roles/app", backends.setup.mount())).await;
    assert!(!leasehold.command(&["rotate"]).await.status.success());

    let rotation = collector.until("rotation", |span| is(span, "outcome", "failed")).await;
    let issued = collector.until("vault.issue", |span| is(span, "outcome", "refused")).await;
    assert_eq!((&rotation["status"], &issued["status"]), (&"error".into(), &"error".into()));
    let words = field(&issued, "error");
    assert!(words.contains("unknown role"), "{issued}");
    assert!(field(&rotation, "error").contains(&words), "{rotation}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_holds_up_nothing_and_what_is_lost_is_counted_and_said_once() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let mut collector = Collector::start(None).await;
    let way = Fault::before(&collector.addr()).await;
    way.set(Mode::Refuse).await;
    let described = to(backends.leasehold(), &way.addr().to_string()).binary(traced().await);
    let mut leasehold = described.start().await;
    leasehold.wait_ready().await;
    let lost = async || leasehold.metrics().await.get("spans_lost_total", &[]);
    let login = async || leasehold.connect("app", backends.db.name()).await.close().await;
    let lose_some = async || {
        let before = lost().await;
        eventually(SOON, async || {
            login().await;
            same(lost().await > before, true)
        })
        .await;
    };
    lose_some().await;
    lose_some().await;
    let said = "the collector does not take spans: they are lost until it does";
    leasehold.wait_log(said).await;
    let lines = leasehold.log().messages(said);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(field(&lines[0], "error").contains("Connection refused"), "{lines:?}");

    way.set(Mode::Pass).await;
    login().await;
    leasehold.wait_log("the collector takes spans again").await;
    collector.until("client.login", |_| true).await;
    collector.answer_with(401);
    lose_some().await;
    leasehold.wait_log("status code: 401").await;
    assert_eq!(leasehold.log().messages(said).len(), 2);

    collector.answer_with(200);
    way.set(Mode::Blackhole).await;
    way.cut();
    login().await;
    assert_eq!(leasehold.stop().await.code(), Some(0));
    let last = leasehold.log().messages("the collector does not take the last spans in time: they are lost");
    assert!(last.len() == 1 && last[0]["spans"].as_u64() > Some(0), "{last:?}");
    assert_eq!(backends.db.roles().await, [""; 0], "what is leased is given back all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_that_a_collector_rejects_are_counted_said_in_its_words_and_not_sent_again() {
    let backends = Backends::new(Spec::new("app")).await;
    let mut collector = Collector::start(None).await;
    collector.reject(1, "for-the-collector may send nothing");
    let described = to(backends.leasehold(), &collector.addr())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20for-the-collector")
        .binary(traced().await);
    let mut leasehold = described.start().await;
    leasehold.wait_ready().await;
    let said = "the collector rejects spans: they are lost";
    leasehold.wait_log(said).await;
    let lines = leasehold.log().messages(said);
    assert_eq!(field(&lines[0], "reason"), "[redacted] may send nothing", "a header is not shown");
    assert!(leasehold.metrics().await.get("spans_lost_total", &[]) >= 1.0);

    assert_eq!(leasehold.stop().await.code(), Some(0));
    let ids: Vec<_> = collector.spans().iter().map(|span| field(span, "id")).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "none is sent twice: {ids:?}");
    assert_eq!(leasehold.log().messages(said).len(), 1, "whatever is rejected in the same minute");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_term_ends_the_wait_for_the_last_spans() {
    let backends = Backends::new(Spec::new("app").policy(Spec::MAY_REVOKE)).await;
    let collector = Collector::start(None).await;
    let way = Fault::before(&collector.addr()).await;
    way.set(Mode::Blackhole).await;
    let described = to(backends.leasehold(), &way.addr().to_string()).binary(traced().await);
    let mut leasehold = described.start().await;
    leasehold.wait_ready().await;
    leasehold.sigterm();
    leasehold.wait_log("the last spans are sent").await;

    leasehold.sigterm();

    assert_eq!(leasehold.wait_exit().await.code(), Some(0));
    let last = leasehold.log().messages("told twice to stop: the last spans are lost");
    assert!(last.len() == 1 && last[0]["spans"].as_u64() > Some(0), "{}", leasehold.log().0);
    assert_eq!(backends.db.roles().await, [""; 0], "what is leased was given back before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_by_https_is_trusted_by_the_certificate_that_the_variables_name() {
    let backends = Backends::new(Spec::new("app")).await;
    let directory = bench().directory().await;
    let (ours, other) = (Authority::new(&directory, "ours"), Authority::new(&directory, "other"));
    let collector = Collector::start(Some(&ours.issue("collector", 7))).await;
    let described = async |ca: &Authority| {
        to(backends.leasehold(), "unused")
            .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &format!("https://{}/v1/traces", collector.addr()))
            .env("OTEL_EXPORTER_OTLP_CERTIFICATE", ca.ca.to_str().unwrap())
            .binary(traced().await)
            .start()
            .await
    };
    let leasehold = described(&ours).await;
    collector.until("issuance", |span| is(span, "outcome", "published")).await;
    drop(leasehold);
    let leasehold = described(&other).await;
    leasehold.wait_log("the collector does not take spans").await;
    assert!(leasehold.log().0.contains("invalid peer certificate"), "{}", leasehold.log().0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_warned_of_and_nothing_is_sent_unless_it_is_asked_for() {
    let backends = Backends::new(Spec::new("app")).await;
    let collector = Collector::start(None).await;
    // The build without the feature.
    let leasehold = to(backends.leasehold(), &collector.addr()).start().await;
    leasehold.wait_ready().await;
    let warned = leasehold.log().at("WARN").join("\n");
    assert!(warned.contains("OTEL_EXPORTER_OTLP_ENDPOINT: this leasehold is built without the feature otlp"));
    drop(leasehold);
    let traced = traced().await;
    let mut version = std::process::Command::new(&traced);
    version.arg("--version");
    assert!(String::from_utf8(output(version).await.stdout).unwrap().contains("(otlp)"));
    // The one with it, told to speak what it does not; and told nothing.
    let grpc = to(backends.leasehold(), &collector.addr()).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let leasehold = grpc.binary(traced.clone()).start().await;
    leasehold.wait_ready().await;
    assert!(leasehold.log().at("WARN").join("\n").contains("leasehold speaks http/protobuf alone"));
    let leasehold = backends.leasehold().binary(traced.clone()).start().await;
    leasehold.wait_ready().await;
    assert!(!leasehold.log().0.contains("spans are sent"), "{}", leasehold.log().0);
    assert!(!leasehold.http("/metrics").await.text.contains("spans_lost"));
    // Told to send: what follows is the first that comes.
    let leasehold = to(backends.leasehold(), &collector.addr()).binary(traced).start().await;
    collector.until("issuance", |_| true).await;
    let reasons: BTreeSet<_> = collector.named("issuance").iter().map(|span| field(span, "trace")).collect();
    assert_eq!(reasons.len(), 1, "only the last of them has sent any");
    drop(leasehold);
}
