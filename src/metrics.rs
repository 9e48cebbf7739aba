//! Every metric that leasehold keeps: its name, its labels, the function that moves it. Floor 0.
//!
//! Base units are seconds and bytes. A label is a route name from the configuration or a word of an enum of [`labels`], never
//! anything that a client or a server sent.

mod labels;
mod process;
mod recorder;
mod tally;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusHandle, PrometheusRecorder};

use labels::Label;
pub(crate) use labels::{
    Cancel, Closed, Direction, Issuance, LoginFailure, Proof, Renewal, Revocation, VaultOutcome,
};
pub(crate) use recorder::Metrics;
pub(crate) use tally::{CAUSES, Tally};

/// The metrics of one route, looked up once.
///
/// A session and a generation hold it by `Arc`; nothing on the relay's path looks a metric up by name.
pub(crate) struct RouteMetrics {
    series: Arc<Series>,
    /// Its place among those that have had this name.
    place: u64,
}

/// What is counted of one route's name, for as long as a clone exists.
struct Series {
    route: String,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// How many have had this name: of several at a time the latest is the route of that name.
    places: AtomicU64,
    /// `leasehold_sessions`
    sessions: Gauge,
    opened: Counter,
    to_upstream: Counter,
    to_client: Counter,
    tallies: tally::Tallies,
}

impl Series {
    fn new(route: &str) -> Arc<Self> {
        let (recorder, handle) = recorder::build();
        let name = route.to_owned();
        let (sessions, opened, to_upstream, to_client) = metrics::with_local_recorder(&recorder, || {
            begin_at_zero(route);
            (
                gauge!("leasehold_sessions", "route" => name.clone()),
                counter!("leasehold_sessions_opened_total", "route" => name.clone()),
                counter!("leasehold_relayed_bytes_total", "route" => name.clone(), "direction" => Direction::Upstream.as_str()),
                counter!("leasehold_relayed_bytes_total", "route" => name.clone(), "direction" => Direction::Client.as_str()),
            )
        });
        let places = AtomicU64::new(0);
        let tallies = tally::Tallies::default();
        Arc::new(Self {
            route: name,
            recorder,
            handle,
            places,
            sessions,
            opened,
            to_upstream,
            to_client,
            tallies,
        })
    }

    fn route(&self) -> &str {
        &self.route
    }

    fn render(&self) -> String {
        self.handle.render()
    }

    fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Moves a metric of this route: its name goes with `then`.
    fn count(&self, then: impl FnOnce(String)) {
        metrics::with_local_recorder(&self.recorder, || then(self.route.clone()));
    }
}

/// Every outcome of a route is there from the start: an alert on its growth needs the zero.
fn begin_at_zero(route: &str) {
    counter!("leasehold_suspect_logins_total", "route" => route.to_owned()).increment(0);
    zeros::<Closed>("leasehold_sessions_closed_total", "cause", route);
    zeros::<LoginFailure>("leasehold_login_failures_total", "reason", route);
    zeros::<Issuance>("leasehold_issuances_total", "outcome", route);
    zeros::<Proof>("leasehold_proofs_total", "outcome", route);
    zeros::<Renewal>("leasehold_renewals_total", "outcome", route);
    zeros::<Revocation>("leasehold_revocations_total", "outcome", route);
}

fn zeros<L: Label>(name: &'static str, key: &'static str, route: &str) {
    for label in L::ALL {
        let labels = [("route", route.to_owned()), (key, label.word().to_owned())];
        counter!(name, &labels).increment(0);
    }
}

impl RouteMetrics {
    /// For a route that is not rendered; [`Metrics::route`] makes those that are.
    #[must_use]
    #[cfg(test)]
    pub(crate) fn new(route: &str) -> Arc<Self> {
        Self::of(Series::new(route))
    }

    fn of(series: Arc<Series>) -> Arc<Self> {
        let place = series.places.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(Self { series, place })
    }

