//! The figures that summarise a simulation. Floor 6.

use std::time::Duration;

use super::scenario::{BEGIN, Scenario, Starts};
use super::servers::KINDS;
use super::tally::Minute;
use super::world::{Outcome, Runway};

/// The figures of a scenario. Rates are requests a second, over bins of one minute. "Calm" is the time without a fault
/// or other event.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    /// The mean rate in the calm.
    pub(crate) mean: f64,
    /// The highest rate in the calm, as a multiple of the mean.
    pub(crate) calm_peak: f64,
    /// The highest rate from the beginning of the event until all sidecars have a credential, as a multiple of the
    /// mean.
    pub(crate) peak: f64,
    /// The highest rate in the two lease durations after that, as a multiple of the mean.
    pub(crate) second_peak: f64,
    /// The longest wait in Vault's queue.
    pub(crate) longest_wait: Duration,
    /// How long, in minutes, the wait in the queue was longer than [`PATIENT`].
    pub(crate) queued_for: Duration,
    /// Roles for each sidecar: the mean, the maximum over the whole fleet, and the maximum of a single sidecar.
    pub(crate) roles: f64,
    pub(crate) most_roles: f64,
    pub(crate) most_roles_of_one: u32,
    /// The remaining life of credentials in seconds: the mean, what 99 % of them have at least, and the minimum.
    pub(crate) runway: (f64, f64, f64),
    /// The highest number of sidecars without a usable credential at one time.
    pub(crate) unserved: u32,
    /// How long some sidecar had no credential after the end of the event.
    pub(crate) unserved_for: Duration,
    /// Credentials whose sessions were closed by the end of their lease.
    pub(crate) cut: u64,
    /// The time from a sidecar's start to its first credential: the median, the 99th percentile, the maximum.
    pub(crate) ready_after: (Duration, Duration, Duration),
    /// Requests in all, failed requests, requests over the quota.
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    pub(crate) too_many: u64,
    /// The number of broken promises.
    pub(crate) broken: u64,
}

/// The shortest wait in Vault's queue that counts as queueing.
const PATIENT: Duration = Duration::from_secs(1);

/// The requests of sidecars in this minute, without what Vault does by itself.
pub(super) fn requests(minute: &Minute) -> u32 {
    minute.sent.iter().take(KINDS - 1).sum()
}

fn rate(minute: &Minute) -> f64 {
    f64::from(requests(minute)) / 60.0
}

fn minute_of(span: Duration) -> usize {
    usize::try_from(span.as_secs() / 60).unwrap_or(usize::MAX)
}

/// The first minute of the event, and the minute after its end.
pub(super) fn event(scenario: &Scenario) -> Option<(usize, usize)> {
    if let Starts::Within(span) = scenario.starts {
        return Some((0, minute_of(span).max(1)));
    }
    let windows =
        scenario.faults.iter().map(|(window, _)| *window).chain(scenario.deploy.map(|(window, _)| window));
    let first = windows.min_by_key(|window| window.from)?;
    Some((minute_of(first.from), minute_of(first.from + first.lasts)))
}

impl Figures {
    pub(super) fn of(scenario: &Scenario, outcome: &Outcome) -> Self {
        let tally = &outcome.tally;
        // The last minute is incomplete.
        let minutes = tally.minutes.get(..tally.minutes.len().saturating_sub(1)).unwrap_or_default();
        let mut figures =
            Self { broken: tally.broken, most_roles_of_one: tally.most_roles, ..Self::default() };
        figures.count_requests(scenario, minutes);
        figures.count_levels(scenario, minutes);
        let waits = outcome.backlogs.iter().map(|backlog| backlog.wait);
        figures.queued_for = Duration::from_mins(waits.clone().filter(|wait| *wait > PATIENT).count() as u64);
        figures.longest_wait = waits.max().unwrap_or_default();
        // Before the end of a common start there are sidecars that have no credential yet.
        let from = event(scenario).map_or(scenario.settled_after, |(begin, end)| {
            let is_start = matches!(scenario.starts, Starts::Within(_));
            Duration::from_mins(if is_start { end } else { begin } as u64)
        });
        let runways = outcome.runways.iter().filter(|runway| runway.at > BEGIN + from);
        figures.runway = (
            mean(runways.clone().map(|runway: &Runway| runway.mean)),
            runways.clone().map(|runway| runway.most_have).fold(f64::INFINITY, f64::min),
            runways.map(|runway| runway.least).fold(f64::INFINITY, f64::min),
        );
        let mut ready = tally.ready_after.clone();
        ready.sort_unstable();
        let at = |of: usize| Duration::from_millis(ready.get(of).copied().unwrap_or(0).into());
        figures.ready_after =
            (at(ready.len() / 2), at(ready.len() * 99 / 100), at(ready.len().saturating_sub(1)));
        figures
    }

