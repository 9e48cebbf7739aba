//! How the state of Vault has changed. Pure. Floor 2.

use std::collections::VecDeque;

use super::Standing;
use crate::time::Time;

/// The latest states of Vault, each with its begin.
#[derive(Default)]
pub(super) struct Changes(VecDeque<(Time, Standing)>);

impl Changes {
    /// So many are kept. Of several nodes one may answer and another not, at each request.
    pub(super) const MOST: usize = 128;

    /// The state at the latest request.
    pub(super) fn note(&mut self, at: Time, standing: Standing) {
        if self.0.back().is_some_and(|(_, latest)| *latest == standing) {
            return;
        }
        if self.0.len() == Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back((at, standing));
    }

    /// The state at that time, if it is known, and all after it.
    pub(super) fn since(&self, first: Time) -> Vec<(Time, Standing)> {
        let before = self.0.iter().rposition(|(at, _)| *at <= first).unwrap_or(0);
        self.0.iter().skip(before).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_state_is_kept_once_with_its_begin() {
        let mut changes = Changes::default();
        for (second, standing) in
            [(1, Standing::Serving), (5, Standing::Serving), (9, Standing::Sealed), (20, Standing::Serving)]
        {
            changes.note(at(second), standing);
        }
        let all = [(at(1), Standing::Serving), (at(9), Standing::Sealed), (at(20), Standing::Serving)];
        assert_eq!(changes.since(at(0)), all);
        assert_eq!(changes.since(at(10)), all[1..], "the state that was still there then");
    }

    #[test]
    fn a_state_that_changes_at_each_request_takes_no_more_room() {
        let mut changes = Changes::default();
        for second in 0..1000 {
            let standing = if second % 2 == 0 { Standing::Serving } else { Standing::Unreachable };
            changes.note(at(second), standing);
        }
        let kept = changes.since(at(0));
        assert_eq!((kept.len(), kept.last().unwrap().0), (Changes::MOST, at(999)));
    }
}
