//! `/metrics`: every promised one, with its type, its help, and labels from enums alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::harness::{Backends, SOON, Spec, eventually, same};

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_there_after_a_story_with_labels_of_enums_alone() {
    let backends = Backends::new(Spec::new("app").ttl("24s", "1h").policy(Spec::MAY_REVOKE)).await;
    let Backends { db, .. } = &backends;
    let leasehold = backends.leasehold().flag("--limits-replica-grace", "1s").start().await;
    leasehold.wait_ready().await;
    let session = leasehold.connect("app", db.name()).await;
    assert!(session.cancel_token().cancel_query(tokio_postgres::NoTls).await.is_ok());
    leasehold.connect("app", db.name()).await.close().await;
    assert!(leasehold.command(&["rotate"]).await.status.success());
    let mut rubbish = leasehold.connect_raw().await;
    rubbish.write(b"GET / HTTP/1.1\r\n\r\n").await;
    rubbish.until("E").await;
    assert!(leasehold.try_connect("app", "no_such_database").await.is_err());
    // Renewals of both; then the old one is left and given back; then the new one's role loses its password.
    eventually(SOON * 4, async || {
        same(leasehold.metrics().await.get("renewals_total", &[("outcome", "ok")]) >= 2.0, true)
    })
    .await;
    session.close().await;
    eventually(SOON, async || {
        same(leasehold.metrics().await.get("revocations_total", &[("outcome", "lease")]), 1.0)
    })
    .await;
    let [role] = &db.roles().await[..] else { panic!("one role is left") };
    db.admin.batch_execute(&format!("ALTER ROLE \"{role}\" PASSWORD 'another'")).await.unwrap();
    leasehold.connect("app", db.name()).await;

    let text = leasehold.http("/metrics").await.text;

    let documented = documented();
    let exported = exported(&text);
    let seen: BTreeSet<&String> = exported.keys().collect();
    assert_eq!(seen, documented.keys().collect(), "those of docs/operations.md");
    for (name, series) in &exported {
        let Documented { kind, labels, words } = &documented[name];
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} in {text}");
        assert!(text.contains(&format!("# HELP {name} ")), "{name} in {text}");
        for seen in series {
            let keys: BTreeSet<String> = seen.keys().cloned().collect();
            assert_eq!(&keys, labels, "{name} {seen:?}");
            for (key, value) in seen {
                let known = match key.as_str() {
                    "route" => ["app", ""].contains(&value.as_str()),
                    "version" => value == env!("CARGO_PKG_VERSION"),
                    // A row without words has those of the other rows with this label.
                    key if words.is_empty() => documented
                        .values()
                        .any(|other| other.labels.contains(key) && other.words.contains(value)),
                    _ => words.contains(value),
                };
                assert!(known, "{name}: {value} is no word of {key} in docs/operations.md");
            }
        }
    }
}

/// A row of the table of metrics.
struct Documented {
    kind: &'static str,
    labels: BTreeSet<String>,
    /// Everything between backticks in its text: the words of its labels are among them.
    words: BTreeSet<String>,
}

/// The table of docs/operations.md, by the metrics' whole names.
fn documented() -> BTreeMap<String, Documented> {
    let text = include_str!("../../../docs/operations.md");
    let (_, section) = text.split_once("\n## Metrics\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let row = |line: &'static str| {
        let [_, name, labels, text, _] = &line.split('|').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let name = name.trim().trim_matches('`');
        let name = if name.starts_with("process_") { name.to_owned() } else { format!("leasehold_{name}") };
        let kind = match text.trim() {
            text if text.starts_with("histogram") => "histogram",
            _ if name.ends_with("_total") => "counter",
            _ => "gauge",
        };
        (name, Documented { kind, labels: quoted(labels), words: quoted(text) })
    };
    let rows: BTreeMap<_, _> = section.lines().filter(|line| line.starts_with("| `")).map(row).collect();
    assert!(rows.len() > 25, "{:?}", rows.keys());
    rows
}

/// What is between backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The labels of every series, by the metrics' names.
fn exported(text: &str) -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let mut all = BTreeMap::<String, Vec<_>>::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let histogram = base.filter(|base| text.contains(&format!("# TYPE {base} histogram\n")));
        let labels = labels.trim_end_matches('}').split(',').filter_map(|label| label.split_once('='));
        let labels = labels.filter(|(key, _)| *key != "le");
        let labels = labels.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()));
        all.entry(histogram.unwrap_or(name).to_owned()).or_default().push(labels.collect());
    }
    all
}
