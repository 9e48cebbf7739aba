//! What the console shows: views of the process by SHOW. No secret is among them. Floor 5.

mod sessions;
mod stats;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

use crate::admin::{Process, Status};
use crate::clock;
use crate::credentials::status::{GenerationStatus, RouteStatus};
use crate::postgres::console::View;
use crate::postgres::protocol::backend::{Column, Type, Value};
use crate::session::status::SessionFilter;

/// A setting, as SHOW CONFIG shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownSetting {
    /// With its table, and for a route with the route's name.
    pub(crate) key: String,
    pub(crate) value: String,
    /// Where it was written, or `default`.
    pub(crate) origin: String,
    /// What a reload does with a changed value.
    pub(crate) on_reload: &'static str,
}

/// The settings in force, which a reload replaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings(Arc<RwLock<Vec<ShownSetting>>>);

impl Settings {
    /// These are in force from now on.
    pub(crate) fn set(&self, settings: Vec<ShownSetting>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn get(&self) -> Vec<ShownSetting> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All views but HELP, in the order of that.
#[must_use]
pub(crate) fn views(process: &Arc<Process>, settings: Settings) -> Vec<View> {
    let of_status = |name, about, columns, rows: fn(Status) -> Vec<Vec<Value>>| {
        let process = Arc::clone(process);
        View { name, about, columns, rows: Box::new(move || rows(process.status())) }
    };
    let metrics = Arc::clone(process);
    let open = Arc::clone(&process.readings.sessions);
    vec![
        of_status("routes", "routes: whether each is ready, and why not", ROUTES, routes),
        of_status(
            "credentials",
            "generations of credentials: lease, role, ages, ends",
            CREDENTIALS,
            credentials,
        ),
        View {
            name: "sessions",
            about: "open sessions: client, route, credential, upstream, state",
            columns: sessions::COLUMNS,
            rows: Box::new(move || {
                open.status(&SessionFilter::default()).into_iter().map(sessions::row).collect()
            }),
        },
        View {
            name: "stats",
            about: "counts since the start, by route",
            columns: stats::COLUMNS,
            rows: Box::new(move || stats::rows(&metrics.routes(), &(metrics.readings.render_metrics)())),
        },
        of_status("vault", "the secret server", VAULT, vault),
        View {
            name: "config",
            about: "settings in force, and where each was written",
            columns: CONFIG,
            rows: Box::new(move || settings.get().into_iter().map(setting).collect()),
        },
        of_status("version", "the version, and what the process does", VERSION, version),
    ]
}

fn routes(status: Status) -> Vec<Vec<Value>> {
    let row = |route: RouteStatus| {
        let error = route.credential_error.or(route.upstream_error).or(route.last_error);
        let (last_error, last_error_at) = error.map_or((None, None), |error| {
            let past = if error.past { " (has worked since)" } else { "" };
            (Some(error.reason + past), Some(error.at))
        });
        vec![
            text(route.name),
            text(route.kind),
            Value::Bool(route.ready),
            route.runway_seconds.map_or(Value::Null, Value::Float8),
            count(route.sessions),
            text(route.next_action.as_str().to_owned()),
            time(route.next_action_at.as_deref()),
            optional(last_error),
            time(last_error_at.as_deref()),
            text(route.vault_path),
            text(route.user),
            text(route.database),
            text(route.upstream),
        ]
    };
    status.routes.into_iter().map(row).collect()
}

fn credentials(status: Status) -> Vec<Vec<Value>> {
    let now = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    let of_route = |route: RouteStatus| {
        let name = route.name;
        route.generations.into_iter().map(move |generation| credential(&name, generation, now))
    };
    status.routes.into_iter().flat_map(of_route).collect()
}

fn credential(route: &str, generation: GenerationStatus, now: Duration) -> Vec<Value> {
    let issued_at = since_1970(Some(&generation.issued_at));
    let ends_at = since_1970(generation.ends_at.as_deref());
    let age = issued_at.map_or(Value::Null, |at| seconds(now.saturating_sub(at)));
    let left = ends_at.map_or(Value::Null, |at| seconds(at.saturating_sub(now)));
    vec![
        text(route.to_owned()),
        Value::Int8(i64::try_from(generation.generation).unwrap_or(i64::MAX)),
        text(generation.state),
        count(generation.sessions),
        text(generation.username),
        text(generation.lease_id),
        age,
        left,
        Value::Int8(i64::from(generation.renewals)),
        time(Some(&generation.issued_at)),
        time(generation.drain_at.as_deref()),
        time(generation.ends_at.as_deref()),
    ]
}

fn vault(status: Status) -> Vec<Vec<Value>> {
    let vault = status.vault;
    vec![vec![
        text(vault.addr),
        Value::Bool(vault.reachable),
        optional(vault.trouble),
        time(vault.last_success.as_deref()),
    ]]
}

fn version(status: Status) -> Vec<Vec<Value>> {
    vec![vec![text(format!("leasehold {}", status.version)), text(status.state.as_str().to_owned())]]
}

fn setting(setting: ShownSetting) -> Vec<Value> {
    vec![text(setting.key), text(setting.value), text(setting.origin), text(setting.on_reload.to_owned())]
}

fn text(text: String) -> Value {
    Value::Text(text)
}

fn optional(text: Option<String>) -> Value {
    text.map_or(Value::Null, Value::Text)
}

fn count(count: usize) -> Value {
    Value::Int8(i64::try_from(count).unwrap_or(i64::MAX))
}

/// To the second: what is shown every two seconds is read by people.
fn seconds(span: Duration) -> Value {
    Value::Int8(i64::try_from(span.as_secs()).unwrap_or(i64::MAX))
}

/// A time of the status, RFC 3339 in UTC.
fn time(at: Option<&str>) -> Value {
    since_1970(at).map_or(Value::Null, Value::Timestamptz)
}

fn since_1970(at: Option<&str>) -> Option<Duration> {
    humantime::parse_rfc3339(at?).ok()?.duration_since(UNIX_EPOCH).ok()
}

const ROUTES: &[Column] = &[
    ("route", Type::Text),
    ("kind", Type::Text),
    ("ready", Type::Bool),
    ("runway_seconds", Type::Float8),
    ("sessions", Type::Int8),
    ("next_action", Type::Text),
    ("next_action_at", Type::Timestamptz),
    ("last_error", Type::Text),
    ("last_error_at", Type::Timestamptz),
    ("vault_path", Type::Text),
    ("user", Type::Text),
    ("database", Type::Text),
    ("upstream", Type::Text),
];

const CREDENTIALS: &[Column] = &[
    ("route", Type::Text),
    ("generation", Type::Int8),
    ("state", Type::Text),
    ("sessions", Type::Int8),
    ("role", Type::Text),
    ("lease_id", Type::Text),
    ("age_seconds", Type::Int8),
    ("ends_in_seconds", Type::Int8),
    ("renewals", Type::Int8),
    ("issued_at", Type::Timestamptz),
    ("drain_at", Type::Timestamptz),
    ("ends_at", Type::Timestamptz),
];

const VAULT: &[Column] = &[
    ("addr", Type::Text),
    ("reachable", Type::Bool),
    ("trouble", Type::Text),
    ("last_success", Type::Timestamptz),
];

const CONFIG: &[Column] =
    &[("key", Type::Text), ("value", Type::Text), ("origin", Type::Text), ("a_reload", Type::Text)];

const VERSION: &[Column] = &[("version", Type::Text), ("state", Type::Text)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_the_status_are_times() {
        assert_eq!(time(Some("1970-01-01T00:00:01.500Z")), Value::Timestamptz(Duration::from_millis(1_500)));
        assert_eq!(time(None), Value::Null);
    }

    #[test]
    fn a_credential_has_a_value_for_each_column() {
        let generation = GenerationStatus {
            generation: 3,
            state: "current".to_owned(),
            lease_id: "12345678".to_owned(),
            username: "v-app".to_owned(),
            issued_at: "1970-01-01T00:00:10Z".to_owned(),
            ends_at: None,
            drain_at: None,
            renewals: 2,
            sessions: 1,
        };
        let row = credential("app", generation, Duration::from_secs(15));
        assert_eq!(row.len(), CREDENTIALS.len());
        assert_eq!((&row[6], &row[7]), (&Value::Int8(5), &Value::Null));
    }
}
