//! SHOW STATS: the counters of the metrics, a row for each route. Floor 5.

use std::sync::Arc;

use crate::credentials::Route;
use crate::postgres::protocol::backend::{Column, Type, Value};

/// Where a column comes from: a metric, and the label that its series must have.
const STATS: [(&str, Option<(&str, &str)>); 9] = [
    ("leasehold_sessions", None),
    ("leasehold_sessions_opened_total", None),
    ("leasehold_sessions_closed_total", None),
    ("leasehold_login_failures_total", None),
    ("leasehold_relayed_bytes_total", Some(("direction", "upstream"))),
    ("leasehold_relayed_bytes_total", Some(("direction", "client"))),
    ("leasehold_issuances_total", Some(("outcome", "ok"))),
    ("leasehold_rotations_total", None),
    ("leasehold_renewals_total", Some(("outcome", "ok"))),
];

/// The route, and then one column for each of [`STATS`].
pub(super) const COLUMNS: &[Column] = &[
    ("route", Type::Text),
    ("sessions", Type::Int8),
    ("sessions_opened", Type::Int8),
    ("sessions_closed", Type::Int8),
    ("login_failures", Type::Int8),
    ("bytes_to_upstream", Type::Int8),
    ("bytes_to_client", Type::Int8),
    ("credentials_issued", Type::Int8),
    ("rotations", Type::Int8),
    ("renewals", Type::Int8),
];

/// `metrics`: as `/metrics` shows them.
pub(super) fn rows(routes: &[Arc<Route>], metrics: &str) -> Vec<Vec<Value>> {
    routes.iter().map(|route| row(route.name(), metrics)).collect()
}

fn row(route: &str, metrics: &str) -> Vec<Value> {
    let of_route = format!("route=\"{route}\"");
    let series = metrics.lines().filter_map(Series::parse).filter(|series| series.labels.contains(&of_route));
    let mut sums = [0.0; STATS.len()];
    for series in series {
        for (sum, (metric, label)) in sums.iter_mut().zip(STATS) {
            let has = |(name, value)| series.labels.contains(&format!("{name}=\"{value}\""));
            if series.metric == metric && label.is_none_or(has) {
                *sum += series.value;
            }
        }
    }
    // A count is a whole number, and far below where a float has none.
    let counts = sums.iter().map(|sum| Value::Int8(*sum as i64));
    [Value::Text(route.to_owned())].into_iter().chain(counts).collect()
}

/// A line of the metrics.
struct Series<'a> {
    metric: &'a str,
    labels: &'a str,
    value: f64,
}

impl<'a> Series<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (metric, rest) = line.split_once('{')?;
        let (labels, value) = rest.rsplit_once("} ")?;
        Some(Self { metric, labels, value: value.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_a_route_are_summed() {
        let metrics = "\
# TYPE leasehold_sessions gauge
leasehold_sessions{route=\"app\"} 2
leasehold_sessions{route=\"app2\"} 7
leasehold_sessions_closed_total{route=\"app\",cause=\"client\"} 3
leasehold_sessions_closed_total{route=\"app\",cause=\"drain\"} 4
leasehold_relayed_bytes_total{route=\"app\",direction=\"client\"} 99
leasehold_lease_runway_seconds{route=\"app\"} NaN
";
        let counts = [2, 0, 7, 0, 0, 99, 0, 0, 0].map(Value::Int8);
        assert_eq!(row("app", metrics)[1..], counts);
        assert_eq!(row("app", metrics).len(), COLUMNS.len());
    }
}
