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
use super::{Process, Rotated, RotatedRoute, State, Status, guard};
use crate::credentials::{DrainSpan, RotateDone, Route};

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
    let query = Query::of(request.uri.query().unwrap_or(""));
    match endpoint {
        Endpoint::Live => text(StatusCode::OK, "alive\n"),
        Endpoint::Startup => probe(process.startup()),
        Endpoint::Ready => match process.readiness(query.route.as_deref()) {
            Some(answer) => probe(answer),
            None => no_route(),
        },
        Endpoint::Metrics => metrics(process),
        Endpoint::Status => json(StatusCode::OK, &process.status()),
        Endpoint::Rotate => rotate(process, query).await,
        Endpoint::Reload => reload(process).await,
        Endpoint::Quit => {
            tracing::info!(by = "quitquitquit", "shutdown requested");
            process.shutdown.ask();
            text(StatusCode::OK, "shutting down\n")
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint {
    Live,
    Startup,
    Ready,
    Metrics,
    Status,
    Rotate,
    Reload,
    Quit,
}

impl Endpoint {
    fn at(path: &str, scope: Scope) -> Option<Self> {
        let (endpoint, open) = match path {
            "/livez" | "/liveness" => (Self::Live, true),
            "/startup" => (Self::Startup, true),
            "/readyz" | "/readiness" => (Self::Ready, true),
            "/metrics" => (Self::Metrics, true),
            "/status" => (Self::Status, false),
            "/rotate" => (Self::Rotate, false),
            "/reload" => (Self::Reload, false),
            "/quitquitquit" => (Self::Quit, false),
            _ => return None,
        };
        (open || scope == Scope::Admin).then_some(endpoint)
    }

    fn takes(self, method: &Method) -> bool {
        match self {
            Self::Rotate | Self::Reload => method == Method::POST,
            Self::Quit => method == Method::GET || method == Method::POST,
            _ => method == Method::GET || method == Method::HEAD,
        }
    }

    fn methods(self) -> &'static str {
        match self {
            Self::Rotate | Self::Reload => "POST",
            Self::Quit => "GET, POST",
            _ => "GET, HEAD",
        }
    }
}

/// The words of a query that an endpoint may know; others are ignored.
#[derive(Default)]
struct Query {
    /// Not empty.
    route: Option<String>,
    drain: Option<String>,
}

impl Query {
    fn of(text: &str) -> Self {
        let mut query = Self::default();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match name.as_ref() {
                "route" if !value.is_empty() => query.route = Some(value.into_owned()),
                "drain" => query.drain = Some(value.into_owned()),
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

    fn status(&self) -> Status {
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
            vault: (self.vault_status)(),
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
        last_error: status.last_error.map(|error| error.kind),
        unsaved: status.unsaved,
    }
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
        return no_route();
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

fn no_route() -> Response<Full<Bytes>> {
    text(StatusCode::NOT_FOUND, "no such route\n")
}

fn probe(answer: Probe) -> Response<Full<Bytes>> {
    let code = if answer.ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    text(code, answer.detail)
}

fn metrics(process: &Process) -> Response<Full<Bytes>> {
    // Source: https://prometheus.io/docs/instrumenting/exposition_formats/#basic-info
    reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", (process.render_metrics)())
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
