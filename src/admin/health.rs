//! When the process counts as started, and as ready. Pure. Floor 5.

use std::time::Duration;

/// The facts of one route that probes depend on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RouteHealth {
    /// Its name.
    pub(crate) name: String,
    /// Whether it has a usable credential.
    pub(crate) ready: bool,
    /// Whether it has a credential only while sessions need one. Then it is no part of startup and readiness.
    pub(crate) lazy: bool,
    /// Whether it has had its first credential.
    pub(crate) has_had_credential: bool,
    /// Whether its first request met a refusal that is not transient.
    pub(crate) was_refused: bool,
    /// Seconds to the latest hard close of a usable credential.
    pub(crate) runway_seconds: Option<f64>,
    /// Its latest error in words, that of its credential first.
    pub(crate) last_error: Option<String>,
    /// Whether the state file lacks what the route holds, as it cannot be written.
    pub(crate) unsaved: bool,
    /// Why no session can log in with its credential, as far as that is known.
    pub(crate) barred: Option<String>,
    /// Why no server gave a session to the latest login, which passes by itself.
    pub(crate) upstream_error: Option<String>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Probe {
    /// 200 or 503.
    pub(crate) ok: bool,
    /// The reasons, one line a route.
    pub(crate) detail: String,
}

/// Whether at least one route has had a credential, and every other one has had one or a refusal that will not go away
/// by itself. The caller latches it.
#[must_use]
pub(crate) fn has_started(routes: &[RouteHealth]) -> bool {
    let mut eager = routes.iter().filter(|route| !route.lazy).peekable();
    eager.peek().is_none()
        || (eager.clone().any(|route| route.has_had_credential)
            && eager.all(|route| route.has_had_credential || route.was_refused))
}

/// The answer of `/startup`.
#[must_use]
pub(crate) fn startup(started: bool, routes: &[RouteHealth]) -> Probe {
    let detail = if started {
        "started\n".to_owned()
    } else {
        routes
            .iter()
            .map(|route| {
                let word = match (route.has_had_credential, route.was_refused) {
                    (false, _) if route.lazy => "lazy, waits for a session".to_owned(),
                    (true, _) => "has had a credential".to_owned(),
                    (false, true) => format!("refused{}", cause(route)),
                    (false, false) => format!("waits for its first credential{}", cause(route)),
                };
                format!("{}: {word}\n", route.name)
            })
            .collect()
    };
    Probe { ok: started, detail }
}

/// The answer of `/readyz`: 200 if the process has started, is not draining, and at least one of these routes is usable.
#[must_use]
pub(crate) fn readiness(started: bool, draining: bool, routes: &[RouteHealth]) -> Probe {
    let mut detail = String::new();
    if draining {
        detail.push_str("shutting down\n");
    }
    if !started {
        detail.push_str("starting\n");
    }
    for route in routes {
        let word = match route.runway_seconds {
            Some(seconds) if route.ready => format!("ready, runway {}", span(seconds)),
            None if route.ready => "ready".to_owned(),
            _ if route.barred.is_some() => format!("no session can log in{}", cause(route)),
            _ if route.lazy => "lazy, waits for a session".to_owned(),
            _ => format!("no usable credential{}", cause(route)),
        };
        let upstream = route.upstream_error.as_ref();
        let upstream = upstream.map(|reason| format!("; no server gives sessions ({reason})"));
        let upstream = upstream.unwrap_or_default();
        let unsaved = if route.unsaved { "; the state file cannot be written" } else { "" };
        detail.push_str(&format!("{}: {word}{upstream}{unsaved}\n", route.name));
    }
    let usable = routes.iter().any(|route| route.ready) || routes.iter().all(|route| route.lazy);
    Probe { ok: started && !draining && usable && !routes.is_empty(), detail }
}

fn cause(route: &RouteHealth) -> String {
    match route.barred.as_ref().or(route.last_error.as_ref()) {
        Some(error) => format!(" ({error})"),
        None => String::new(),
    }
}

/// Whole seconds, as people read them.
fn span(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds.floor()).unwrap_or_default();
    humantime::format_duration(whole).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(name: &str) -> RouteHealth {
        RouteHealth {
            name: name.to_owned(),
            ready: false,
            lazy: false,
            has_had_credential: false,
            was_refused: false,
            runway_seconds: Some(0.0),
            last_error: None,
            unsaved: false,
            barred: None,
            upstream_error: None,
        }
    }

    fn usable(name: &str) -> RouteHealth {
        RouteHealth { ready: true, has_had_credential: true, runway_seconds: Some(3_541.2), ..route(name) }
    }

    fn refused(name: &str) -> RouteHealth {
        RouteHealth { was_refused: true, last_error: Some("permission denied".to_owned()), ..route(name) }
    }

    #[test]
    fn startup_waits_for_every_route_that_may_still_come() {
        assert!(!has_started(&[usable("a"), route("b")]));
        assert!(has_started(&[usable("a"), refused("b")]));
        assert!(has_started(&[usable("a"), usable("b")]));
    }

    #[test]
    fn startup_needs_one_credential_at_least() {
        assert!(!has_started(&[refused("a"), refused("b")]));
    }

    #[test]
    fn startup_needs_nothing_where_no_route_is_eager() {
        assert!(has_started(&[]));
    }

    #[test]
    fn startup_says_which_route_it_waits_for() {
        let probe = startup(false, &[usable("a"), refused("b"), route("c")]);
        assert!(!probe.ok);
        assert_eq!(
            probe.detail,
            "a: has had a credential\nb: refused (permission denied)\nc: waits for its first credential\n"
        );
    }

    #[test]
    fn one_usable_route_is_enough_to_be_ready() {
        let probe = readiness(true, false, &[usable("a"), refused("b")]);
        assert!(probe.ok);
        assert_eq!(probe.detail, "a: ready, runway 59m 1s\nb: no usable credential (permission denied)\n");
    }

    #[test]
    fn a_state_file_that_cannot_be_written_is_said_and_no_reason_not_to_be_ready() {
        let probe = readiness(true, false, &[RouteHealth { unsaved: true, ..usable("a") }]);
        assert!(probe.ok);
        assert_eq!(probe.detail, "a: ready, runway 59m 1s; the state file cannot be written\n");
    }

    #[test]
    fn servers_that_are_away_are_said_and_no_reason_not_to_be_ready() {
        let upstream_error = Some("db:5432: refused".to_owned());
        let probe = readiness(true, false, &[RouteHealth { upstream_error, ..usable("a") }]);
        assert!(probe.ok);
        assert_eq!(probe.detail, "a: ready, runway 59m 1s; no server gives sessions (db:5432: refused)\n");
    }

    #[test]
    fn draining_or_starting_is_not_ready() {
        assert!(!readiness(true, true, &[usable("a")]).ok);
        assert!(!readiness(false, false, &[usable("a")]).ok);
        assert!(readiness(true, true, &[usable("a")]).detail.starts_with("shutting down\n"));
    }

    #[test]
    fn a_route_that_no_session_can_enter_says_why() {
        let barred = RouteHealth { ready: false, barred: Some("no TLS".to_owned()), ..usable("a") };
        let probe = readiness(true, false, &[barred]);
        assert!(!probe.ok);
        assert_eq!(probe.detail, "a: no session can log in (no TLS)\n");
    }

    #[test]
    fn a_lost_credential_is_not_ready_though_started() {
        let lost = RouteHealth { ready: false, ..usable("a") };
        assert!(has_started(std::slice::from_ref(&lost)));
        assert!(!readiness(true, false, &[lost]).ok);
    }
}