    fn count_requests(&mut self, scenario: &Scenario, minutes: &[Minute]) {
        self.sent = minutes.iter().map(|minute| u64::from(requests(minute))).sum();
        self.failed = minutes.iter().map(|minute| u64::from(minute.failed)).sum();
        self.too_many = minutes.iter().map(|minute| u64::from(minute.too_many)).sum();
        self.cut = minutes.iter().map(|minute| u64::from(minute.cut)).sum();
        let settled = minute_of(scenario.settled_after);
        let event = event(scenario);
        let damped = event.map(|(_, end)| served_by(minutes, end) + 2 * minute_of(scenario.roles.lease));
        let is_calm = |index: usize| {
            index >= settled
                && event.zip(damped).is_none_or(|((begin, _), end)| index < begin || index >= end)
        };
        let rates = || minutes.iter().map(rate).enumerate();
        let calm = || rates().filter(|(index, _)| is_calm(*index)).map(|(_, rate)| rate);
        self.mean = mean(calm());
        let of_mean = |rate: f64| if self.mean > 0.0 { rate / self.mean } else { 0.0 };
        self.calm_peak = of_mean(calm().fold(0.0, f64::max));
        if let (Some((begin, end)), Some(damped)) = (event, damped) {
            let served = served_by(minutes, end);
            let most = |range: std::ops::Range<usize>| {
                rates().filter(|(index, _)| range.contains(index)).map(|(_, rate)| rate).fold(0.0, f64::max)
            };
            self.peak = of_mean(most(begin..served));
            self.second_peak = of_mean(most(served..damped));
        }
    }

    fn count_levels(&mut self, scenario: &Scenario, minutes: &[Minute]) {
        let settled = minute_of(scenario.settled_after);
        let of_each = |roles: i64| roles as f64 / f64::from(scenario.sidecars);
        let roles: Vec<f64> = levels(minutes, |minute| minute.roles).into_iter().map(of_each).collect();
        self.roles = mean(roles.iter().skip(settled).copied());
        self.most_roles = roles.iter().copied().fold(0.0, f64::max);
        let unserved = levels(minutes, |minute| minute.unserved);
        self.unserved = u32::try_from(unserved.iter().copied().max().unwrap_or(0)).unwrap_or(0);
        if let Some((_, end)) = event(scenario) {
            let served = served_by(minutes, end);
            self.unserved_for = Duration::from_mins(served.saturating_sub(end) as u64);
        }
    }
}

/// The first minute, from `from` on, at whose end all sidecars have a credential.
fn served_by(minutes: &[Minute], from: usize) -> usize {
    let unserved = levels(minutes, |minute| minute.unserved);
    let first = unserved.iter().enumerate().skip(from).find(|(_, unserved)| **unserved == 0);
    first.map_or(minutes.len(), |(index, _)| index + 1)
}

/// The sum of the changes up to the end of each minute.
pub(super) fn levels(minutes: &[Minute], change: impl Fn(&Minute) -> i32) -> Vec<i64> {
    let sum = |level: &mut i64, minute: &Minute| {
        *level += i64::from(change(minute));
        Some(*level)
    };
    minutes.iter().scan(0, sum).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_u32), |(sum, count), value| (sum + value, count + 1));
    if count == 0 { 0.0 } else { sum / f64::from(count) }
}
