//! `/status` for people. Pure. Floor 6.

use std::time::{Duration, SystemTime};

use crate::admin::{State, Status};
use crate::credentials::status::{GenerationStatus, LastError, RouteStatus, VaultStatus};
use crate::table::{give_way, painted, row};
use crate::terminal::{Colour, Terminal, wrapped};

/// The whole page: the process, its routes, what is wrong with them, their credentials. What comes last is what a small
/// terminal does not show.
pub(super) fn render(status: &Status, now: SystemTime, terminal: Terminal) -> String {
    let page = Page { now, terminal };
    let state = match status.state {
        State::Serving => Colour::Green,
        State::Starting | State::Draining => Colour::Yellow,
    };
    let state = terminal.paint(Some(state), status.state.as_str());
    let mut text = format!("leasehold {}, {state}\n", clean(&status.version));
    text.push_str(&page.vault(&status.vault));
    text.push('\n');
    text.push_str(&page.routes(&status.routes));
    for more in [page.errors(&status.routes), page.generations(&status.routes)] {
        if !more.is_empty() {
            text.push('\n');
            text.push_str(&more);
        }
    }
    text
}

/// Text that came over a socket, fit for a terminal: control characters become `?`.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// What the page is made for.
#[derive(Clone, Copy)]
struct Page {
    now: SystemTime,
    terminal: Terminal,
}

impl Page {
    fn vault(self, vault: &VaultStatus) -> String {
        let word = match &vault.trouble {
            Some(trouble) => clean(trouble),
            None => if vault.reachable { "reachable" } else { "not reachable" }.to_owned(),
        };
        let last = match &vault.last_success {
            Some(at) => format!(", last success {}", when(at, self.now)),
            None if vault.was_asked() => ", no success yet".to_owned(),
            None => String::new(),
        };
        let colour = match vault.reachable {
            true => Colour::Green,
            false if vault.was_asked() => Colour::Red,
            false => Colour::Dim,
        };
        let word = self.terminal.paint(Some(colour), &word);
        format!("vault {}, {word}{last}\n", clean(&vault.addr))
    }

    fn routes(self, routes: &[RouteStatus]) -> String {
        let mut rows = vec![row([
            "ROUTE",
            "KIND",
            "USER",
            "DATABASE",
            "UPSTREAM",
            "STATE",
            "RUNWAY",
            "SESSIONS",
            "NEXT",
            "VAULT PATH",
        ])];
        let mut colours = vec![None];
        for route in routes {
            let next = match &route.next_action_at {
                Some(at) => format!("{} {}", route.next_action.as_str(), due(at, self.now)),
                None => route.next_action.as_str().to_owned(),
            };
            let runway = |seconds| span(Duration::try_from_secs_f64(seconds).unwrap_or_default());
            let (state, colour) = state(route);
            colours.push(Some(colour));
            rows.push(vec![
                clean(&route.name),
                clean(&route.kind),
                or_dash(&route.user),
                or_dash(&route.database),
                or_dash(&route.upstream),
                state.to_owned(),
                route.runway_seconds.map_or_else(|| "-".to_owned(), runway),
                route.sessions.to_string(),
                clean(&next),
                clean(&route.vault_path),
            ]);
        }
        // What the configuration says too gives way first.
        give_way(&mut rows, &[VAULT_PATH], usize::MAX, self.terminal.width());
        painted(&rows, Some(self.terminal.width()), |at, column, cell| {
            let colour = colours.get(at).copied().flatten().filter(|_| column == STATE);
            self.terminal.paint(colour, cell)
        })
    }

    fn generations(self, routes: &[RouteStatus]) -> String {
        let mut rows = vec![row([
            "ROUTE", "GEN", "STATE", "ROLE", "AGE", "SESSIONS", "RENEWALS", "DRAINS", "ENDS", "LEASE",
        ])];
        for route in routes {
            let of_route = route.generations.iter();
            rows.extend(of_route.map(|generation| self.generation(&route.name, generation)));
        }
        if rows.len() == 1 {
            return String::new();
        }
        let colours: Vec<_> = rows.iter().map(|row| row.get(2).map(|state| of_generation(state))).collect();
        painted(&rows, Some(self.terminal.width()), |at, column, cell| {
            let colour = colours.get(at).copied().flatten().flatten().filter(|_| column == 2);
            self.terminal.paint(colour, cell)
        })
    }

