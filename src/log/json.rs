//! Lines for machines: one JSON object each. Floor 5.
//!
//! The fields of the spans that an event is in stand beside its own, so that one query finds what belongs to a route, whether the
//! event says which one it is or its span does.

use std::fmt::{self, Write as _};

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// How lines look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Objects;

impl<S> FormatEvent<S, JsonFields> for Objects
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut object = Object::default();
        object.push("timestamp", timestamp.into());
        object.push("level", event.metadata().level().as_str().into());
        event.record(&mut object);
        // The innermost goes first.
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<JsonFields>>();
            let fields = fields.and_then(|fields| serde_json::from_str(fields).ok());
            if let Some(Value::Object(fields)) = fields {
                fields.into_iter().for_each(|(name, value)| object.push(&name, value));
            }
        }
        object.push("target", event.metadata().target().into());
        writeln!(writer, "{}}}", object.text)
    }
}

/// An object that is being written, without its closing brace.
#[derive(Default)]
struct Object {
    text: String,
    names: Vec<String>,
}

impl Object {
    /// Adds a field, unless there is one of that name.
    fn push(&mut self, name: &str, value: Value) {
        if self.names.iter().any(|known| known == name) {
            return;
        }
        self.text.push(if self.names.is_empty() { '{' } else { ',' });
        // A string takes whatever is written to it.
        let _ = write!(self.text, "{}:{value}", Value::from(name));
        self.names.push(name.to_owned());
    }
}

impl Visit for Object {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field.name(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field.name(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field.name(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field.name(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field.name(), format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::json;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::queue::tests::Sink;
    use super::super::{QUEUE_BYTES, Queue};
    use super::*;

    /// The one line that is written while `act` runs.
    fn line(act: impl FnOnce()) -> String {
        let (sender, reader) = mpsc::sync_channel(100);
        let queue = Queue::new(QUEUE_BYTES);
        let guard = queue.start(Sink(sender)).unwrap();
        let layer = tracing_subscriber::fmt::layer().with_writer(queue).json().event_format(Objects);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, act);
        drop(guard);
        let lines: Vec<_> = reader.try_iter().map(|line| String::from_utf8(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines[0].clone()
    }

    #[test]
    fn the_fields_of_an_event_and_of_its_spans_stand_side_by_side() {
        let line = line(|| {
            let outer = tracing::info_span!("lease", route = "app", lease.generation = 3_u64);
            let inner = tracing::info_span!(parent: &outer, "request", lease.generation = 4_u64);
            inner.in_scope(|| {
                let nothing = None::<u64>;
                tracing::info!(nothing, addr = %"127.0.0.1:1", serves = true, for_s = 0.5, "a \"b\"\n");
            });
        });
        assert!(line.starts_with("{\"timestamp\":\"20") && line.ends_with("\"}\n"), "{line}");
        let mut object: Value = serde_json::from_str(&line).unwrap();
        object.as_object_mut().unwrap().remove("timestamp");
        let wanted = json!({"level": "INFO", "message": "a \"b\"\n", "addr": "127.0.0.1:1", "serves": true, "for_s": 0.5,
            "route": "app", "lease.generation": 4, "target": module_path!()});
        assert_eq!(object, wanted);
    }

    #[test]
    fn a_name_stands_once_and_the_event_has_the_last_word() {
        let line = line(|| {
            let span = tracing::info_span!("lease", route = "app");
            span.in_scope(|| tracing::info!(route = "other", "a"));
        });
        assert_eq!(line.matches("\"route\":").count(), 1, "{line}");
        assert!(line.contains("\"route\":\"other\""), "{line}");
    }
}
