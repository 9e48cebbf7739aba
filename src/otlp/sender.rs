//! The queue of spans that have ended, and the task that sends them. Floor 5.
//!
//! ```text
//! Span is dropped ──▶ queue ──▶ batch ──▶ collector
//!                      │ full             │ not taken
//!                      └──────▶ lost ◀────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry::{Context, InstrumentationScope};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter as _, SpanProcessor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::client::{Client, Latest, Outcome, Rejection};
use super::error::Error;
use crate::clock;
use crate::log_throttle::LogThrottle;
use crate::metrics;
use crate::traces::Traces;

/// Sends spans, once it is started.
pub(crate) struct Sender {
    traces: Traces,
    task: Task,
    queue: Queue,
}

impl Sender {
    /// For these settings, whose files it reads. Blocks.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let (client, latest) = Client::new(settings)?;
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_endpoint(settings.endpoint.as_str())
            .with_timeout(settings.timeout)
            .build()
            .map_err(|_| Error::Exporter)?;
        let resource = resource();
        exporter.set_resource(&resource);
        let (spans, waiting) = mpsc::channel(QUEUED);
        let queue = Queue { spans, in_flight: Arc::default(), lost: Arc::default() };
        let provider =
            SdkTracerProvider::builder().with_resource(resource).with_span_processor(queue.clone()).build();
        let scope = InstrumentationScope::builder(NAME).with_version(env!("CARGO_PKG_VERSION")).build();
        let traces = Traces::of(provider.tracer_with_scope(scope));
        metrics::spans_lost(0);
        tracing::info!(collector = settings.origin(), "spans are sent");
        let task = Task {
            exporter,
            latest,
            waiting,
            in_flight: Arc::clone(&queue.in_flight),
            lost: Arc::clone(&queue.lost),
            within: settings.timeout,
            delay: settings.delay,
            collector: settings.origin(),
            failing: false,
            rejected: 0,
            overflows: LogThrottle::every(SAID_EVERY),
            rejections: LogThrottle::every(SAID_EVERY),
            stop: CancellationToken::new(),
        };
        Ok(Self { traces, task, queue })
    }

    /// What begins the spans that are sent.
    #[must_use]
    pub(crate) fn traces(&self) -> Traces {
        self.traces.clone()
    }

    /// Sends from now on. Call it within a tokio runtime.
    #[must_use]
    pub(crate) fn start(self) -> Sending {
        let stop = self.task.stop.clone();
        Sending { stop, task: tokio::spawn(self.task.run()), queue: self.queue }
    }
}

/// Who sends the spans: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` go first.
fn resource() -> Resource {
    let told = Resource::builder().build();
    let is_named = told.get(&SERVICE_NAME.into()).is_some_and(|name| !name.as_str().starts_with(UNKNOWN));
    let builder = Resource::builder();
    let builder = if is_named { builder } else { builder.with_service_name(NAME) };
    let version = SERVICE_VERSION.into();
    match told.get(&version) {
        Some(_) => builder.build(),
        None => {
            builder.with_attribute(opentelemetry::KeyValue::new(version, env!("CARGO_PKG_VERSION"))).build()
        }
    }
}

/// A sender that is running.
pub(crate) struct Sending {
    stop: CancellationToken,
    task: JoinHandle<()>,
    queue: Queue,
}

impl Sending {
    /// Sends what is left, if that can be done at once, and before `insisted` ends.
    pub(crate) async fn finish(mut self, insisted: impl Future<Output = ()>) {
        self.stop.cancel();
        tracing::debug!(spans = self.queue.len(), "the last spans are sent");
        let in_time = timeout(FINISH_WITHIN, &mut self.task);
        let said = tokio::select! {
            finished = in_time => match finished {
                Ok(_) => return,
                Err(_) => "the collector does not take the last spans in time: they are lost",
            },
            () = insisted => "told twice to stop: the last spans are lost",
        };
        self.task.abort();
        tracing::warn!(spans = self.queue.len(), "{said}");
    }
}

/// Where spans wait, once they have ended.
#[derive(Clone, Debug)]
struct Queue {
    spans: mpsc::Sender<SpanData>,
    in_flight: Arc<AtomicUsize>,
    /// How many found no room since this was said last.
    lost: Arc<AtomicU64>,
}