    fn generation(self, route: &str, generation: &GenerationStatus) -> Vec<String> {
        let maybe = |at: &Option<String>| at.as_ref().map_or_else(|| "-".to_owned(), |at| when(at, self.now));
        vec![
            clean(route),
            generation.generation.to_string(),
            clean(&generation.state),
            clean(&generation.username),
            age(&generation.issued_at, self.now),
            generation.sessions.to_string(),
            generation.renewals.to_string(),
            maybe(&generation.drain_at),
            maybe(&generation.ends_at),
            clean(&generation.lease_id),
        ]
    }

    /// Whole: the reason is what somebody has come for.
    fn errors(self, routes: &[RouteStatus]) -> String {
        let mut text = String::new();
        for (colour, line) in routes.iter().flat_map(|route| self.errors_of(route)) {
            for line in wrapped(&line, self.terminal.width(), INDENT) {
                text.push_str(&self.terminal.paint(Some(colour), &line));
                text.push('\n');
            }
        }
        text
    }

    fn errors_of(self, route: &RouteStatus) -> Vec<(Colour, String)> {
        let name = clean(&route.name);
        let said = |error: &LastError| format!("{}: {}", when(&error.at, self.now), clean(error.words()));
        let apart = route
            .credential_error
            .as_ref()
            .filter(|error| route.last_error.as_ref().is_none_or(|last| last.words() != error.words()));
        let credential =
            apart.map(|error| (Colour::Red, format!("{name}: no fresh credential, {}", said(error))));
        let upstream = route
            .upstream_error
            .as_ref()
            .map(|error| (Colour::Red, format!("{name}: no server gives sessions, {}", said(error))));
        let last = route.last_error.as_ref().map(|error| match error.past {
            true => (Colour::Dim, format!("{name}: last error {} (has worked since)", said(error))),
            false => (Colour::Red, format!("{name}: last error {}", said(error))),
        });
        let unsaved =
            route.unsaved.then(|| (Colour::Yellow, format!("{name}: the state file cannot be written")));
        [credential, upstream, last, unsaved].into_iter().flatten().collect()
    }
}

/// The word for a route as a whole, and its colour.
fn state(route: &RouteStatus) -> (&'static str, Colour) {
    match route {
        RouteStatus { ready: true, upstream_error: None, .. } => ("ready", Colour::Green),
        RouteStatus { ready: true, .. } => ("no server", Colour::Red),
        // A lazy route without sessions has no runway, and is meant to have no credential.
        RouteStatus { runway_seconds: None, generations, .. } if generations.is_empty() => {
            ("idle", Colour::Dim)
        }
        RouteStatus { .. } => ("not ready", Colour::Red),
    }
}

fn of_generation(state: &str) -> Option<Colour> {
    match state {
        "current" => Some(Colour::Green),
        "retiring" => Some(Colour::Dim),
        "lost" => Some(Colour::Red),
        _ => None,
    }
}

/// A leasehold of an earlier version does not say it.
fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { clean(text) }
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

/// A time of the document at which something is to be done: it is done now where that time has come.
fn due(at: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339_weak(at) {
        Ok(at) if at <= now => "now".to_owned(),
        _ => when(at, now),
    }
}

