//! Tests of the queue, of the task that sends, and of its client, against a scripted collector. Floor 5.

mod collector;

use std::future::{pending, ready};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use opentelemetry_http::HttpClient as _;
use serde_json::Value;
use tokio::net::TcpListener;

use super::client::{Client, Outcome, Rejection};
use super::{Sender, Settings, settings};
use crate::traces::{Kind, Traces};
use collector::{Answer, Collector};

/// As many as wait for the collector.
const QUEUED: usize = 2048;
const TOO_FAST: &str = "spans come faster than they are taken, and some are lost";
const AWAY: &str = "the collector does not take spans: they are lost until it does";
const BACK: &str = "the collector takes spans again";
const REJECTS: &str = "the collector rejects spans: they are lost";

/// What is logged and counted on this thread from its beginning to its end.
struct Output {
    log: Log,
    counted: PrometheusHandle,
    _guards: (tracing::subscriber::DefaultGuard, metrics::LocalRecorderGuard<'static>),
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output {
    fn begin() -> Self {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().json().with_writer(move || writer.clone()).finish();
        // It is borrowed by its guard, and beside that in a struct it could not move.
        let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
        let counted = recorder.handle();
        let guards =
            (tracing::subscriber::set_default(subscriber), metrics::set_default_local_recorder(recorder));
        Self { log, counted, _guards: guards }
    }

    /// The fields of the lines with this message.
    fn said(&self, message: &str) -> Vec<Value> {
        let text = String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["fields"].clone()).filter(|fields| fields["message"] == message).collect()
    }

    /// `leasehold_spans_lost_total`
    fn lost(&self) -> usize {
        let text = self.counted.render();
        let sample = text.lines().find_map(|line| line.strip_prefix("leasehold_spans_lost_total "));
        sample.unwrap().parse().unwrap()
    }
}

fn settings(url: &str) -> Settings {
    let get = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some(url),
        "OTEL_BSP_SCHEDULE_DELAY" => Some("1"),
        _ => None,
    };
    settings::read(&get, true).unwrap().unwrap()
}

fn sender(url: &str) -> Sender {
    Sender::new(&settings(url)).unwrap()
}

/// Begins and ends so many.
fn spans(traces: &Traces, count: usize) {
    for _ in 0..count {
        traces.begin(Kind::Internal, "span").end();
    }
}

async fn until(holds: impl Fn() -> bool) {
    let waits = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("it holds in the end");
}

/// A test's task runs only while the test waits: until then nothing is taken from the queue.
#[tokio::test]
async fn spans_beyond_the_queue_are_counted_and_said_once_when_the_collector_takes_some() {
    let output = Output::begin();
    let collector = Collector::answering(&[]).await;
    let sender = sender(collector.url());
    let traces = sender.traces();
    spans(&traces, QUEUED + 7);
    assert_eq!((output.lost(), output.said(TOO_FAST).len()), (7, 0));
    let sending = sender.start();
    let taken = || collector.requests().iter().map(Vec::len).sum::<usize>();
    until(|| taken() == QUEUED && !output.said(TOO_FAST).is_empty()).await;
    assert_eq!(output.said(TOO_FAST)[0]["spans"], 7);

    spans(&traces, QUEUED + 2);
    until(|| taken() >= 2 * QUEUED).await;
    sending.finish(pending()).await;
    assert_eq!(output.lost(), 9, "it is counted");
    assert_eq!(output.said(TOO_FAST).len(), 1, "and a line a minute is enough");
    assert_eq!(output.said(AWAY).len(), 0);
}

#[tokio::test]
async fn what_finds_no_room_while_the_collector_is_away_is_said_by_that_alone() {
    let output = Output::begin();
    let collector = Collector::answering(&[Answer::Status(401)]).await;
    let sender = sender(collector.url());
    spans(&sender.traces(), QUEUED + 7);
    let sending = sender.start();
    until(|| !output.said(BACK).is_empty()).await;
    until(|| collector.requests().len() == 4).await;
    sending.finish(pending()).await;
    assert_eq!(output.said(AWAY).len(), 1);
    assert!(
        output.said(AWAY)[0]["error"].to_string().contains("status code: 401"),
        "{:?}",
        output.said(AWAY)
    );
    assert_eq!(output.said(TOO_FAST).len(), 0);
    assert_eq!(output.lost(), 7 + 512, "the queue's and the batch");
}

