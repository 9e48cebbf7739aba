//! The recorder behind `/metrics`: buckets, and a line of help for every metric. Floor 0.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{
    BuildError, Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use super::process::Process;
use super::{RouteMetrics, Series};

/// The process' metrics. Those of a route are kept by themselves, so that they go with it.
pub(crate) struct Metrics {
    recorder: PrometheusHandle,
    process: Process,
    /// By name. What lives is held by the route's sessions and by its driver.
    routes: Mutex<Vec<Weak<Series>>>,
}

impl Metrics {
    /// Makes the process' metrics visible. Call it once, before any metric moves.
    ///
    /// # Errors
    /// If there is a recorder already.
    pub(crate) fn install() -> Result<Self, BuildError> {
        let recorder = builder()?.install_recorder()?;
        describe();
        Ok(Self::of(recorder))
    }

    fn of(recorder: PrometheusHandle) -> Self {
        Self { recorder, process: Process::new(), routes: Mutex::default() }
    }

    /// The metrics of the route with this name. Where another one of this name is still there, since it was removed and
    /// has sessions, they share the counts; what is said of the credential is the newest one's word alone.
    #[must_use]
    pub(crate) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.retain(|series| series.strong_count() > 0);
        let known = routes.iter().filter_map(Weak::upgrade).find(|series| series.route() == name);
        let series = known.unwrap_or_else(|| {
            let series = Series::new(name);
            routes.push(Arc::downgrade(&series));
            series
        });
        RouteMetrics::of(series)
    }

    /// As text, in Prometheus' format.
    #[must_use]
    pub(crate) fn render(&self) -> String {
        let mut families = Families::default();
        families.add(&self.recorder.render());
        families.add(&self.process.render());
        for series in self.living() {
            families.add(&series.render());
        }
        families.text()
    }

    /// Folds up the samples of histograms. Call it every few seconds, as there may be no scraper that does it.
    pub(crate) fn run_upkeep(&self) {
        self.recorder.run_upkeep();
        for series in self.living() {
            series.run_upkeep();
        }
    }

    fn living(&self) -> Vec<Arc<Series>> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().filter_map(Weak::upgrade).collect()
    }
}

/// A recorder with its handle. A fault in the buckets, which are fixed, was found by [`Metrics::install`].
pub(super) fn build() -> (PrometheusRecorder, PrometheusHandle) {
    let recorder = builder().unwrap_or_default().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, describe);
    (recorder, handle)
}

/// Several texts as one, in which each metric is described once.
///
/// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/#text-format-details>
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

/// One metric.
#[derive(Default)]
struct Family {
    described: String,
    samples: String,
}

impl Families {
    fn add(&mut self, text: &str) {
        let mut none = Family::default();
        let mut family = &mut none;
        for line in text.lines() {
            let comment = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
            if let Some(name) = comment.and_then(|comment| comment.split(' ').next()) {
                family = self.0.entry(name.to_owned()).or_default();
                if !family.described.contains(line) {
                    push(&mut family.described, line);
                }
            } else if !line.is_empty() && !line.ends_with(NOTHING) {
                push(&mut family.samples, line);
            }
        }
    }

    fn text(self) -> String {
        let mut text = String::new();
        for family in self.0.into_values().filter(|family| !family.samples.is_empty()) {
            text.push_str(&family.described);
            text.push_str(&family.samples);
            text.push('\n');
        }
        text
    }
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// How a gauge without a value ends its line.
const NOTHING: &str = " NaN";

fn builder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("leasehold_login_seconds".to_owned()), &LOGIN)?
        .set_buckets_for_metric(Matcher::Full("leasehold_vault_request_seconds".to_owned()), &VAULT)
}

fn describe() {
    describe_gauge!("leasehold_sessions", "Sessions that are open");
    describe_counter!("leasehold_sessions_opened_total", "Sessions that were let in");
    describe_counter!("leasehold_sessions_closed_total", "Sessions that ended, by cause");
    describe_histogram!(
        "leasehold_login_seconds",
        "From a client's startup message to its first ready-for-query"
    );
    describe_counter!("leasehold_login_failures_total", "Logins that failed, by reason");
    describe_counter!(
        "leasehold_suspect_logins_total",
        "Logins refused in a way that puts the credential in doubt"
    );
    describe_gauge!("leasehold_generations", "Credentials that are held, by state");
    describe_gauge!(
        "leasehold_lease_runway_seconds",
        "How long sessions can go on if the secret server never answers again"
    );
    describe_gauge!("leasehold_lease_ends_timestamp_seconds", "When the current lease ends, in Unix time");
    describe_gauge!(
        "leasehold_lease_duration_seconds",
        "How long a renewal of the current lease lasts at most: the lease, or its token's usable life if that is shorter"
    );
    describe_gauge!("leasehold_route_ready", "1 if sessions can log in through the route");
    describe_gauge!("leasehold_ready", "1 if the process is ready, as /readyz says");
    describe_gauge!(
        "leasehold_vault_up",
        "1 if the secret server has answered the latest request, and serves"
    );
    describe_counter!("leasehold_issuances_total", "Requests for a credential, by outcome");
    describe_counter!("leasehold_proofs_total", "Logins that tried a fresh credential, by outcome");
    describe_counter!("leasehold_rotations_total", "Credentials that were published, by reason");
    describe_counter!("leasehold_renewals_total", "Renewals of leases, by outcome");
    describe_counter!(
        "leasehold_revocations_total",
        "Leases that were given back or left to lapse, by outcome"
    );
    describe_counter!("leasehold_vault_requests_total", "Requests to the secret server, by outcome");
    describe_histogram!("leasehold_vault_request_seconds", "How long requests to the secret server took");
    describe_gauge!(
        "leasehold_vault_last_success_timestamp_seconds",
        "When the secret server last answered with success, in Unix time"
    );
    describe_counter!("leasehold_relayed_bytes_total", "Bytes that were relayed, by direction");
    describe_counter!("leasehold_cancel_requests_total", "Requests to cancel a query, by outcome");
    describe_counter!(
        "leasehold_handshake_failures_total",
        "Connections that failed before their startup message was whole, by reason"
    );
    describe_counter!("leasehold_log_lines_dropped_total", "Lines of the log that could not be written");
    describe_counter!("leasehold_spans_lost_total", "Spans that no collector took");
    describe_gauge!("leasehold_build_info", "1, with the version");
}

