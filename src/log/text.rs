//! Lines for people: the time, the level, the message, and then its fields as `key=value`. Floor 5.
//!
//! On a terminal the time is the time of day, in UTC, since whoever reads it sits before it; elsewhere it has its date.
//! Where a line comes from is shown only for what is logged at `debug` and below.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lines {
    /// The time of day is enough.
    pub(super) on_terminal: bool,
    pub(super) colours: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let now = humantime::format_rfc3339_seconds(clock::wall()).to_string();
        let shown = if self.on_terminal { now.get(TIME_OF_DAY..).unwrap_or(&now) } else { &now };
        self.painted(&mut writer, DIM, shown)?;
        let (word, colour) = level(*metadata.level());
        writer.write_char(' ')?;
        self.painted(&mut writer, colour, word)?;
        let mut line = Line { writer: writer.by_ref(), outcome: Ok(()), painter: *self, first: false };
        event.record(&mut Message(&mut line));
        event.record(&mut Fields(&mut line));
        line.outcome?;
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            // What the event says itself is not said again.
            let mut names = span.metadata().fields().iter();
            if names.all(|field| metadata.fields().field(field.name()).is_some()) {
                continue;
            }
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            if let Some(fields) = fields.filter(|fields| !fields.is_empty()) {
                write!(writer, " {fields}")?;
            }
        }
        if *metadata.level() >= Level::DEBUG {
            writer.write_char(' ')?;
            self.painted(&mut writer, DIM, metadata.target())?;
        }
        writeln!(writer)
    }
}

/// The fields of a span, without its name.
impl<'w> FormatFields<'w> for Lines {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line { writer, outcome: Ok(()), painter: *self, first: true };
        fields.record(&mut Message(&mut line));
        fields.record(&mut Fields(&mut line));
        line.outcome
    }
}

impl Lines {
    fn painted(self, writer: &mut Writer<'_>, colour: &str, text: &str) -> fmt::Result {
        if self.colours { write!(writer, "\x1b[{colour}m{text}\x1b[0m") } else { writer.write_str(text) }
    }
}

/// A line that is being written.
struct Line<'w> {
    writer: Writer<'w>,
    outcome: fmt::Result,
    painter: Lines,
    /// Nothing stands before what comes next.
    first: bool,
}

impl Line<'_> {
    fn push(&mut self, key: Option<&str>, value: &str) {
        if self.outcome.is_ok() {
            self.outcome = self.write(key, value);
        }
    }

    fn write(&mut self, key: Option<&str>, value: &str) -> fmt::Result {
        if !std::mem::replace(&mut self.first, false) {
            self.writer.write_char(' ')?;
        }
        let Some(key) = key else { return write!(self.writer, "{}", Escaped(value)) };
        let painter = self.painter;
        painter.painted(&mut self.writer, DIM, key)?;
        painter.painted(&mut self.writer, DIM, "=")?;
        if value.is_empty()
            || value.contains(|c: char| c == '=' || c == '"' || c.is_whitespace() || c.is_control())
        {
            // Whatever is in it ends neither the value nor the line.
            let value = value.replace('\\', r"\\").replace('"', "\\\"");
            return write!(self.writer, "\"{}\"", Escaped(&value));
        }
        self.writer.write_str(value)
    }
}

/// Takes the message, which stands first.
struct Message<'a, 'w>(&'a mut Line<'w>);

impl Visit for Message<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0.push(None, &format!("{value:?}"));
        }
    }
}

/// Takes all fields but the message.
struct Fields<'a, 'w>(&'a mut Line<'w>);

impl Visit for Fields<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.0.push(Some(field.name()), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE {
            self.0.push(Some(field.name()), &format!("{value:?}"));
        }
    }
}

/// Text on one line: what would move the cursor, or end the line, is written as an escape.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| {
            let breaks = c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
            if breaks { write!(f, "{}", c.escape_default()) } else { f.write_char(c) }
        })
    }
}

fn level(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("ERROR", "31"),
        Level::WARN => ("WARN ", "33"),
        Level::INFO => ("INFO ", "32"),
        Level::DEBUG => ("DEBUG", "34"),
        Level::TRACE => ("TRACE", "35"),
    }
}

