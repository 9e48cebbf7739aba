//! Spans of a build without the feature `otlp`: they are nothing, and cost nothing. Floor 0.

use std::fmt::Display;

use super::Kind;

/// Begins traces.
#[derive(Clone, Default)]
pub(crate) struct Traces(());

impl Traces {
    /// Begins a trace.
    #[must_use]
    pub(crate) fn begin(&self, _kind: Kind, _name: &'static str) -> Span {
        Span
    }
}

/// A span, until it is dropped.
pub(crate) struct Span;

impl Span {
    /// Begins a span inside of this one.
    #[must_use]
    pub(crate) fn child(&self, _kind: Kind, _name: &'static str) -> Self {
        Self
    }

    /// Sets an attribute to a word of an enum.
    pub(crate) fn word(&mut self, _key: &'static str, _value: &'static str) {}

    /// Sets an attribute to a text.
    pub(crate) fn text(&mut self, _key: &'static str, _value: &str) {}

    /// Sets an attribute to a number.
    pub(crate) fn number(&mut self, _key: &'static str, _value: u64) {}

    /// It has ended.
    pub(crate) fn end(self) {}

    /// It has failed: a word of an enum, and why in one line without secrets.
    pub(crate) fn fail(&mut self, _outcome: &'static str, _error: &dyn Display) {}

    /// Why it has failed, in one line without secrets.
    pub(crate) fn error(&mut self, _error: &dyn Display) {}
}
