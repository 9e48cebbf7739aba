//! `/status` for people. Pure. Floor 6.

use std::time::{Duration, SystemTime};

use crate::admin::Status;
use crate::credentials::status::{GenerationStatus, RouteStatus, VaultStatus};
use crate::table::{aligned, row};

/// The whole page: the process, its routes, their credentials.
pub(super) fn render(status: &Status, now: SystemTime) -> String {
    let mut page = format!("leasehold {}, {}\n", clean(&status.version), status.state.as_str());
    page.push_str(&vault(&status.vault, now));
    page.push('\n');
    page.push_str(&routes(&status.routes, now));
    let generations = generations(&status.routes, now);
    if !generations.is_empty() {
        page.push('\n');
        page.push_str(&generations);
    }
    let errors = errors(&status.routes, now);
    if !errors.is_empty() {
        page.push('\n');
        page.push_str(&errors);
    }
    page
}

/// Text that came over a socket, fit for a terminal: control characters become `?`.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn vault(vault: &VaultStatus, now: SystemTime) -> String {
    let reachable = match &vault.trouble {
        Some(trouble) => clean(trouble),
        None => if vault.reachable { "reachable" } else { "not reachable" }.to_owned(),
    };
    let last = match &vault.last_success {
        Some(at) => format!("last success {}", when(at, now)),
        None => "no success yet".to_owned(),
    };
    format!("vault {}, {reachable}, {last}\n", clean(&vault.addr))
}

fn routes(routes: &[RouteStatus], now: SystemTime) -> String {
    let mut rows = vec![row(["ROUTE", "KIND", "READY", "RUNWAY", "SESSIONS", "NEXT", "VAULT PATH"])];
    for route in routes {
        let next = match &route.next_action_at {
            Some(at) => format!("{} {}", route.next_action.as_str(), when(at, now)),
            None => route.next_action.as_str().to_owned(),
        };
        rows.push(vec![
            clean(&route.name),
            clean(&route.kind),
            if route.ready { "yes" } else { "no" }.to_owned(),
            route
                .runway_seconds
                .map_or_else(|| "-".to_owned(), |s| span(Duration::try_from_secs_f64(s).unwrap_or_default())),
            route.sessions.to_string(),
            clean(&next),
            clean(&route.vault_path),
        ]);
    }
    aligned(&rows)
}