impl Queue {
    /// How many are on their way.
    fn len(&self) -> usize {
        let waiting = self.spans.max_capacity() - self.spans.capacity();
        waiting + self.in_flight.load(Ordering::Relaxed)
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.spans.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            metrics::spans_lost(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Takes spans from the queue, and sends them.
struct Task {
    exporter: SpanExporter,
    latest: Latest,
    waiting: mpsc::Receiver<SpanData>,
    in_flight: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
    /// How long a batch may take, its repetitions included.
    within: Duration,
    delay: Duration,
    collector: String,
    /// Whether the latest batch was not taken.
    failing: bool,
    /// How many the collector rejected since this was said last.
    rejected: u64,
    overflows: LogThrottle,
    rejections: LogThrottle,
    stop: CancellationToken,
}

impl Task {
    async fn run(mut self) {
        let mut batch = Vec::new();
        while self.fill(&mut batch).await {
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    /// Waits for a whole batch, or for what has come `delay` after its first span. False: it is told to stop, and nothing is
    /// left.
    async fn fill(&mut self, batch: &mut Vec<SpanData>) -> bool {
        let mut due_at = None;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            let due = async {
                match due_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                count = self.waiting.recv_many(batch, room) => {
                    if count == 0 {
                        break;
                    }
                    due_at.get_or_insert_with(|| Instant::now() + self.delay);
                }
                () = self.stop.cancelled() => break,
                () = due => break,
            }
        }
        !batch.is_empty()
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let count = batch.len();
        self.in_flight.store(count, Ordering::Relaxed);
        // The exporter's own bound holds for one request, which it may repeat.
        let sent = timeout(self.within, self.exporter.export(batch)).await;
        self.in_flight.store(0, Ordering::Relaxed);
        let error = match sent {
            Ok(Ok(())) => return self.is_taken(count),
            Ok(Err(error)) => match self.latest.take() {
                Outcome::Failed(words) => words,
                Outcome::Plain | Outcome::Rejected(_) => error.to_string(),
            },
            Err(_) => "no answer in time".to_owned(),
        };
        metrics::spans_lost(u64::try_from(count).unwrap_or(u64::MAX));
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(
                collector = self.collector,
                error,
                "the collector does not take spans: they are lost until it does"
            );
        }
    }
}

impl Task {
    /// The collector has taken a batch of so many spans.
    fn is_taken(&mut self, count: usize) {
        if let Outcome::Rejected(rejection) = self.latest.take() {
            self.count_rejected(&rejection, count);
        }
        if std::mem::take(&mut self.failing) {
            // What found no room in the meantime was lost to the collector's absence, which has been said.
            self.lost.store(0, Ordering::Relaxed);
            tracing::info!(collector = self.collector, "the collector takes spans again");
        }
        self.say_overflow();
    }

    /// Of this batch it keeps a part alone.
    fn count_rejected(&mut self, rejection: &Rejection, count: usize) {
        let spans = rejection.spans.min(u64::try_from(count).unwrap_or(u64::MAX));
        metrics::spans_lost(spans);
        self.rejected += spans;
        if self.rejections.admit(clock::now()).is_some() {
            let spans = std::mem::take(&mut self.rejected);
            let reason = &rejection.reason;
            tracing::warn!(
                collector = self.collector,
                spans,
                reason,
                "the collector rejects spans: they are lost"
            );
        }
    }

    /// Its own queue had no room for some.
    fn say_overflow(&mut self) {
        if self.lost.load(Ordering::Relaxed) > 0 && self.overflows.admit(clock::now()).is_some() {
            let spans = self.lost.swap(0, Ordering::Relaxed);
            tracing::warn!(
                collector = self.collector,
                spans,
                "spans come faster than they are taken, and some are lost"
            );
        }
    }
}

const NAME: &str = "leasehold";
const SERVICE_NAME: &str = "service.name";
const SERVICE_VERSION: &str = "service.version";
/// What OpenTelemetry calls a service that has no name.
const UNKNOWN: &str = "unknown_service";
/// OpenTelemetry's own default of `OTEL_BSP_MAX_QUEUE_SIZE`; a span has about 1 KiB.
const QUEUED: usize = 2048;
/// The same of `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`.
const BATCH: usize = 512;
/// It is the last that the end of the process waits for: sessions and leases have taken their time before.
const FINISH_WITHIN: Duration = Duration::from_secs(2);
/// A line for each batch would be a second fault beside the first.
const SAID_EVERY: Duration = Duration::from_secs(60);
