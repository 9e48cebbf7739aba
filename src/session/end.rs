//! When and how a session has to end: the decisions, without a socket or a clock. Floor 4.
//!
//! ```text
//!            drain published          a quiet moment after its own,   between transactions
//!   Relay ─────────────────▶ Relay ── or the window's last tenth ──▶ WhenIdle ─────────────▶ closed
//!     ▲  ◀───────────────── (wakes to look)                 │  │
//!     │   drain withdrawn                                   │  │ hard close, its time by the clock, forced stop
//!     └──────────────────── drain withdrawn ────────────────┘  ▼
//!                                                             Now: closed whatever it does
//! ```

use std::time::Duration;

use crate::error::{ClientFacing, Ended};
use crate::lease::{Closing, Ending};
use crate::metrics::Closed;
use crate::time::Time;

/// What the process asks of its sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
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
pub(crate) enum EndDecision {
    /// The session goes on; look again at this time.
    Relay { look_at: Option<Time> },
    /// The session ends as soon as it is between transactions.
    WhenIdle { cause: Closed },
    /// The moment is quiet: the session ends unless the client has asked for something in this very instant; then look again.
    IfQuiet { cause: Closed, look_at: Time },
    /// The session ends now.
    Now(HardClose),
}

/// The order to close a session, whatever it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HardClose {
    /// What the metric calls it: `LeaseEnd`, `Revoked` or `Shutdown`.
    pub(crate) cause: Closed,
    /// A message that is half relayed may finish until then; afterwards it is cut.
    pub(crate) cut_at: Time,
    /// The upstream's EOF is waited for until then.
    pub(crate) gone_by: Time,
}

impl From<Closing> for HardClose {
    fn from(Closing { cause, cut_at, gone_by }: Closing) -> Self {
        Self { cause: cause.into(), cut_at, gone_by }
    }
}

/// What a hard close does with the client next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseAction {
    /// A message is half relayed: it may finish within this span.
    Drain(Duration),
    /// The last message is whole: the error can be sent.
    SendFatal,
    /// The time is over in the middle of a message: the socket is closed without a word.
    Abort,
}

/// One session's own moments within the drain window of its generation.
#[derive(Debug)]
pub(crate) struct EndPolicy {
    /// The session's place in a window, drawn once.
    share: u32,
    /// Only while there is a window, so that a session without one is small.
    chosen: Option<Box<Chosen>>,
}

/// What a session has chosen for a window.
#[derive(Clone, Copy, Debug)]
struct Chosen {
    /// The window's begin.
    from: Time,
    /// The window's end, the hard close.
    until: Time,
    /// When to look next whether the session is quiet: first at its own moment.
    look_at: Time,
    /// The session is closed from then on as soon as it is between transactions.
    at_last: Time,
}

impl EndPolicy {
    /// `share` is random over its whole range.
    pub(crate) fn new(share: u32) -> Self {
        Self { share, chosen: None }
    }

    /// What the session has to do at this moment. `idle_since` is since when the session has been between transactions, if it is.
    pub(crate) fn order(
        &mut self,
        now: Time,
        idle_since: Option<Time>,
        ending: Ending,
        stop: Stop,
    ) -> EndDecision {
        if let Some(closing) = ending.closing {
            return EndDecision::Now(closing.into());
        }
        if now >= ending.hard_close_at {
            return EndDecision::Now(by_the_clock(ending.hard_close_at, Closed::LeaseEnd));
        }
        match stop {
            Stop::Forced => return EndDecision::Now(by_the_clock(now, Closed::Shutdown)),
            Stop::Closing => {
                return EndDecision::WhenIdle { cause: Closed::Shutdown };
            }
            Stop::Running => {}
        }
        let Some(from) = ending.drain_from else {
            self.chosen = None;
            return EndDecision::Relay { look_at: None };
        };
        let chosen = self.choose(now, from, ending.hard_close_at, idle_since.is_some());
        if now >= chosen.at_last {
            return EndDecision::WhenIdle { cause: Closed::Drain };
        }
        if now >= chosen.look_at {
            let quiet = chosen.quiet(now);
            let since = idle_since.unwrap_or(now);
            let is_quiet = now.since(since) >= quiet;
            // Not earlier: a session that is never quiet looks now and then, and not at each of its messages.
            chosen.look_at = (if is_quiet { now } else { since } + quiet).min(chosen.at_last);
            if is_quiet {
                return EndDecision::IfQuiet { cause: Closed::Drain, look_at: chosen.look_at };
            }
        }
        EndDecision::Relay { look_at: Some(chosen.look_at) }
    }

