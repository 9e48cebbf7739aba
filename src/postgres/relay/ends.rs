//! When and how a session has to end: the decisions of the relay, without a socket or a clock. Floor 4.
//!
//! ```text
//!            drain published          the session's moment            between transactions
//!   Relay ─────────────────▶ Relay ───────────────────▶ WhenIdle ───────────────────────▶ closed, 57P01
//!     ▲  ◀───────────────── (wakes at its moment)         │  │
//!     │   drain withdrawn                                 │  │ hard close, its time by the clock, forced stop
//!     └──────────────────── drain withdrawn ──────────────┘  ▼
//!                                                           Now: closed whatever it does
//! ```

use std::time::Duration;

use crate::credentials::{Drain, Ending, HardClose};
use crate::lease::Time;
use crate::metrics::Closed;

/// What the process asks of its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// Nothing: it runs.
    #[default]
    Running,
    /// Sessions end as soon as they are between transactions.
    Closing,
    /// Sessions end now.
    Forced,
}

/// What the relay has to do about the session's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Go on, and look again at this time.
    Relay { look_at: Option<Time> },
    /// End as soon as the session is between transactions.
    WhenIdle { cause: Closed },
    /// End now.
    Now(HardClose),
}

/// What a hard close does with the client next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// A message is half relayed: it may finish within this span.
    Finish(Duration),
    /// The last message is whole: the error can be sent.
    Speak,
    /// The time is over in the middle of a message: the socket is closed without a word.
    Cut,
}

/// One session's own moment within the drain window of its generation.
#[derive(Debug)]
pub(super) struct Ends {
    /// The session's place in a window, drawn once.
    share: u32,
    chosen: Option<(Drain, Time)>,
}

impl Ends {
    /// `share` is random over its whole range.
    pub(super) fn new(share: u32) -> Self {
        Self { share, chosen: None }
    }

    /// The order of this moment. `idle` is whether the session is between transactions.
    pub(super) fn order(
        &mut self,
        now: Time,
        idle: bool,
        hard_close_at: Time,
        ending: Ending,
        stop: Stop,
    ) -> Order {
        if let Some(close) = ending.hard_close {
            return Order::Now(close);
        }
        if now >= hard_close_at {
            return Order::Now(by_the_clock(hard_close_at, Closed::LeaseEnd));
        }
        match stop {
            Stop::Forced => return Order::Now(by_the_clock(now, Closed::Shutdown)),
            Stop::Closing => {
                return Order::WhenIdle { cause: Closed::Shutdown };
            }
            Stop::Running => {}
        }
        let Some(drain) = ending.drain else {
            self.chosen = None;
            return Order::Relay { look_at: None };
        };
        let moment = self.moment(now, drain, idle);
        if now >= moment {
            Order::WhenIdle { cause: Closed::Drain }
        } else {
            Order::Relay { look_at: Some(moment) }
        }
    }

    /// Sessions that are idle when they first see the window end in the first half of what is left of it, the others
    /// may take nearly all; the last tenth is left for those that are busy at their moment.
    fn moment(&mut self, now: Time, drain: Drain, idle: bool) -> Time {
        if let Some((chosen_for, moment)) = self.chosen
            && chosen_for == drain
        {
            return moment;
        }
        let tenths = if idle { 5 } else { 9 };
        let begin = drain.from.max(now);
        let window = drain.until.since(begin);
        let share = f64::from(self.share) / (f64::from(u32::MAX) + 1.0);
        let moment = begin + (window * tenths / 10).mul_f64(share);
        self.chosen = Some((drain, moment));
        moment
    }
}

/// The bounds of a hard close that begins at this time without a word of the generation's driver.
pub(super) fn by_the_clock(at: Time, cause: Closed) -> HardClose {
    HardClose { cause, cut_at: at + HALF_MESSAGE_FOR, gone_by: at + GONE_WITHIN }
}

/// What to do with the client in a hard close. `half` is whether a message to it is neither whole nor written.
pub(super) fn word(half: bool, now: Time, cut_at: Time) -> Word {
    if !half {
        Word::Speak
    } else if now < cut_at {
        Word::Finish(cut_at.since(now))
    } else {
        Word::Cut
    }
}

