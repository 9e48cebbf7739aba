//! The report of a simulation. Floor 6.

use std::time::Duration;

use super::figures::{Figures, levels, requests};
use super::scenario::Scenario;
use super::servers::Kind;
use super::svg::{self, Line, figure};
use super::tally::Minute;
use super::world::Outcome;
use crate::table;

/// The result of one scenario.
pub(crate) struct Report {
    scenario: Scenario,
    outcome: Outcome,
    figures: Figures,
}

impl Report {
    pub(super) fn new(scenario: &Scenario, outcome: Outcome) -> Self {
        let figures = Figures::of(scenario, &outcome);
        Self { scenario: scenario.clone(), outcome, figures }
    }

    /// The figures of the scenario.
    #[must_use]
    pub(crate) fn figures(&self) -> &Figures {
        &self.figures
    }

    /// The name of the scenario.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.scenario.name
    }

    /// The first few broken promises, one line each.
    #[must_use]
    pub(crate) fn breaches(&self) -> String {
        let lines = self.outcome.tally.first_broken.iter();
        lines.map(|line| format!("{}: {line}\n", self.scenario.name)).collect()
    }

    /// The requests a second of each bin, one line each.
    #[must_use]
    pub(crate) fn rates(&self) -> String {
        let seconds = self.scenario.bin.as_secs_f64();
        let rates = self.outcome.tally.minutes.iter().map(|bin| f64::from(requests(bin)) / seconds);
        rates.map(|rate| format!("{rate:.3}\n")).collect()
    }

    /// A row of the table.
    fn row(&self) -> Vec<String> {
        let f = &self.figures;
        let (runway, most_have, least) = f.runway;
        let (median, most, longest) = f.ready_after;
        vec![
            self.scenario.name.to_owned(),
            figure(f.mean),
            figure(f.calm_peak),
            figure(f.peak),
            figure(f.second_peak),
            span(f.longest_wait),
            span(f.queued_for),
            format!("{} {} {}", figure(f.roles), figure(f.most_roles), f.most_roles_of_one),
            format!("{} {} {}", minutes(runway), minutes(most_have), minutes(least)),
            f.unserved.to_string(),
            span(f.unserved_for),
            f.cut.to_string(),
            format!("{} {} {}", span(median), span(most), span(longest)),
            format!("{} {} {}", f.sent, f.failed, f.too_many),
            f.broken.to_string(),
        ]
    }

    /// A plot of the requests by kind, the queue, the roles and the remaining life of credentials.
    #[must_use]
    pub(crate) fn svg(&self) -> String {
        let minutes = &self.outcome.tally.minutes;
        let kinds = Kind::ALL.iter().map(|kind| Line {
            name: kind.as_str().to_owned(),
            values: minutes.iter().map(|minute| of_kind(minute, *kind)).collect(),
        });
        let kinds = kinds.filter(|line| line.values.iter().any(|value| *value > 0.0)).collect();
        let line = |name: &str, values: Vec<f64>| vec![Line { name: name.to_owned(), values }];
        let level = |change: fn(&Minute) -> i32| {
            levels(minutes, change).into_iter().map(|level| level as f64).collect::<Vec<f64>>()
        };
        let waits = self.outcome.backlogs.iter().map(|backlog| backlog.wait.as_secs_f64()).collect();
        let waiting = self.outcome.backlogs.iter().map(|backlog| f64::from(backlog.waiting)).collect();
        let runway = |name: &str, of: fn(&super::world::Runway) -> f64| Line {
            name: name.to_owned(),
            values: self.outcome.runways.iter().map(|runway| of(runway) / 60.0).collect(),
        };
        let runways = vec![
            runway("mean", |runway| runway.mean),
            runway("99 % have at least", |runway| runway.most_have),
            runway("the least", |runway| runway.least),
        ];
        let roles = vec![
            Line { name: "roles".to_owned(), values: level(|minute| minute.roles) },
            Line {
                name: "sidecars without a credential".to_owned(),
                values: level(|minute| minute.unserved),
            },
        ];
        let title = format!("{}: {}", self.scenario.name, self.scenario.about);
        svg::plots(
            &title,
            self.scenario.span.as_secs_f64() / 3600.0,
            &[
                ("requests a second, by kind", kinds),
                ("wait in Vault's queue, seconds", line("wait", waits)),
                ("requests in the queue", line("requests", waiting)),
                ("roles in PostgreSQL", roles),
                ("runway, minutes", runways),
            ],
        )
    }
}

/// A table of all reports.
#[must_use]
pub(crate) fn text(reports: &[Report]) -> String {
    let rows: Vec<Vec<String>> =
        std::iter::once(HEAD.map(str::to_owned).to_vec()).chain(reports.iter().map(Report::row)).collect();
    table::aligned(&rows)
}

/// The table in Markdown.
#[must_use]
pub(crate) fn markdown(reports: &[Report]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head = line(&HEAD.map(str::to_owned));
    let rule = line(&HEAD.map(|_| "---".to_owned()));
    head + &rule + &reports.iter().map(|report| line(&report.row())).collect::<String>()
}

const HEAD: [&str; 15] = [
    "scenario",
    "req/s",
    "calm peak",
    "peak",
    "2nd peak",
    "longest wait",
    "queue for",
    "roles (mean most one)",
    "runway min (mean 99% least)",
    "unserved",
    "for",
    "cut",
    "ready (50% 99% all)",
    "requests (all failed 429)",
    "broken",
];

fn of_kind(minute: &Minute, kind: Kind) -> f64 {
    minute.sent.get(kind as usize).map_or(0.0, |count| f64::from(*count) / 60.0)
}

fn span(span: Duration) -> String {
    match span.as_millis() {
        0 => "0".to_owned(),
        millis @ 1..1000 => format!("{millis}ms"),
        1000..60_000 => format!("{:.1}s", span.as_secs_f64()),
        _ => format!("{:.1}m", span.as_secs_f64() / 60.0),
    }
}

fn minutes(seconds: f64) -> String {
    if seconds.is_finite() { figure(seconds / 60.0) } else { "-".to_owned() }
}
