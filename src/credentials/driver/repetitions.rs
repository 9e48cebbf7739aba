//! What is written again and again while a try fails for the same reason. Floor 3.
//!
//! A try that fails is made again within seconds, for as long as it fails. Its line is written at its own level when the
//! failing begins, when its reason is another, and at a pace while it lasts; at `debug` in between. What is left out here is
//! still in the metrics and in the history.

use std::time::Duration;

use crate::lease::GenerationId;
use crate::time::Time;

/// What was written of each failing try, the latest last.
#[derive(Default)]
pub(super) struct Repetitions(Vec<Written>);

struct Written {
    what: &'static str,
    number: Option<GenerationId>,
    reason: String,
    at: Time,
    /// The lines since then.
    left_out: u64,
}

/// How a line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// At its own level.
    News {
        /// Those that were left out since the last one like it, if there are any.
        left_out: Option<u64>,
    },
    /// At `debug`.
    Repetition,
}

/// Writes a line at this level, or at `debug` if it is a repetition.
macro_rules! say {
    ($line:expr, $level:ident, $text:literal $(, $($field:ident).+ = $value:expr)*) => {
        match $line {
            $crate::credentials::driver::repetitions::Line::News { left_out } => {
                tracing::$level!($($($field).+ = $value,)* left_out, $text);
            }
            $crate::credentials::driver::repetitions::Line::Repetition => {
                tracing::debug!($($($field).+ = $value,)* $text);
            }
        }
    };
}
pub(super) use say;

impl Repetitions {
    /// How the line is written that this try has failed for this reason. `number`: the generation that it is about, if each
    /// is a matter of its own.
    pub(super) fn line(
        &mut self,
        now: Time,
        what: &'static str,
        number: Option<GenerationId>,
        reason: &str,
    ) -> Line {
        let is_of = |written: &Written| written.what == what && written.number == number;
        let latest = self.0.iter().rposition(is_of);
        let known = self.0.iter().position(|written| is_of(written) && written.reason == reason);
        let every = if known == latest { LASTS } else { RETURNS };
        let mut left_out = 0;
        if let Some(at) = known {
            let mut written = self.0.remove(at);
            if now.since(written.at) < every {
                written.left_out += 1;
                self.0.insert(at, written);
                return Line::Repetition;
            }
            left_out = written.left_out;
        }
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Written { what, number, reason: reason.to_owned(), at: now, left_out: 0 });
        Line::News { left_out: (left_out > 0).then_some(left_out) }
    }

    /// These tries have succeeded: that they fail is news again.
    pub(super) fn forget(&mut self, is_over: impl Fn(&'static str) -> bool) {
        self.0.retain(|written| !is_over(written.what));
    }
}

/// How often a line is written while nothing changes.
const LASTS: Duration = Duration::from_mins(10);
/// How often where reasons take turns, as those of several servers do.
const RETURNS: Duration = Duration::from_mins(1);
/// More matters are not told apart.
const MOST: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const NEWS: Line = Line::News { left_out: None };

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn what_stays_the_same_is_a_line_and_one_every_ten_minutes_with_the_number_of_the_others() {
        let mut repetitions = Repetitions::default();
        let lines: Vec<_> = (0..=2000)
            .step_by(5)
            .filter_map(|second| match repetitions.line(at(second), "issue", None, "sealed") {
                Line::News { left_out } => Some((second, left_out)),
                Line::Repetition => None,
            })
            .collect();
        assert_eq!(lines, [(0, None), (600, Some(119)), (1200, Some(119)), (1800, Some(119))]);
    }

    #[test]
    fn another_reason_is_a_line_at_once_and_one_that_comes_back_within_a_minute() {
        let mut repetitions = Repetitions::default();
        let mut said = |second, reason| repetitions.line(at(second), "issue", None, reason);
        assert_eq!([said(0, "sealed"), said(1, "away")], [NEWS; 2]);
        assert_eq!([said(2, "sealed"), said(3, "away"), said(59, "sealed")], [Line::Repetition; 3]);
        assert_eq!(said(60, "sealed"), Line::News { left_out: Some(2) });
        assert_eq!(said(61, "away"), Line::News { left_out: Some(1) });
    }

    #[test]
    fn each_try_and_each_generation_is_a_matter_of_its_own_until_it_succeeds() {
        let mut repetitions = Repetitions::default();
        let mut numbers = GenerationId::all();
        let (one, two) = (numbers.next(), numbers.next());
        for (what, number) in [("renew", one), ("renew", two), ("issue", None)] {
            assert_eq!(repetitions.line(at(0), what, number, "away"), NEWS);
            assert_eq!(repetitions.line(at(1), what, number, "away"), Line::Repetition);
        }
        repetitions.forget(|what| what == "renew");
        assert_eq!(repetitions.line(at(2), "renew", one, "away"), NEWS);
        assert_eq!(repetitions.line(at(3), "issue", None, "away"), Line::Repetition);
    }

    #[test]
    fn reasons_without_end_are_not_kept_for_ever() {
        let mut repetitions = Repetitions::default();
        for second in 0..100 {
            assert_eq!(repetitions.line(at(second), "issue", None, &second.to_string()), NEWS);
        }
        assert_eq!(repetitions.0.len(), MOST);
    }
}
