//! A route that needs a credential and has none: said when it begins, and again while it lasts. Floor 3.

use std::time::Duration;

use super::Driver;
use crate::time::Time;

/// How long no credential has been usable, and when that was said last.
#[derive(Default)]
pub(super) struct Unserved {
    has_served: bool,
    since: Option<Time>,
    said_at: Option<Time>,
}

/// A fresh credential mostly comes by then, and a login waits as long.
const SAID_AFTER: Duration = Duration::from_secs(10);
const SAID_EVERY: Duration = Duration::from_mins(1);

/// What is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// A warning: a fresh credential may come before anybody notices.
    LastIsGone,
    /// An error: it has lasted so long.
    NoneFor(Duration),
}

impl Unserved {
    /// What is to be said now. `is_missing`: there is no credential where there has to be one.
    fn look(&mut self, now: Time, serves: bool, is_missing: bool) -> Option<Line> {
        if !is_missing {
            *self = Self { has_served: serves, ..Self::default() };
            return None;
        }
        let Some(since) = self.since else {
            self.since = Some(now);
            return self.has_served.then_some(Line::LastIsGone);
        };
        let due = self.said_at.map_or(since + SAID_AFTER, |at| at + SAID_EVERY);
        (now >= due).then(|| {
            self.said_at = Some(now);
            Line::NoneFor(now.since(since))
        })
    }
}

impl Driver {
    pub(super) fn report_unserved(&mut self, now: Time) {
        let serves = self.publish.borrow().is_some();
        let is_missing = !serves && !self.closing && self.machine.is_wanted();
        match self.unserved.look(now, serves, is_missing) {
            None => {}
            Some(Line::LastIsGone) => {
                tracing::warn!("the last usable credential is gone: new sessions wait for a fresh one");
            }
            Some(Line::NoneFor(span)) => {
                let view = self.shared.view.lock().ok();
                let error = view.as_ref().and_then(|view| {
                    let error = view.credential_error.as_ref().or(view.last_error.as_ref())?;
                    Some(error.reason.clone())
                });
                drop(view);
                tracing::error!(
                    for_s = span.as_secs(),
                    last_error = error.unwrap_or_default(),
                    "no usable credential: new sessions are refused; `leasehold check` tries each step and names the remedy"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_a_line_and_an_error_once_a_minute_while_it_lasts() {
        let mut unserved = Unserved::default();
        let at = |second: u64| Time::from_nanos(second * 1_000_000_000);
        assert_eq!(unserved.look(at(0), true, false), None);
        // It is looked at with every step of the driver.
        let lines: Vec<_> = (100..=300)
            .filter_map(|second| Some((second, unserved.look(at(second), false, true)?)))
            .collect();
        let none_for = |seconds| Line::NoneFor(Duration::from_secs(seconds));
        let wanted = [
            (100, Line::LastIsGone),
            (110, none_for(10)),
            (170, none_for(70)),
            (230, none_for(130)),
            (290, none_for(190)),
        ];
        assert_eq!(lines, wanted);
        assert_eq!(unserved.look(at(301), true, false), None);
        assert_eq!(unserved.look(at(302), false, true), Some(Line::LastIsGone), "it begins anew");
    }

    #[test]
    fn what_has_never_been_there_is_not_lost() {
        let mut unserved = Unserved::default();
        let lines: Vec<_> = (0..=10)
            .filter_map(|second| unserved.look(Time::from_nanos(second * 1_000_000_000), false, true))
            .collect();
        assert_eq!(lines, [Line::NoneFor(Duration::from_secs(10))]);
    }
}