    /// Sessions that are idle when they first see the window have their moment in the first half of what is left of it,
    /// the others may have it in nearly all. The last half of the last tenth is left to those that are then busy.
    fn choose(&mut self, now: Time, from: Time, until: Time, idle: bool) -> &mut Chosen {
        let share = f64::from(self.share) / (f64::from(u32::MAX) + 1.0);
        let choose = || {
            let tenths = if idle { 5 } else { 9 };
            let begin = from.max(now);
            let moment = begin + (until.since(begin) * tenths / 10).mul_f64(share);
            let tenth = until.since(from) / 10;
            let at_last = until - tenth + (tenth / 2).mul_f64(share);
            Box::new(Chosen { from, until, look_at: moment, at_last })
        };
        let kept = self.chosen.take().filter(|chosen| (chosen.from, chosen.until) == (from, until));
        self.chosen.insert(kept.unwrap_or_else(choose))
    }
}

impl Chosen {
    /// How long a session must have been idle for its moment to be a quiet one. It falls from two seconds, or a tenth of
    /// a shorter window, to next to nothing, first fast and then slowly: so a connection that rests in a pool goes while
    /// it rests, and one that rests for moments only is caught in one of many.
    fn quiet(&self, now: Time) -> Duration {
        let most = (self.until.since(self.from) / 10).min(QUIET_AT_MOST);
        let (left, whole) = (self.at_last.since(now), self.at_last.since(self.from));
        let left = left.as_secs_f64() / whole.as_secs_f64().max(1e-9);
        most.mul_f64(left.clamp(0.0, 1.0).powi(2)).max(QUIET_AT_LEAST)
    }
}

/// The bounds of a hard close that begins at this time without a word of the generation's driver.
pub(crate) fn by_the_clock(at: Time, cause: Closed) -> HardClose {
    HardClose { cause, cut_at: at + HALF_MESSAGE_FOR, gone_by: at + GONE_WITHIN }
}

/// What a client learns of its session's end. `idle`: the session was between transactions.
#[must_use]
pub(crate) fn client_facing(cause: Closed, idle: bool) -> ClientFacing {
    let why = match cause {
        Closed::Shutdown => Ended::Shutdown,
        Closed::Revoked => Ended::Revoked,
        Closed::Drain => Ended::Retired,
        _ => Ended::LeaseEnd,
    };
    ClientFacing::Ended { why, idle }
}

/// What to do with the client in a hard close. `half` is whether a message to it is neither whole nor written.
pub(crate) fn close_action(half: bool, now: Time, cut_at: Time) -> CloseAction {
    if !half {
        CloseAction::SendFatal
    } else if now < cut_at {
        CloseAction::Drain(cut_at.since(now))
    } else {
        CloseAction::Abort
    }
}