fn generations(routes: &[RouteStatus], now: SystemTime) -> String {
    let mut rows = vec![row([
        "ROUTE",
        "GEN",
        "STATE",
        "SESSIONS",
        "ISSUED",
        "RENEWALS",
        "DRAINS",
        "ENDS",
        "LEASE",
        "USER NAME",
    ])];
    for route in routes {
        for generation in &route.generations {
            rows.push(generation_row(&route.name, generation, now));
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    aligned(&rows)
}

fn generation_row(route: &str, generation: &GenerationStatus, now: SystemTime) -> Vec<String> {
    let maybe = |at: &Option<String>| at.as_ref().map_or_else(|| "-".to_owned(), |at| when(at, now));
    vec![
        clean(route),
        generation.generation.to_string(),
        clean(&generation.state),
        generation.sessions.to_string(),
        when(&generation.issued_at, now),
        generation.renewals.to_string(),
        maybe(&generation.drain_at),
        maybe(&generation.ends_at),
        clean(&generation.lease_id),
        clean(&generation.username),
    ]
}

fn errors(routes: &[RouteStatus], now: SystemTime) -> String {
    routes
        .iter()
        .map(|route| {
            let name = clean(&route.name);
            let error = route.last_error.as_ref().map(|error| {
                let past = if error.past { " (has worked since)" } else { "" };
                format!("{name}: last error {}: {}{past}\n", when(&error.at, now), clean(&error.kind))
            });
            let unsaved = route.unsaved.then(|| format!("{name}: the state file cannot be written\n"));
            [error, unsaved].into_iter().flatten().collect::<String>()
        })
        .collect()
}

/// A time of the document as seen from now: `in 52m 3s`, `4s ago`.
fn when(at: &str, now: SystemTime) -> String {
    let Ok(at) = humantime::parse_rfc3339_weak(at) else {
        return clean(at);
    };
    match at.duration_since(now) {
        Ok(ahead) => format!("in {}", span(ahead)),
        Err(past) => format!("{} ago", span(past.duration())),
    }
}

/// The two largest units.
fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let [days, hours, minutes, seconds] =
        [seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60];
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::State;
    use crate::credentials::status::LastError;

    const NOW: &str = "2026-03-01T12:00:00Z";

    fn now() -> SystemTime {
        humantime::parse_rfc3339(NOW).unwrap()
    }

    fn status() -> Status {
        Status {
            version: "0.1.0".to_owned(),
            state: State::Serving,
            vault: VaultStatus {
                addr: "https://vault:8200".to_owned(),
                reachable: true,
                trouble: None,
                last_success: Some("2026-03-01T11:59:57.25Z".to_owned()),
            },
            routes: vec![RouteStatus {
                name: "app".to_owned(),
                vault_path: "database/creds/app-role".to_owned(),
                kind: "dynamic".to_owned(),
                ready: true,
                runway_seconds: Some(3_541.2),
                sessions: 12,
                next_action: crate::lease::NextAction::Renew,
                next_action_at: Some("2026-03-01T12:40:00Z".to_owned()),
                last_error: Some(LastError {
                    at: "2026-03-01T11:00:00Z".to_owned(),
                    kind: "timeout".to_owned(),
                    past: false,
                }),
                unsaved: false,
                generations: vec![GenerationStatus {
                    generation: 3,
                    state: "current".to_owned(),
                    lease_id: "abcdefgh".to_owned(),
                    username: "v-app\x1b[31m".to_owned(),
                    issued_at: "2026-03-01T11:00:00Z".to_owned(),
                    ends_at: Some("2026-03-01T12:52:03Z".to_owned()),
                    drain_at: None,
                    renewals: 2,
                    sessions: 12,
                }],
            }],
        }
    }

    #[test]
    fn status_is_a_page_of_aligned_tables() {
        let expected = "\
leasehold 0.1.0, serving
vault https://vault:8200, reachable, last success 2s ago

ROUTE  KIND     READY  RUNWAY  SESSIONS  NEXT             VAULT PATH
app    dynamic  yes    59m 1s  12        renew in 40m 0s  database/creds/app-role

ROUTE  GEN  STATE    SESSIONS  ISSUED     RENEWALS  DRAINS  ENDS       LEASE     USER NAME
app    3    current  12        1h 0m ago  2         -       in 52m 3s  abcdefgh  v-app?[31m

app: last error 1h 0m ago: timeout
";
        assert_eq!(render(&status(), now()), expected);
    }

    #[test]
    fn a_vault_that_answers_and_does_not_serve_is_shown_as_what_it_is() {
        let shown = |reachable, trouble: Option<&str>| {
            let trouble = trouble.map(str::to_owned);
            vault(&VaultStatus { addr: "a".to_owned(), reachable, trouble, last_success: None }, now())
        };
        assert_eq!(shown(false, Some("sealed")), "vault a, sealed, no success yet\n");
        assert_eq!(shown(false, None), "vault a, not reachable, no success yet\n");
        assert_eq!(shown(true, None), "vault a, reachable, no success yet\n");
    }

    #[test]
    fn a_status_that_cannot_be_dated_is_shown_as_it_came() {
        assert_eq!(when("soon", now()), "soon");
    }

    #[test]
    fn spans_show_their_two_largest_units() {
        let text = |seconds| span(Duration::from_secs(seconds));
        assert_eq!(text(0), "0s");
        assert_eq!(text(61), "1m 1s");
        assert_eq!(text(3 * 3_600 + 62), "3h 1m");
        assert_eq!(text(2 * 86_400 + 7_200), "2d 2h");
    }
}
