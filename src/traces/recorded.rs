//! Spans of a build with the feature `otlp`: those of OpenTelemetry's SDK, where traces were asked for. Floor 0.

use std::fmt::Display;

use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{self as sdk, SdkTracer};

use super::Kind;

/// Begins traces; by default none.
#[derive(Clone, Default)]
pub(crate) struct Traces(Option<SdkTracer>);

impl Traces {
    /// Those of this tracer.
    #[must_use]
    pub(crate) fn of(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Begins a trace.
    #[must_use]
    pub(crate) fn begin(&self, kind: Kind, name: &'static str) -> Span {
        Span(self.0.as_ref().map(|tracer| Recorded::begin(tracer, kind, name, &Context::new())))
    }
}

/// A span, until it is dropped.
pub(crate) struct Span(Option<Box<Recorded>>);

struct Recorded {
    span: sdk::Span,
    tracer: SdkTracer,
}

impl Recorded {
    fn begin(tracer: &SdkTracer, kind: Kind, name: &'static str, parent: &Context) -> Box<Self> {
        let kind = match kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Client => SpanKind::Client,
            Kind::Server => SpanKind::Server,
        };
        let builder = SpanBuilder::from_name(name).with_kind(kind);
        Box::new(Self { span: tracer.build_with_context(builder, parent), tracer: tracer.clone() })
    }
}

impl Span {
    /// Begins a span inside of this one.
    #[must_use]
    pub(crate) fn child(&self, kind: Kind, name: &'static str) -> Self {
        Self(self.0.as_deref().map(|Recorded { span, tracer }| {
            let parent = Context::new().with_remote_span_context(span.span_context().clone());
            Recorded::begin(tracer, kind, name, &parent)
        }))
    }

    /// Sets an attribute to a word of an enum.
    pub(crate) fn word(&mut self, key: &'static str, value: &'static str) {
        self.set(|| KeyValue::new(key, value));
    }

    /// Sets an attribute to a text.
    pub(crate) fn text(&mut self, key: &'static str, value: &str) {
        self.set(|| KeyValue::new(key, value.to_owned()));
    }

    /// Sets an attribute to a number.
    pub(crate) fn number(&mut self, key: &'static str, value: u64) {
        self.set(|| KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
    }

    /// It has ended, as by being dropped.
    pub(crate) fn end(self) {}

    /// It has failed: a word of an enum, and why in one line without secrets.
    pub(crate) fn fail(&mut self, outcome: &'static str, error: &dyn Display) {
        self.word("outcome", outcome);
        self.error(error);
    }

    /// Why it has failed, in one line without secrets.
    pub(crate) fn error(&mut self, error: &dyn Display) {
        if let Some(recorded) = &mut self.0 {
            recorded.span.set_status(Status::error(error.to_string()));
        }
    }

    fn set(&mut self, attribute: impl FnOnce() -> KeyValue) {
        if let Some(recorded) = &mut self.0
            && recorded.span.is_recording()
        {
            recorded.span.set_attribute(attribute());
        }
    }
}
