//! A token bucket: how often something may happen. Floor 0.

use std::time::Duration;

use crate::time::Time;

/// `burst` at once, then one each `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Bucket {
    burst: u32,
    interval: Duration,
    left: u32,
    /// When the next one is put in; counts only while `left` is below `burst`.
    next_at: Time,
}

impl Bucket {
    /// One that nothing has been taken from. A `burst` of 0 counts as 1: without any, nothing would ever be let through.
    #[must_use]
    pub(crate) fn full(burst: u32, interval: Duration) -> Self {
        let burst = burst.max(1);
        Self { burst, interval, left: burst, next_at: Time::from_nanos(0) }
    }

    /// When one can be taken; `None`: now.
    #[must_use]
    pub(crate) fn ready_at(&mut self, now: Time) -> Option<Time> {
        self.refill(now);
        (self.left == 0).then_some(self.next_at)
    }

    /// Takes one, whether or not there is one.
    pub(crate) fn take(&mut self, now: Time) {
        self.refill(now);
        if self.left == self.burst {
            self.next_at = now + self.interval;
        }
        self.left = self.left.saturating_sub(1);
    }

    /// Takes one if there is one.
    #[must_use]
    pub(crate) fn try_take(&mut self, now: Time) -> bool {
        let is_ready = self.ready_at(now).is_none();
        if is_ready {
            self.take(now);
        }
        is_ready
    }

    /// Whether nothing of it is taken.
    #[must_use]
    pub(crate) fn is_full(&mut self, now: Time) -> bool {
        self.refill(now);
        self.left == self.burst
    }

    fn refill(&mut self, now: Time) {
        while self.left < self.burst && now >= self.next_at {
            self.left += 1;
            self.next_at = self.next_at + self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_there_is_one_each_interval() {
        let begin = Time::from_nanos(7);
        let mut bucket = Bucket::full(10, Duration::from_millis(200));
        assert_eq!((0..20).filter(|_| bucket.try_take(begin)).count(), 10);
        assert_eq!(bucket.ready_at(begin), Some(begin + Duration::from_millis(200)));
        let later = begin + Duration::from_secs(1);
        assert_eq!((0..20).filter(|_| bucket.try_take(later)).count(), 5);
        let much_later = begin + Duration::from_hours(1);
        assert_eq!((0..20).filter(|_| bucket.try_take(much_later)).count(), 10);
    }

    #[test]
    fn what_is_taken_of_an_empty_one_is_not_owed() {
        let begin = Time::from_nanos(0);
        let mut bucket = Bucket::full(0, Duration::from_secs(1));
        bucket.take(begin);
        bucket.take(begin);
        assert!(!bucket.try_take(begin) && bucket.try_take(begin + Duration::from_secs(1)));
    }
}
