//! How many CancelRequests with unknown keys may be sent on: of one source, and of all together. Floor 4.
//!
//! A source has at most a quarter, so that a flood from one leaves room for the requests of others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::bucket::Bucket;
use crate::socket::Peer;
use crate::time::Time;

/// The requests of all sources.
#[derive(Debug, Default)]
pub(super) struct Rate(Mutex<Shares>);

impl Rate {
    /// Takes a permit; `None` if the source, or all sources together, have used what they may.
    #[must_use]
    pub(super) fn begin(self: &Arc<Self>, source: Peer, now: Time) -> Option<Permit> {
        let begun = self.0.lock().unwrap_or_else(PoisonError::into_inner).begin(source, now);
        begun.then(|| Permit { rate: Arc::clone(self), source })
    }
}

/// A request that is under way, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    rate: Arc<Rate>,
    source: Peer,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.rate.0.lock().unwrap_or_else(PoisonError::into_inner).end(self.source);
    }
}

#[derive(Debug)]
struct Shares {
    all: Share,
    /// Those that have used some of their share lately: few, since each has used some of `all` too.
    of_sources: Vec<(Peer, Share)>,
}

impl Default for Shares {
    fn default() -> Self {
        Self { all: Share::of(SOURCES), of_sources: Vec::new() }
    }
}

impl Shares {
    fn begin(&mut self, source: Peer, now: Time) -> bool {
        self.of_sources.retain_mut(|(_, share)| !share.is_whole(now));
        let known = self.of_sources.iter().position(|(known, _)| *known == source);
        let mut share = known.map_or_else(|| Share::of(1), |at| self.of_sources.swap_remove(at).1);
        let begins = share.has_room(now) && self.all.has_room(now);
        if begins {
            share.begin(now);
            self.all.begin(now);
        }
        self.of_sources.push((source, share));
        begins
    }

    fn end(&mut self, source: Peer) {
        self.all.end();
        for (_, share) in self.of_sources.iter_mut().filter(|(known, _)| *known == source) {
            share.end();
        }
    }
}

#[derive(Debug)]
struct Share {
    bucket: Bucket,
    under_way: u32,
    most_under_way: u32,
}

impl Share {
    /// The share that this number of sources has together.
    fn of(sources: u32) -> Self {
        let bucket = Bucket::full(BURST * sources, ONE_EACH / sources);
        Self { bucket, under_way: 0, most_under_way: MOST_UNDER_WAY * sources }
    }

    fn has_room(&mut self, now: Time) -> bool {
        self.under_way < self.most_under_way && self.bucket.ready_at(now).is_none()
    }

    fn begin(&mut self, now: Time) {
        self.bucket.take(now);
        self.under_way += 1;
    }

    fn end(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Whether nothing of it is used any more.
    fn is_whole(&mut self, now: Time) -> bool {
        self.under_way == 0 && self.bucket.is_full(now)
    }
}

/// So many sources can use all of their shares at once.
const SOURCES: u32 = 4;
const MOST_UNDER_WAY: u32 = 4;
/// So many requests may pass at once, and then one per `ONE_EACH`.
const BURST: u32 = 10;
const ONE_EACH: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn source(number: u8) -> Peer {
        Peer::at([10, 0, 0, number].into())
    }

    #[test]
    fn a_flood_from_one_source_leaves_the_requests_of_others_alone() {
        let (rate, begin) = (Arc::new(Rate::default()), Time::from_nanos(1));
        let flood = |now| (0..1_000).filter(|_| rate.begin(source(1), now).is_some()).count();
        assert_eq!(flood(begin), 10);
        for other in 2..=4 {
            assert!(rate.begin(source(other), begin).is_some());
        }
        assert_eq!(flood(begin + Duration::from_secs(1)), 5);
    }

    #[test]
    fn what_is_under_way_for_one_source_leaves_room_for_others() {
        let (rate, begin) = (Arc::new(Rate::default()), Time::from_nanos(1));
        let mut held: Vec<_> = (0..9).map_while(|_| rate.begin(source(1), begin)).collect();
        assert_eq!(held.len(), 4);
        assert!(rate.begin(source(2), begin).is_some());
        held.pop();
        assert!(rate.begin(source(1), begin).is_some());
    }

    #[test]
    fn many_sources_together_have_their_bound_and_are_forgotten() {
        let (rate, begin) = (Arc::new(Rate::default()), Time::from_nanos(1));
        let flood = (0..=255).filter(|number| rate.begin(source(*number), begin).is_some()).count();
        assert_eq!(flood, 40);
        let much_later = begin + Duration::from_secs(60);
        assert!(rate.begin(source(0), much_later).is_some());
        assert_eq!(rate.0.lock().unwrap().of_sources.len(), 1);
    }
}