/// A pool's connection that has rested for so long is not about to be used.
const QUIET_AT_MOST: Duration = Duration::from_secs(2);
/// Within that time a client may not have read its last reply yet, or may be about to send its next request.
const QUIET_AT_LEAST: Duration = Duration::from_millis(50);
/// A hard close begins one second before the lease's end with its margin.
const HALF_MESSAGE_FOR: Duration = Duration::from_secs(1);
/// The end of a lease has a margin of two to five seconds; the hard close begins a second before it.
const GONE_WITHIN: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::Cause;

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    const fn ends(hard_close_at: Time) -> Ending {
        Ending { hard_close_at, drain_from: None, closing: None }
    }

    fn draining(from: u64, until: u64) -> Ending {
        Ending { drain_from: Some(at(from)), ..ends(at(until)) }
    }

    #[test]
    fn without_an_ending_a_session_goes_on_without_a_timer() {
        let order = EndPolicy::new(7).order(at(5), Some(at(0)), ends(Time::NEVER), Stop::Running);
        assert_eq!(order, EndDecision::Relay { look_at: None });
    }

    #[test]
    fn an_idle_session_ends_in_the_first_half_of_the_window() {
        for share in [0, 1, u32::MAX / 2, u32::MAX] {
            let mut policy = EndPolicy::new(share);
            let order = policy.order(at(0), Some(at(0)), draining(100, 200), Stop::Running);
            let EndDecision::Relay { look_at: Some(moment) } = order else {
                panic!("{order:?}");
            };
            assert!(moment >= at(100) && moment <= at(150), "{moment:?}");
            let order = policy.order(moment, Some(at(0)), draining(100, 200), Stop::Running);
            assert!(matches!(order, EndDecision::IfQuiet { cause: Closed::Drain, .. }), "{order:?}");
        }
    }

    #[test]
    fn a_busy_session_has_its_moment_before_the_last_tenth() {
        let mut policy = EndPolicy::new(u32::MAX);
        let order = policy.order(at(0), None, draining(100, 200), Stop::Running);
        assert!(matches!(order, EndDecision::Relay { look_at: Some(moment) } if moment <= at(190)));
    }

    /// Plays a session that is idle for `rests` each time, and busy for a millisecond in between. When it
    /// is closed, and whether at rest.
    fn play(share: u32, ending: Ending, rests: Duration) -> (Time, bool) {
        let mut policy = EndPolicy::new(share);
        let (mut now, mut looks) = (at(0), 0);
        loop {
            let since = now;
            // While it rests, it is woken by its timer alone.
            while now < since + rests {
                let EndDecision::Relay { look_at } = policy.order(now, Some(since), ending, Stop::Running)
                else {
                    return (now, now > since);
                };
                looks += 1;
                now = look_at.unwrap_or(now).min(since + rests).max(now + Duration::from_micros(1));
            }
            if policy.order(now, None, ending, Stop::Running)
                == (EndDecision::WhenIdle { cause: Closed::Drain })
            {
                return (now, false);
            }
            now = now + Duration::from_millis(1);
            assert!(looks < 1_000_000, "it looks too often");
        }
    }

    #[test]
    fn a_connection_that_rests_in_a_pool_is_closed_while_it_rests() {
        for share in [0, u32::MAX / 3, u32::MAX] {
            for rests in [60, 200, 1000, 3000].map(Duration::from_millis) {
                let (closed, resting) = play(share, draining(10, 50), rests);
                assert!(resting && closed >= at(10) && closed < at(46), "{rests:?}: {closed:?}");
            }
        }
    }

    #[test]
    fn a_connection_that_never_rests_is_closed_in_the_last_tenth() {
        for share in [0, u32::MAX / 3, u32::MAX] {
            let (closed, _) = play(share, draining(10, 50), Duration::from_millis(5));
            assert!(closed >= at(46) && closed <= at(48) + Duration::from_millis(6), "{}", closed.as_nanos());
        }
    }

    #[test]
    fn the_rest_that_is_waited_for_only_falls() {
        let mut policy = EndPolicy::new(0);
        let chosen = *policy.choose(at(0), at(10), at(50), true);
        let waits: Vec<_> = (0..36).map(|second| chosen.quiet(at(10 + second))).collect();
        assert_eq!((waits[0], waits[35]), (Duration::from_secs(2), QUIET_AT_LEAST));
        assert!(waits.is_sorted_by(|one, next| one >= next), "{waits:?}");
        let short = *policy.choose(at(0), at(10), at(14), true);
        assert_eq!(short.quiet(at(10)), Duration::from_millis(400));
    }

    #[test]
    fn a_session_in_a_loop_is_looked_at_now_and_then() {
        let mut policy = EndPolicy::new(0);
        let mut looks = std::collections::BTreeSet::new();
        // A message each millisecond, from the window's begin to its last tenth.
        for milli in 0..3600 {
            let now = at(10) + Duration::from_millis(milli);
            match policy.order(now, Some(now), draining(10, 14), Stop::Running) {
                EndDecision::Relay { look_at } => looks.insert(look_at.unwrap()),
                order => panic!("{order:?}"),
            };
        }
        assert!(looks.len() < 50, "{} timers", looks.len());
    }

    #[test]
    fn a_session_that_comes_late_has_its_share_of_what_is_left() {
        let mut policy = EndPolicy::new(u32::MAX / 2);
        let order = policy.order(at(180), Some(at(0)), draining(100, 200), Stop::Running);
        assert!(matches!(order, EndDecision::Relay { look_at: Some(moment) } if moment > at(180)));
    }

    #[test]
    fn a_withdrawn_drain_is_forgotten() {
        let mut policy = EndPolicy::new(u32::MAX / 2);
        let _ = policy.order(at(0), Some(at(0)), draining(100, 200), Stop::Running);
        let order = policy.order(at(199), Some(at(0)), ends(at(400)), Stop::Running);
        assert_eq!(order, EndDecision::Relay { look_at: None });
        let order = policy.order(at(199), Some(at(0)), draining(300, 400), Stop::Running);
        assert!(matches!(order, EndDecision::Relay { look_at: Some(moment) } if moment > at(300)));
    }

    #[test]
    fn the_clock_alone_closes_hard() {
        let order = EndPolicy::new(0).order(at(10), None, ends(at(10)), Stop::Running);
        let EndDecision::Now(close) = order else {
            panic!("{order:?}");
        };
        assert_eq!((close.cause, close.cut_at), (Closed::LeaseEnd, at(11)));
        assert!(close.gone_by <= at(15));
    }

    #[test]
    fn the_drivers_word_beats_the_clock_and_the_stop() {
        let closing = Closing { cause: Cause::Lost, cut_at: at(1), gone_by: at(2) };
        let ending = Ending { closing: Some(closing), ..ends(at(5)) };
        let order = EndPolicy::new(0).order(at(10), Some(at(0)), ending, Stop::Forced);
        let close = HardClose { cause: Closed::Revoked, cut_at: at(1), gone_by: at(2) };
        assert_eq!(order, EndDecision::Now(close));
    }

    #[test]
    fn a_half_message_may_finish_until_the_cut() {
        assert_eq!(close_action(true, at(1), at(2)), CloseAction::Drain(Duration::from_secs(1)));
        assert_eq!(close_action(true, at(2), at(2)), CloseAction::Abort);
        assert_eq!(close_action(false, at(3), at(2)), CloseAction::SendFatal);
    }
}