/// A login on one host takes milliseconds; 10 s is `login_wait`.
const LOGIN: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// A credential takes tens of milliseconds; 60 s is the default `client_timeout`.
const VAULT: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name in metrics.rs, found in its text.
    fn names() -> Vec<&'static str> {
        include_str!("../metrics.rs").split('"').filter(|word| word.starts_with("leasehold_")).collect()
    }

    #[test]
    fn every_metric_has_help_and_type() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            describe();
            for name in names() {
                if name.ends_with("_total") {
                    metrics::counter!(name).increment(1);
                } else if ["leasehold_login_seconds", "leasehold_vault_request_seconds"].contains(&name) {
                    metrics::histogram!(name).record(0.1);
                } else {
                    metrics::gauge!(name).set(1.0);
                }
            }
        });
        let text = handle.render();
        assert!(names().len() > 20);
        for name in names() {
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
        }
    }

    fn all_metrics() -> Metrics {
        Metrics::of(builder().unwrap().build_recorder().handle())
    }

    fn lines<'a>(text: &'a str, part: &str) -> Vec<&'a str> {
        text.lines().filter(|line| line.contains(part)).collect()
    }

    #[test]
    fn a_routes_series_go_with_it() {
        let all = all_metrics();
        let (one, two) = (all.route("one"), all.route("two"));
        for route in [&one, &two] {
            route.lease_runway(Some(60.0));
            route.login_took(std::time::Duration::from_millis(3));
            route.issuance(super::super::Issuance::Ok);
        }
        let session = one.session_opened();
        let both = all.render();
        assert_eq!(lines(&both, "# TYPE leasehold_issuances_total counter").len(), 1, "{both}");
        assert_eq!(lines(&both, "# HELP leasehold_issuances_total").len(), 1, "{both}");
        let issued = lines(&both, "leasehold_issuances_total{");
        assert_eq!(issued.iter().filter(|line| line.ends_with(" 1")).count(), 2, "{both}");
        assert_eq!(
            issued.iter().filter(|line| line.ends_with(" 0")).count(),
            4,
            "the other outcomes: {both}"
        );
        drop(one);
        assert_eq!(
            lines(&all.render(), "leasehold_sessions{route=\"one\"}"),
            ["leasehold_sessions{route=\"one\"} 1"]
        );
        drop(session);
        let left = all.render();
        assert!(lines(&left, "\"one\"").is_empty(), "{left}");
        assert!(!lines(&left, "\"two\"").is_empty(), "{left}");
    }

    #[test]
    fn two_of_a_name_share_the_counts_and_the_newest_speaks_of_the_credential() {
        let all = all_metrics();
        let before = all.route("app");
        let session = before.session_opened();
        before.lease_runway(Some(5.0));
        let after = all.route("app");
        let another = after.session_opened();
        after.lease_runway(Some(60.0));
        after.lease_ends(Some(100.0));
        before.lease_runway(None);
        before.lease_ends(Some(0.0));
        before.generations("current", 0);
        let text = all.render();
        assert_eq!(lines(&text, "leasehold_sessions{"), ["leasehold_sessions{route=\"app\"} 2"]);
        assert_eq!(lines(&text, "runway_seconds{"), ["leasehold_lease_runway_seconds{route=\"app\"} 60"]);
        assert_eq!(
            lines(&text, "ends_timestamp_seconds{"),
            ["leasehold_lease_ends_timestamp_seconds{route=\"app\"} 100"]
        );
        assert!(lines(&text, "leasehold_generations").is_empty(), "{text}");
        drop((session, another));
    }

    #[test]
    fn what_has_no_value_has_no_line() {
        let all = all_metrics();
        let route = all.route("app");
        route.lease_runway(Some(0.0));
        assert_eq!(lines(&all.render(), "runway").len(), 3);
        route.lease_runway(None);
        assert!(lines(&all.render(), "runway").is_empty());
    }

    #[test]
    fn histograms_have_fixed_buckets() {
        let recorder = builder().unwrap().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, || {
            metrics::histogram!("leasehold_login_seconds", "route" => "app").record(0.003);
        });
        let text = handle.render();
        assert!(text.contains("leasehold_login_seconds_bucket{route=\"app\",le=\"0.005\"} 1"), "{text}");
        assert!(text.contains("leasehold_login_seconds_bucket{route=\"app\",le=\"0.0025\"} 0"), "{text}");
    }
}