const MESSAGE: &str = "message";
/// Where the time of day begins in `2026-01-01T00:00:00Z`.
const TIME_OF_DAY: usize = "2026-01-01T".len();
const DIM: &str = "2";

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::super::queue::tests::Sink;
    use super::super::{QUEUE_BYTES, Queue};
    use super::*;

    /// What is written while `act` runs, without the time.
    fn lines(lines: Lines, act: impl FnOnce()) -> Vec<String> {
        let (sender, reader) = mpsc::sync_channel(100);
        let queue = Queue::new(QUEUE_BYTES);
        let guard = queue.start(Sink(sender)).unwrap();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(queue)
            .with_ansi(lines.colours)
            .event_format(lines)
            .fmt_fields(lines);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, act);
        drop(guard);
        reader.try_iter().map(|line| String::from_utf8(line).unwrap()).collect()
    }

    const PLAIN: Lines = Lines { on_terminal: true, colours: false };

    #[test]
    fn a_line_has_the_time_of_day_the_level_the_message_and_its_fields() {
        let said = lines(PLAIN, || {
            let span = tracing::info_span!("lease", route = "app", lease.generation = 3_u64);
            span.in_scope(|| {
                tracing::info!(addr = %"127.0.0.1:1", why = "two words", none = "", "listening");
            });
        });
        let (time, rest) = said[0].split_once(' ').unwrap();
        assert!(time.len() == "20:31:05Z".len() && time.ends_with('Z'), "{time}");
        assert_eq!(
            rest,
            "INFO  listening addr=127.0.0.1:1 why=\"two words\" none=\"\" route=app lease.generation=3\n"
        );
    }

    #[test]
    fn what_an_event_says_itself_is_not_said_again_by_its_span() {
        let said = lines(PLAIN, || {
            let span = tracing::info_span!("lease", route = "app");
            span.in_scope(|| tracing::info!(route = "app", "a"));
        });
        assert!(said[0].ends_with(" INFO  a route=app\n"), "{said:?}");
    }

    #[test]
    fn only_debug_and_below_say_where_they_come_from() {
        let said = lines(PLAIN, || {
            tracing::warn!("w");
            tracing::debug!("d");
        });
        assert!(said[0].ends_with(" WARN  w\n"), "{said:?}");
        assert!(said[1].ends_with(" DEBUG d leasehold::log::text::tests\n"), "{said:?}");
    }

    #[test]
    fn a_file_has_the_date_and_what_would_move_a_cursor_is_escaped() {
        let said = lines(Lines { on_terminal: false, colours: false }, || {
            tracing::info!(name = "a\x1b[2Jb\nc", "first\nsecond \x07");
        });
        assert!(said[0].contains("T") && said[0].starts_with("20"), "{said:?}");
        assert!(said[0].ends_with("first\\nsecond \\u{7} name=\"a\\u{1b}[2Jb\\nc\"\n"), "{said:?}");
    }

    #[test]
    fn a_value_is_one_value_whatever_is_in_it() {
        let forged = "\"shop\" db.user=\"postgres\"";
        let said = lines(PLAIN, || {
            tracing::info!(database = forged, path = "C:\\ \"x", "a");
            tracing::info!(database = %forged, list = ?["a b"], "b");
            tracing::info!(tab = "a\tb", line = "a\u{2028}b", plain = "a\\b", "c");
        });
        let rest = |at: usize| said[at].split_once("INFO  ").unwrap().1;
        let database = r#"database="\"shop\" db.user=\"postgres\"""#;
        assert_eq!(rest(0), format!("a {database} path=\"C:\\\\ \\\"x\"\n"));
        assert_eq!(rest(1), format!("b {database} list=\"[\\\"a b\\\"]\"\n"));
        assert_eq!(rest(2), "c tab=\"a\\tb\" line=\"a\\u{2028}b\" plain=a\\b\n");
    }

    #[test]
    fn colours_are_for_whoever_wants_them() {
        let said = lines(Lines { colours: true, ..PLAIN }, || tracing::error!("e"));
        assert!(said[0].contains("\x1b[31mERROR\x1b[0m e"), "{said:?}");
    }
}
