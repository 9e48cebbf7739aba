//! What leasehold writes: its log and its metrics.

use serde_json::Value;

/// A log in JSON lines.
pub(crate) struct Log(pub(crate) String);

impl Log {
    /// Its lines, those that are not JSON left out.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.0.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The lines with this message.
    pub(crate) fn messages(&self, message: &str) -> Vec<Value> {
        let mut lines = self.lines();
        lines.retain(|line| field(line, "message") == message);
        lines
    }

    /// The messages at this level, such as `ERROR`.
    pub(crate) fn at(&self, level: &str) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter(|line| field(line, "level") == level).map(|line| field(&line, "message")).collect()
    }

    /// The addresses that a listener was bound to.
    pub(crate) fn listening(&self, listener: &str) -> Vec<String> {
        let lines = self.messages("listening").into_iter();
        lines.filter(|line| field(line, "listener") == listener).map(|line| field(&line, "addr")).collect()
    }
}

/// A field of a log line as text, whether fields stand at the top or under `fields`; empty where it is missing.
pub(crate) fn field(line: &Value, name: &str) -> String {
    let value = line.get("fields").and_then(|fields| fields.get(name)).or_else(|| line.get(name));
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// `/metrics`, parsed.
#[derive(Debug)]
pub(crate) struct Metrics(Vec<Series>);

#[derive(Debug)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Metrics {
    /// Parses the Prometheus text format; label values here hold no quotes or commas.
    pub(super) fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').split(',').filter_map(|label| {
                let (key, value) = label.split_once('=')?;
                Some((key.to_owned(), value.trim_matches('"').to_owned()))
            });
            Some(Series { name: name.to_owned(), labels: labels.collect(), value: value.parse().ok()? })
        });
        Self(series.collect())
    }

    /// The sum of the series with this name (without its `leasehold_`) and all these labels; 0 where there is none.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |series: &Series, (key, value): &(&str, &str)| {
            series.labels.iter().any(|label| label.0 == *key && label.1 == *value)
        };
        self.0
            .iter()
            .filter(|series| series.name.strip_prefix("leasehold_") == Some(name))
            .filter(|series| labels.iter().all(|label| has(series, label)))
            .map(|series| series.value)
            .sum()
    }
}
