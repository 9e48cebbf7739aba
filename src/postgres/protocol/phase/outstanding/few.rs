//! Up to sixteen requests in one word. Floor 1.

use super::Request;

/// A short queue of requests: [`BITS`] for each, the first in the lowest. It is a word alone, so that what may be it or a
/// pointer is two.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Few(u64);

impl Few {
    pub(super) fn len(self) -> usize {
        // No request is zero, so the last is where the leading zeros end. There are sixteen at most.
        (u64::BITS - self.0.leading_zeros()).div_ceil(BITS) as usize
    }

    pub(super) fn get(self, at: usize) -> Option<Request> {
        let number = usize::try_from(behind(self.0, at) & ONE).ok()?;
        ALL.get(number.checked_sub(1)?).copied()
    }

    /// Returns false if there is no room.
    pub(super) fn push(&mut self, request: Request) -> bool {
        let at = u64::BITS - self.0.leading_zeros().div_euclid(BITS) * BITS;
        if at >= u64::BITS {
            return false;
        }
        self.0 |= number(request) << at;
        true
    }

    pub(super) fn drop_front(&mut self, count: usize) {
        self.0 = behind(self.0, count);
    }

    /// Drops `count` requests behind the first; there are so many.
    pub(super) fn drop_behind_first(&mut self, count: usize) {
        let first = self.0 & ONE;
        self.0 = (behind(self.0, count) & !ONE) | first;
    }
}

/// What is behind the first `count`.
fn behind(packed: u64, count: usize) -> u64 {
    let bits = u32::try_from(count).ok().and_then(|count| count.checked_mul(BITS));
    bits.and_then(|bits| packed.checked_shr(bits)).unwrap_or(0)
}

/// A request's number, from 1 on: each is at the place before it in [`ALL`].
fn number(request: Request) -> u64 {
    match request {
        Request::Parse => 1,
        Request::Bind => 2,
        Request::Describe => 3,
        Request::Execute => 4,
        Request::Close => 5,
        Request::Some => 6,
        Request::Sync => 7,
        Request::Query => 8,
        Request::FunctionCall => 9,
        Request::CopyEnd => 10,
    }
}

/// There are at most fifteen requests.
const BITS: u32 = 4;
const ONE: u64 = (1 << BITS) - 1;
/// Each at its place.
const ALL: [Request; 10] = [
    Request::Parse,
    Request::Bind,
    Request::Describe,
    Request::Execute,
    Request::Close,
    Request::Some,
    Request::Sync,
    Request::Query,
    Request::FunctionCall,
    Request::CopyEnd,
];

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn it_is_a_queue_of_sixteen_requests() {
        for begin in 0..16 {
            for behind_first in 0..16 {
                let (mut few, mut queue) = (Few::default(), VecDeque::new());
                for request in ALL.into_iter().cycle().skip(begin) {
                    if !few.push(request) {
                        break;
                    }
                    queue.push_back(request);
                }
                assert_eq!(queue.len(), 16);
                few.drop_behind_first(behind_first);
                queue.drain(1..=behind_first);
                few.drop_front(begin);
                queue.drain(..begin.min(queue.len()));
                assert!(few.push(Request::Query) || queue.len() == 16);
                queue.push_back(Request::Query);
                let held = (0..few.len()).map_while(|at| few.get(at));
                assert_eq!(held.collect::<Vec<_>>(), queue.into_iter().take(16).collect::<Vec<_>>());
                assert_eq!(few.get(few.len()), None);
                few.drop_front(usize::MAX);
                assert_eq!((few.len(), few.0), (0, 0));
            }
        }
    }

    #[test]
    fn each_request_is_found_at_its_place() {
        for (place, request) in (1..).zip(ALL) {
            assert_eq!(number(request), place);
        }
    }
}