#[tokio::test]
async fn spans_that_a_collector_rejects_are_lost_said_once_and_never_sent_again() {
    let output = Output::begin();
    let rejects = Answer::Rejects(2, "older than an hour");
    let collector = Collector::answering(&[rejects, rejects, Answer::Rejects(900, "")]).await;
    let sender = sender(collector.url());
    let traces = sender.traces();
    let sending = sender.start();
    for batch in 1..=3 {
        spans(&traces, 3);
        until(|| collector.requests().len() == batch).await;
    }
    until(|| output.lost() >= 7).await;
    sending.finish(pending()).await;
    let sizes: Vec<_> = collector.requests().iter().map(Vec::len).collect();
    assert_eq!(sizes, [3, 3, 3], "nothing is sent twice");
    let said = output.said(REJECTS);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((&said[0]["spans"], &said[0]["reason"]), (&2.into(), &"older than an hour".into()));
    assert_eq!(output.lost(), 2 + 2 + 3, "a batch of three has not lost 900");
    assert_eq!(output.said(AWAY).len(), 0, "it takes spans");
}

#[tokio::test]
async fn an_answer_that_rejects_nothing_says_nothing() {
    let output = Output::begin();
    let script = [Answer::Rejects(0, "upgrade soon"), Answer::Rejects(-1, "")];
    let collector = Collector::answering(&script).await;
    let sender = sender(collector.url());
    let traces = sender.traces();
    let sending = sender.start();
    for batch in 1..=2 {
        spans(&traces, 1);
        until(|| collector.requests().len() == batch).await;
    }
    sending.finish(pending()).await;
    assert_eq!((output.lost(), output.said(REJECTS).len()), (0, 0));
}

#[tokio::test]
async fn the_reason_of_a_collector_is_cut_and_repeats_no_header() {
    let reason = "Bearer for-the-collector sends too much: for-the-collector";
    let long = "ä".repeat(400).leak();
    let script = [Answer::Rejects(1, reason), Answer::Status(503), Answer::Rejects(1, long)];
    let collector = Collector::answering(&script).await;
    let (client, latest) = Client::new(&settings(collector.url())).unwrap();
    let post = async || {
        let request =
            http::Request::post(collector.url()).header("authorization", "Bearer for-the-collector");
        client.send_bytes(request.body(Vec::new().into()).unwrap()).await.unwrap();
        latest.take()
    };
    let redacted = "Bearer [redacted] sends too much: [redacted]".to_owned();
    assert_eq!(post().await, Outcome::Rejected(Rejection { spans: 1, reason: redacted }));
    assert_eq!(latest.take(), Outcome::Plain, "it is told once");
    assert_eq!(post().await, Outcome::Plain, "nothing of the request before");
    assert_eq!(post().await, Outcome::Rejected(Rejection { spans: 1, reason: "ä".repeat(300) }));
}

/// One that takes connections and says nothing.
async fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    (listener, url)
}

/// Nothing but time can end it, which is why its clock jumps.
#[tokio::test(start_paused = true)]
async fn the_end_waits_for_the_last_spans_no_longer_than_its_bound() {
    let output = Output::begin();
    let (_mute, url) = mute().await;
    let sender = sender(&url);
    spans(&sender.traces(), 3);
    sender.start().finish(pending()).await;
    let said = output.said("the collector does not take the last spans in time: they are lost");
    assert!(said.len() == 1 && said[0]["spans"] == 3, "{said:?}");
}

#[tokio::test]
async fn whoever_insists_on_the_end_waits_for_no_span() {
    let output = Output::begin();
    let (_mute, url) = mute().await;
    let sender = sender(&url);
    spans(&sender.traces(), 3);
    sender.start().finish(ready(())).await;
    let said = output.said("told twice to stop: the last spans are lost");
    assert!(said.len() == 1 && said[0]["spans"] == 3, "{said:?}");
}