    /// The route's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.series.route()
    }

    /// A session has had its ReadyForQuery. It is open until the guard is dropped.
    #[must_use]
    pub(crate) fn session_opened(self: &Arc<Self>) -> OpenSession {
        self.series.opened.increment(1);
        self.series.tallies.opened();
        self.series.sessions.increment(1.0);
        OpenSession(Some(Arc::clone(self)))
    }

    /// Bytes relayed.
    pub(crate) fn relayed(&self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Upstream => self.series.to_upstream.increment(bytes),
            Direction::Client => self.series.to_client.increment(bytes),
        }
    }

    /// StartupMessage to ReadyForQuery.
    pub(crate) fn login_took(&self, span: Duration) {
        self.series.count(|route| {
            histogram!("leasehold_login_seconds", "route" => route).record(span.as_secs_f64());
        });
    }

    /// A login failed.
    pub(crate) fn login_failed(&self, reason: LoginFailure) {
        self.series.tallies.login_failed();
        self.series.count(|route| login_failed(&route, reason));
    }

    /// What has been counted of its sessions by now.
    #[must_use]
    pub(crate) fn tally(&self) -> Tally {
        self.series.tallies.now()
    }

    /// A login was refused in a way that puts the credential in doubt.
    pub(crate) fn suspect_login(&self) {
        self.series.count(|route| counter!("leasehold_suspect_logins_total", "route" => route).increment(1));
    }

    /// How many generations are in this state (`candidate`, `standby`, `current`, `retiring`, `lost`).
    pub(crate) fn generations(&self, state: &'static str, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.show(|route| {
            gauge!("leasehold_generations", "route" => route, "state" => state).set(f64::from(count));
        });
    }

    /// Seconds to the latest hard close of a usable credential; 0 without one, infinity for a static role. `None` where
    /// none is meant to be there: the series is not shown.
    pub(crate) fn lease_runway(&self, seconds: Option<f64>) {
        self.show(|route| {
            gauge!("leasehold_lease_runway_seconds", "route" => route).set(seconds.unwrap_or(f64::NAN));
        });
    }

    /// When the current lease ends, in seconds since 1970; 0 without one. `None` where none is meant to be there.
    pub(crate) fn lease_ends(&self, unix_seconds: Option<f64>) {
        self.show(|route| {
            gauge!("leasehold_lease_ends_timestamp_seconds", "route" => route)
                .set(unix_seconds.unwrap_or(f64::NAN));
        });
    }

    /// How long a renewal of the current lease lasts at most. `None` where there is none, or it has no end.
    pub(crate) fn lease_duration(&self, span: Option<Duration>) {
        self.show(|route| {
            gauge!("leasehold_lease_duration_seconds", "route" => route)
                .set(span.map_or(f64::NAN, |span| span.as_secs_f64()));
        });
    }

    /// Whether sessions can log in. `None` where no credential is meant to be there.
    pub(crate) fn ready(&self, is_ready: Option<bool>) {
        self.show(|route| {
            gauge!("leasehold_route_ready", "route" => route).set(is_ready.map_or(f64::NAN, yes_or_no));
        });
    }

    /// What is said of a route's credential. One that was removed does not speak for another of its name.
    fn show(&self, then: impl FnOnce(String)) {
        if self.series.places.load(Ordering::Relaxed) == self.place {
            self.series.count(then);
        }
    }

    /// A creds request ended.
    pub(crate) fn issuance(&self, outcome: Issuance) {
        self.count("leasehold_issuances_total", outcome.as_str());
    }

    /// A proof ended.
    pub(crate) fn proof(&self, outcome: Proof) {
        self.count("leasehold_proofs_total", outcome.as_str());
    }

    /// A successor was published. `reason` is a word of `lease::Reason`.
    pub(crate) fn rotated(&self, reason: &'static str) {
        self.series.count(|route| {
            counter!("leasehold_rotations_total", "route" => route, "reason" => reason).increment(1);
        });
    }

    /// A renewal of a lease ended.
    pub(crate) fn renewal(&self, outcome: Renewal) {
        self.count("leasehold_renewals_total", outcome.as_str());
    }

    /// A lease was given back, or could not be.
    pub(crate) fn revocation(&self, outcome: Revocation) {
        self.count("leasehold_revocations_total", outcome.as_str());
    }

    fn count(&self, name: &'static str, outcome: &'static str) {
        self.series.count(|route| counter!(name, "route" => route, "outcome" => outcome).increment(1));
    }
}

/// One open session in `leasehold_sessions`; counted as closed when dropped. `None`: it has been.
pub(crate) struct OpenSession(Option<Arc<RouteMetrics>>);

impl OpenSession {
    /// Ends it with its cause. Without a call the cause is `error`.
    pub(crate) fn closed(mut self, cause: Closed) {
        self.count(cause);
    }

    fn count(&mut self, closed: Closed) {
        let Some(metrics) = self.0.take() else { return };
        let (series, cause) = (&metrics.series, closed.as_str());
        series.sessions.decrement(1.0);
        series.tallies.closed(closed);
        series.count(|route| {
            counter!("leasehold_sessions_closed_total", "route" => route, "cause" => cause).increment(1);
        });
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.count(Closed::Error);
    }
}

/// A login failed; `route` is `""` where none was found.
pub(crate) fn login_failed(route: &str, reason: LoginFailure) {
    counter!("leasehold_login_failures_total", "route" => route.to_owned(), "reason" => reason.as_str())
        .increment(1);
}

/// A connection failed before its StartupMessage was whole. `reason` is a fixed word.
pub(crate) fn handshake_failed(reason: &'static str) {
    counter!("leasehold_handshake_failures_total", "reason" => reason).increment(1);
}

/// A request to Vault ended. `operation` is a fixed word.
pub(crate) fn vault_request(operation: &'static str, outcome: VaultOutcome, took: Duration) {
    counter!("leasehold_vault_requests_total", "operation" => operation, "outcome" => outcome.as_str())
        .increment(1);
    histogram!("leasehold_vault_request_seconds", "operation" => operation).record(took.as_secs_f64());
}

/// Whether the process is ready, as its probe says, and whether Vault answers and serves. `None`: it was not asked yet, and
/// an alarm for it would be false.
pub(crate) fn standing(is_ready: bool, vault_is_up: Option<bool>) {
    gauge!("leasehold_ready").set(yes_or_no(is_ready));
    if let Some(is_up) = vault_is_up {
        gauge!("leasehold_vault_up").set(yes_or_no(is_up));
    }
}

fn yes_or_no(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// Vault answered with success at this wall-clock time, in seconds since 1970.
pub(crate) fn vault_succeeded(unix_seconds: f64) {
    gauge!("leasehold_vault_last_success_timestamp_seconds").set(unix_seconds);
}

/// A CancelRequest was handled.
pub(crate) fn cancel_request(outcome: Cancel) {
    counter!("leasehold_cancel_requests_total", "outcome" => outcome.as_str()).increment(1);
}

/// Lines of the log that could not be written.
pub(crate) fn log_lines_dropped(lines: u64) {
    counter!("leasehold_log_lines_dropped_total").increment(lines);
}

/// Spans that no collector took.
#[cfg(feature = "otlp")]
pub(crate) fn spans_lost(spans: u64) {
    counter!("leasehold_spans_lost_total").increment(spans);
}

/// Sets `leasehold_build_info`.
pub(crate) fn build_info() {
    gauge!("leasehold_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
}