/// A hard close begins one second before the lease's end with its margin.
const HALF_MESSAGE_FOR: Duration = Duration::from_secs(1);
/// The end of a lease has a margin of two to five seconds; the hard close begins a second before it.
const GONE_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    const QUIET: Ending = Ending { drain: None, hard_close: None };

    fn draining(from: u64, until: u64) -> Ending {
        Ending { drain: Some(Drain { from: at(from), until: at(until) }), hard_close: None }
    }

    #[test]
    fn without_an_ending_a_session_goes_on_without_a_timer() {
        let order = Ends::new(7).order(at(5), true, Time::NEVER, QUIET, Stop::Running);
        assert_eq!(order, Order::Relay { look_at: None });
    }

    #[test]
    fn an_idle_session_ends_in_the_first_half_of_the_window() {
        for share in [0, 1, u32::MAX / 2, u32::MAX] {
            let mut ends = Ends::new(share);
            let order = ends.order(at(0), true, at(200), draining(100, 200), Stop::Running);
            let Order::Relay { look_at: Some(moment) } = order else {
                panic!("{order:?}");
            };
            assert!(moment >= at(100) && moment <= at(150), "{moment:?}");
            let order = ends.order(moment, true, at(200), draining(100, 200), Stop::Running);
            assert_eq!(order, Order::WhenIdle { cause: Closed::Drain });
        }
    }

    #[test]
    fn a_busy_session_has_its_moment_before_the_last_tenth() {
        let mut ends = Ends::new(u32::MAX);
        let order = ends.order(at(0), false, at(200), draining(100, 200), Stop::Running);
        assert!(matches!(order, Order::Relay { look_at: Some(moment) } if moment <= at(190)));
    }

    #[test]
    fn a_session_that_comes_late_has_its_share_of_what_is_left() {
        let mut ends = Ends::new(u32::MAX / 2);
        let order = ends.order(at(180), true, at(200), draining(100, 200), Stop::Running);
        assert!(matches!(order, Order::Relay { look_at: Some(moment) } if moment > at(180)));
    }

    #[test]
    fn a_withdrawn_drain_is_forgotten() {
        let mut ends = Ends::new(u32::MAX / 2);
        let _ = ends.order(at(0), true, at(200), draining(100, 200), Stop::Running);
        let order = ends.order(at(199), true, at(400), QUIET, Stop::Running);
        assert_eq!(order, Order::Relay { look_at: None });
        let order = ends.order(at(199), true, at(400), draining(300, 400), Stop::Running);
        assert!(matches!(order, Order::Relay { look_at: Some(moment) } if moment > at(300)));
    }

    #[test]
    fn the_clock_alone_closes_hard() {
        let order = Ends::new(0).order(at(10), false, at(10), QUIET, Stop::Running);
        let Order::Now(close) = order else {
            panic!("{order:?}");
        };
        assert_eq!((close.cause, close.cut_at), (Closed::LeaseEnd, at(11)));
        assert!(close.gone_by <= at(15));
    }

    #[test]
    fn the_drivers_word_beats_the_clock_and_the_stop() {
        let close = HardClose { cause: Closed::Revoked, cut_at: at(1), gone_by: at(2) };
        let ending = Ending { drain: None, hard_close: Some(close) };
        let order = Ends::new(0).order(at(10), true, at(5), ending, Stop::Forced);
        assert_eq!(order, Order::Now(close));
    }

    #[test]
    fn a_zero_window_ends_idle_sessions_at_once() {
        let order = Ends::new(u32::MAX).order(at(10), true, at(20), draining(10, 10), Stop::Running);
        assert_eq!(order, Order::WhenIdle { cause: Closed::Drain });
    }

    #[test]
    fn a_half_message_may_finish_until_the_cut() {
        assert_eq!(word(true, at(1), at(2)), Word::Finish(Duration::from_secs(1)));
        assert_eq!(word(true, at(2), at(2)), Word::Cut);
        assert_eq!(word(false, at(3), at(2)), Word::Speak);
    }
}