/// How long ago a time of the document was, as seen from now.
pub(super) fn age(at: &str, now: SystemTime) -> String {
    match humantime::parse_rfc3339_weak(at) {
        Ok(at) => span(now.duration_since(at).unwrap_or_default()),
        Err(_) => clean(at),
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

/// Columns of a route.
const STATE: usize = 5;
const VAULT_PATH: usize = 9;
/// How far a reason is indented where it goes on.
const INDENT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

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
                user: "*".to_owned(),
                database: "*".to_owned(),
                upstream: "db1:5432,db2:5432".to_owned(),
                ready: true,
                runway_seconds: Some(3_541.2),
                sessions: 12,
                next_action: crate::lease::NextAction::Renew,
                next_action_at: Some("2026-03-01T12:40:00Z".to_owned()),
                last_error: Some(LastError {
                    at: "2026-03-01T11:00:00Z".to_owned(),
                    kind: "timeout".to_owned(),
                    reason: "renew: Vault: no answer in time".to_owned(),
                    past: false,
                }),
                credential_error: None,
                upstream_error: None,
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

    const FILE: Terminal = Terminal { size: None, colours: false };

    #[test]
    fn status_is_a_page_of_aligned_tables() {
        let expected = "\
leasehold 0.1.0, serving
vault https://vault:8200, reachable, last success 2s ago

ROUTE  KIND     USER  DATABASE  UPSTREAM           STATE  RUNWAY  SESSIONS  NEXT
app    dynamic  *     *         db1:5432,db2:5432  ready  59m 1s  12        renew in 40m 0s

app: last error 1h 0m ago: renew: Vault: no answer in time

ROUTE  GEN  STATE    ROLE        AGE    SESSIONS  RENEWALS  DRAINS  ENDS       LEASE
app    3    current  v-app?[31m  1h 0m  12        2         -       in 52m 3s  abcdefgh
";
        assert_eq!(render(&status(), now(), FILE), expected);
        let wide = render(&status(), now(), Terminal { size: Some((120, 50)), ..FILE });
        assert!(wide.contains("  renew in 40m 0s  database/creds/app-role\n"), "{wide}");
    }

    #[test]
    fn a_page_is_no_wider_than_its_terminal_whatever_is_in_it() {
        let mut status = status();
        let [route] = &mut status.routes[..] else { panic!("one route") };
        let long = "a very long name that somebody has chosen ".repeat(3);
        for text in [&mut route.name, &mut route.user, &mut route.database, &mut route.upstream] {
            text.clone_from(&long);
        }
        let at = "2026-03-01T11:59:00Z".to_owned();
        let kind = "no server gives sessions".to_owned();
        route.upstream_error = Some(LastError { at, kind, reason: "x".repeat(300), past: false });
        route.generations[0].username = long;
        let widths = |width: Option<usize>| {
            let terminal = Terminal { size: width.map(|width| (width, 50)), ..FILE };
            render(&status, now(), terminal).lines().map(|line| line.chars().count()).max()
        };
        assert_eq!(widths(None), Some(100));
        assert_eq!(widths(Some(140)), Some(140));
        let page = render(&status, now(), FILE);
        assert_eq!(page.matches('x').count(), 300, "a reason is there as a whole");
        assert!(page.contains("no server"), "{page}");
    }

    #[test]
    fn a_terminal_with_colours_sees_what_is_wrong() {
        let terminal = Terminal { size: Some((100, 50)), colours: true };
        let mut status = status();
        let page = render(&status, now(), terminal);
        assert!(page.contains("\x1b[32mready\x1b[0m  59m 1s"), "{page}");
        assert!(page.contains("\x1b[32mcurrent\x1b[0m"), "{page}");
        status.routes[0].ready = false;
        let page = render(&status, now(), terminal);
        assert!(page.contains("\x1b[31mnot ready\x1b[0m"), "{page}");
        assert!(!render(&status, now(), FILE).contains('\x1b'));
    }

    #[test]
    fn a_vault_that_answers_and_does_not_serve_is_shown_as_what_it_is() {
        let shown = |reachable, trouble: Option<&str>| {
            let trouble = trouble.map(str::to_owned);
            let page = Page { now: now(), terminal: FILE };
            page.vault(&VaultStatus { addr: "a".to_owned(), reachable, trouble, last_success: None })
        };
        assert_eq!(shown(false, Some("sealed")), "vault a, sealed, no success yet\n");
        assert_eq!(shown(false, None), "vault a, not reachable, no success yet\n");
        assert_eq!(shown(true, None), "vault a, reachable, no success yet\n");
        assert_eq!(shown(false, Some("not asked yet")), "vault a, not asked yet\n");
    }

    #[test]
    fn a_status_that_cannot_be_dated_is_shown_as_it_came() {
        assert_eq!(when("soon", now()), "soon");
        assert_eq!(due("soon", now()), "soon");
    }

    #[test]
    fn what_was_due_a_moment_ago_is_done_now() {
        assert_eq!(due("2026-03-01T11:59:57Z", now()), "now");
        assert_eq!(due("2026-03-01T12:00:04Z", now()), "in 4s");
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
