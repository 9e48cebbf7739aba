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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use opentelemetry::trace::{SpanId, TracerProvider as _};
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanProcessor};

    use super::super::RouteTraces;
    use super::*;

    /// Keeps what has ended.
    #[derive(Clone, Debug, Default)]
    struct Ended(Arc<Mutex<Vec<SpanData>>>);

    impl SpanProcessor for Ended {
        fn on_start(&self, _span: &mut sdk::Span, _context: &Context) {}

        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span);
        }

        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }

        fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    impl Ended {
        /// What has ended of the traces of `sampler`, in this order.
        fn of(sampler: Sampler, run: impl FnOnce(&RouteTraces)) -> Vec<SpanData> {
            let ended = Self::default();
            let builder = SdkTracerProvider::builder().with_sampler(sampler);
            let provider = builder.with_span_processor(ended.clone()).build();
            run(&RouteTraces::new(Traces::of(provider.tracer("tests")), "app"));
            std::mem::take(&mut ended.0.lock().unwrap())
        }
    }

    fn attributes(span: &SpanData) -> Vec<(&str, String)> {
        span.attributes.iter().map(|one| (one.key.as_str(), one.value.to_string())).collect()
    }

    #[test]
    fn a_span_inside_of_another_is_of_its_trace_and_both_name_the_route() {
        let ended = Ended::of(Sampler::AlwaysOn, |traces| {
            let outer = traces.begin(Kind::Server, "outer");
            let mut inner = traces.begin_in(&outer, Kind::Client, "inner");
            inner.number("most", u64::MAX);
            drop(inner);
            traces.begin(Kind::Internal, "other").end();
        });
        let names: Vec<_> = ended.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["inner", "other", "outer"], "they end when they are dropped");
        let [inner, other, outer] = &ended[..] else { panic!("three: {ended:?}") };
        assert_eq!(inner.parent_span_id, outer.span_context.span_id());
        assert_eq!(inner.span_context.trace_id(), outer.span_context.trace_id());
        assert_ne!(other.span_context.trace_id(), outer.span_context.trace_id());
        assert_eq!((outer.parent_span_id, other.parent_span_id), (SpanId::INVALID, SpanId::INVALID));
        let kinds = [&inner.span_kind, &other.span_kind, &outer.span_kind];
        assert_eq!(kinds, [&SpanKind::Client, &SpanKind::Internal, &SpanKind::Server]);
        assert_eq!(attributes(outer), [("route", "app".to_owned())]);
        assert_eq!(attributes(inner), [("route", "app".to_owned()), ("most", i64::MAX.to_string())]);
    }

    #[test]
    fn a_span_that_fails_has_an_outcome_and_says_why() {
        let ended = Ended::of(Sampler::AlwaysOn, |traces| {
            let mut span = traces.begin(Kind::Internal, "fails");
            span.text("to", "there");
            span.fail("refused", &"no entry");
        });
        assert_eq!(ended[0].status, Status::error("no entry"));
        let [_, to, outcome] = &attributes(&ended[0])[..] else { panic!("three: {ended:?}") };
        assert_eq!((to, outcome), (&("to", "there".to_owned()), &("outcome", "refused".to_owned())));
    }

    #[test]
    fn what_is_not_sampled_is_not_sent_nor_is_what_is_inside_of_it() {
        let parent_based = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        let ended = Ended::of(parent_based, |traces| {
            let mut outer = traces.begin(Kind::Server, "outer");
            outer.word("outcome", "ok");
            traces.begin_in(&outer, Kind::Client, "inner").end();
        });
        assert!(ended.is_empty(), "{ended:?}");
    }

    #[test]
    fn where_nobody_asked_for_traces_a_span_is_nothing() {
        let traces = RouteTraces::new(Traces::default(), "app");
        let mut span = traces.begin(Kind::Server, "outer");
        span.fail("refused", &"no entry");
        assert!(traces.begin_in(&span, Kind::Client, "inner").0.is_none() && span.0.is_none());
    }
}
