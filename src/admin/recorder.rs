//! The recorder behind `/metrics`: buckets, and a line of help for every metric. Floor 5.

use metrics::{describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Makes the process' metrics visible. Call it once, before any metric moves; render with the handle, and call its
/// `run_upkeep` every few seconds, or histograms nobody scrapes keep their samples.
///
/// # Errors
/// If there is a recorder already.
pub fn install_recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = builder()?.install_recorder()?;
    describe();
    Ok(handle)
}

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
