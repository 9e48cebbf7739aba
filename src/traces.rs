//! Spans: what takes its time in the life of a credential and in a login, for those who collect traces. Floor 0.
//!
//! They begin and end here; `otlp` sends them. Without the feature `otlp`, or where nobody asked for traces, a span is nothing.
//! Names and values are those of the log: route names, words of enums, and what the other side or the network said; nothing that
//! a client sent, and no secret.

#[cfg(not(feature = "otlp"))]
mod nothing;
#[cfg(feature = "otlp")]
mod recorded;

use std::sync::Arc;

#[cfg(not(feature = "otlp"))]
pub(crate) use nothing::{Span, Traces};
#[cfg(feature = "otlp")]
pub(crate) use recorded::{Span, Traces};

/// Whose work a span is.
///
/// Source: <https://opentelemetry.io/docs/specs/otel/trace/api/#spankind>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// leasehold's own.
    Internal,
    /// A server's, which leasehold waits for.
    Client,
    /// leasehold's, which a client waits for.
    Server,
}

/// Begins the spans of one route.
#[derive(Clone)]
pub(crate) struct RouteTraces {
    traces: Traces,
    route: Arc<str>,
}

impl RouteTraces {
    /// Those of the route of this name.
    #[must_use]
    pub(crate) fn new(traces: Traces, route: &str) -> Self {
        Self { traces, route: route.into() }
    }

    /// Begins a trace.
    #[must_use]
    pub(crate) fn begin(&self, kind: Kind, name: &'static str) -> Span {
        self.named(self.traces.begin(kind, name))
    }

    /// Begins a span inside of another.
    #[must_use]
    pub(crate) fn begin_in(&self, parent: &Span, kind: Kind, name: &'static str) -> Span {
        self.named(parent.child(kind, name))
    }

    fn named(&self, mut span: Span) -> Span {
        span.text("route", &self.route);
        span
    }
}
