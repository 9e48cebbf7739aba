//! One request, one reply. Floor 5.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::health::{self, Probe, RouteHealth};
use super::page::{self, File};
use super::{Process, Rotated, RotatedRoute, SessionList, State, Status, guard};
use crate::credentials::{DrainSpan, RotateDone, Route};
use crate::log::Level;
use crate::metrics;
use crate::nearest::nearest;
use crate::session::status::SessionFilter;

/// The server that was asked, of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Probes and metrics.
    Http,
    /// Everything.
    Admin,
}

/// Answers a request. Its body is not read.
pub(super) async fn handle(process: &Process, scope: Scope, request: &Parts) -> Response<Full<Bytes>> {
    if scope == Scope::Admin {
        let authority = request.uri.authority().map(http::uri::Authority::as_str);
        if let Some(reason) = guard::refusal(&request.headers, authority) {
            return text(StatusCode::FORBIDDEN, reason);
        }
    }
    let Some(endpoint) = Endpoint::at(request.uri.path(), scope) else {
        return text(StatusCode::NOT_FOUND, "no such page\n");
    };
    if !endpoint.takes(&request.method) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "not with this method\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static(endpoint.methods()));
        return refused;
    }
    if endpoint.is_command()
        && let Some(reason) = guard::refusal_of_command(&request.headers)
    {
        return text(StatusCode::FORBIDDEN, reason);
    }
    let query = Query::of(request.uri.query().unwrap_or(""));
    match endpoint {
        Endpoint::Live => text(StatusCode::OK, "alive\n"),
        Endpoint::Startup => probe(process.startup()),
        Endpoint::Ready => match process.readiness(query.route.as_deref()) {
            Some(answer) => probe(answer),
            None => no_route(process, query.route.as_deref()),
        },
        Endpoint::Metrics => metrics(process),
        Endpoint::Status => json(StatusCode::OK, &process.status()),
        Endpoint::Sessions => sessions(process, request.uri.query().unwrap_or("")),
        Endpoint::History => json(StatusCode::OK, &process.history()),
        Endpoint::Page(file) => page(file),
        Endpoint::Rotate => rotate(process, query).await,
        Endpoint::Reload => reload(process).await,
        Endpoint::Log => set_level(process, &query),
        Endpoint::Quit => {
            tracing::info!(by = "quitquitquit", "shutdown requested");
            process.shutdown.ask();
            text(StatusCode::OK, "shutting down\n")
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    Live,
    Startup,
    Ready,
    Metrics,
    Status,
    History,
    Page(&'static File),
    Sessions,
    Rotate,
    Reload,
    Log,
    Quit,
}

impl Endpoint {
    pub(super) fn at(path: &str, scope: Scope) -> Option<Self> {
        let (endpoint, open) = match path {
            "/livez" | "/liveness" => (Self::Live, true),
            "/startup" => (Self::Startup, true),
            "/readyz" | "/readiness" => (Self::Ready, true),
            "/metrics" => (Self::Metrics, true),
            "/status" => (Self::Status, false),
            "/history" => (Self::History, false),
            "/sessions" => (Self::Sessions, false),
            "/rotate" => (Self::Rotate, false),
            "/reload" => (Self::Reload, false),
            "/log" => (Self::Log, false),
            "/quitquitquit" => (Self::Quit, false),
            other => (Self::Page(File::at(other)?), false),
        };
        (open || scope == Scope::Admin).then_some(endpoint)
    }

    /// Whether it changes something.
    pub(super) fn is_command(self) -> bool {
        matches!(self, Self::Rotate | Self::Reload | Self::Log | Self::Quit)
    }

    pub(super) fn takes(self, method: &Method) -> bool {
        match self {
            command if command.is_command() => method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }

    pub(super) fn methods(self) -> &'static str {
        match self {
            command if command.is_command() => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// The words of a query that an endpoint may know; others are ignored.
#[derive(Default)]
pub(super) struct Query {
    /// Not empty.
    pub(super) route: Option<String>,
    drain: Option<String>,
    level: Option<String>,
}

impl Query {
    pub(super) fn of(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match name.as_ref() {
                "route" if !value.is_empty() => query.route = Some(value.into_owned()),
                "drain" => query.drain = Some(value.into_owned()),
                "level" => query.level = Some(value.into_owned()),
                _ => {}
            }
        }
        query
    }
}

impl Process {
    fn health(&self) -> Vec<RouteHealth> {
        self.routes().iter().map(|route| health_of(route)).collect()
    }

    fn has_started(&self, routes: &[RouteHealth]) -> bool {
        if health::has_started(routes) {
            self.started.store(true, Ordering::Relaxed);
        }
        self.started.load(Ordering::Relaxed)
    }

    fn startup(&self) -> Probe {
        let routes = self.health();
        health::startup(self.has_started(&routes), &routes)
    }

    /// `None` if there is no such route.
    fn readiness(&self, name: Option<&str>) -> Option<Probe> {
        let mut routes = self.health();
        let started = self.has_started(&routes);
        if let Some(name) = name {
            routes.retain(|route| route.name == name);
            if routes.is_empty() {
                return None;
            }
        }
        Some(health::readiness(started, self.shutdown.is_requested(), &routes))
    }

    /// The document of `GET /status`.
    pub(crate) fn status(&self) -> Status {
        let state = if self.shutdown.is_requested() {
            State::Draining
        } else if self.has_started(&self.health()) {
            State::Serving
        } else {
            State::Starting
        };
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state,
            vault: (self.readings.vault_status)(),
            routes: self.routes().iter().map(|route| route.status()).collect(),
        }
    }
}

fn health_of(route: &Route) -> RouteHealth {
    let status = route.status();
    RouteHealth {
        name: status.name,
        ready: route.is_ready(),
        barred: route.barred(),
        lazy: route.is_lazy(),
        has_had_credential: route.has_had_credential(),
        was_refused: route.was_refused(),
        runway_seconds: status.runway_seconds,
        last_error: status.credential_error.or(status.last_error).map(|error| error.reason),
        unsaved: status.unsaved,
        upstream_error: status.upstream_error.map(|error| error.reason),
    }
}

/// The open sessions; each word of the query has to fit. A word that no session has is refused: left out, it would give
/// sessions that nobody asked for.
fn sessions(process: &Process, query: &str) -> Response<Full<Bytes>> {
    let mut filter = SessionFilter::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if let Err(reason) = filter.and(&name, &value) {
            return text(StatusCode::BAD_REQUEST, reason + "\n");
        }
    }
    json(StatusCode::OK, &SessionList { sessions: process.readings.sessions.status(&filter) })
}

async fn rotate(process: &Process, query: Query) -> Response<Full<Bytes>> {
    let drain = match query.drain.as_deref() {
        None => None,
        Some("") => Some(DrainSpan::Default),
        Some(span) => match humantime::parse_duration(span) {
            Ok(span) => Some(DrainSpan::For(span)),
            Err(_) => return text(StatusCode::BAD_REQUEST, "drain is not a duration such as 60s\n"),
        },
    };
    let wanted: Vec<_> = process
        .routes()
        .into_iter()
        .filter(|route| query.route.as_deref().is_none_or(|name| name == route.name()))
        .collect();
    if wanted.is_empty() {
        return no_route(process, query.route.as_deref());
    }
    let routes = rotate_all(wanted, drain).await;
    let code = if routes.iter().all(|route| route.error.is_none()) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(code, &Rotated { routes })
}

/// The reply to a reload: 200 with what was done, or 422 with the one line that says why nothing was.
async fn reload(process: &Process) -> Response<Full<Bytes>> {
    let (reply, outcome) = oneshot::channel();
    let asked = process.reloads.send(reply).await.is_ok();
    match if asked { outcome.await.ok() } else { None } {
        Some(Ok(done)) => text(StatusCode::OK, done + "\n"),
        Some(Err(reason)) => text(StatusCode::UNPROCESSABLE_ENTITY, reason + "\n"),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
    }
}

/// Sets the level of the log, until the next reload or start.
fn set_level(process: &Process, query: &Query) -> Response<Full<Bytes>> {
    let Some(level) = query.level.as_deref().and_then(Level::from_word) else {
        return text(StatusCode::BAD_REQUEST, "level is none of error, warn, info, debug, trace\n");
    };
    // It is a warning, so that a level above info does not hide that it was set, and the present level is not `error`.
    let say = || tracing::warn!(log.level = level.as_str(), "the log's level is set until the next reload");
    if level == Level::Error {
        say();
    }
    if let Some(log) = &process.log {
        log.set_level(level);
    }
    if level != Level::Error {
        say();
    }
    text(StatusCode::OK, format!("log level {}\n", level.as_str()))
}

/// Rotates all routes at once. The answers are in the order of the routes.
async fn rotate_all(routes: Vec<Arc<Route>>, drain: Option<DrainSpan>) -> Vec<RotatedRoute> {
    let mut tasks = JoinSet::new();
    let mut answers: Vec<RotatedRoute> = Vec::with_capacity(routes.len());
    for (at, route) in routes.into_iter().enumerate() {
        answers.push(RotatedRoute {
            name: route.name().to_owned(),
            generation: None,
            unchanged_since: None,
            error: Some("the rotation was given up".to_owned()),
        });
        tasks.spawn(async move { (at, route.rotate(drain).await) });
    }
    while let Some(done) = tasks.join_next().await {
        if let Ok((at, outcome)) = done
            && let Some(answer) = answers.get_mut(at)
        {
            answer.error = None;
            match outcome {
                Ok(RotateDone::Published(generation)) => answer.generation = Some(generation.get()),
                Ok(RotateDone::Unchanged { since }) => answer.unchanged_since = Some(since),
                Err(failed) => answer.error = Some(failed.to_string()),
            }
        }
    }
    answers
}

fn no_route(process: &Process, wanted: Option<&str>) -> Response<Full<Bytes>> {
    let routes = process.routes();
    let names: Vec<&str> = routes.iter().map(|route| route.name()).collect();
    let meant = wanted.and_then(|wanted| nearest(wanted, names.iter().copied()));
    text(
        StatusCode::NOT_FOUND,
        match meant {
            Some(meant) => format!("no such route; did you mean {meant}?\n"),
            None if names.is_empty() => "no such route\n".to_owned(),
            None => format!("no such route; there is {}\n", names.join(", ")),
        },
    )
}

fn probe(answer: Probe) -> Response<Full<Bytes>> {
    let code = if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, answer.detail)
}

fn page(file: &File) -> Response<Full<Bytes>> {
    let mut reply = reply(StatusCode::OK, file.kind, file.body());
    page::restrict(reply.headers_mut());
    reply
}

fn metrics(process: &Process) -> Response<Full<Bytes>> {
    let is_ready = process.readiness(None).is_some_and(|answer| answer.ok);
    let vault = (process.readings.vault_status)();
    metrics::standing(is_ready, vault.was_asked().then_some(vault.reachable));
    // Source: https://prometheus.io/docs/instrumenting/exposition_formats/#basic-info
    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (process.readings.render_metrics)())
}

fn text(code: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(code, "text/plain; charset=utf-8", body)
}

fn json(code: StatusCode, body: &impl serde::Serialize) -> Response<Full<Bytes>> {
    match serde_json::to_vec(body) {
        Ok(mut body) => {
            body.push(b'\n');
            reply(code, "application/json", body)
        }
        Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the answer cannot be written\n"),
    }
}

fn reply(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = code;
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}
