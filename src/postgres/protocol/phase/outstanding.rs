//! The unanswered requests, in bounded memory however many there are. Floor 1.
//!
//! The first `ROOM` requests, which the server reads next, are stored individually. The rest is stored in runs, where
//! consecutive extended requests become one [`Request::Some`], without their number and types. Only their exact order
//! is lost: their ReadyForQuery ends the whole batch.

use std::collections::VecDeque;

/// A request that waits for its reply, or a CopyDone or CopyFail that waits for its COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Parse,
    Bind,
    Describe,
    Execute,
    Close,
    /// Any number of extended requests.
    Some,
    Sync,
    Query,
    FunctionCall,
    /// CopyDone or CopyFail.
    CopyEnd,
}

impl Request {
    pub(super) fn ends_with_ready(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::FunctionCall)
    }

    pub(super) fn is_extended(self) -> bool {
        matches!(self, Self::Parse | Self::Bind | Self::Describe | Self::Execute | Self::Close | Self::Some)
    }
}

/// The requests in the order in which the server reads them. It works on the first.
#[derive(Debug, Default)]
pub(super) struct Outstanding<const ROOM: usize> {
    front: VecDeque<Request>,
    /// Empty unless `front` is full.
    rest: VecDeque<Run>,
}

/// One unit, repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    what: Unit,
    times: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// One request, or any number of extended requests.
    One(Request),
    /// Extended requests and their Sync.
    Batch,
}

impl<const ROOM: usize> Outstanding<ROOM> {
    pub(super) fn is_empty(&self) -> bool {
        self.front.is_empty()
    }

    /// The individually stored requests. The server works on the first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Request> {
        self.front.iter().copied()
    }

    /// The allocated memory in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.front.capacity() + self.rest.capacity() * size_of::<Run>()
    }

    /// Whether every request is stored individually.
    pub(super) fn is_exact(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn first(&self) -> Option<Request> {
        self.front.front().copied()
    }

    pub(super) fn get(&self, at: usize) -> Option<Request> {
        self.front.get(at).copied()
    }

    pub(super) fn position(&self, by: impl Fn(Request) -> bool) -> Option<usize> {
        self.iter().position(by)
    }

    /// The first request that ends with ReadyForQuery.
    pub(super) fn next_ready(&self) -> Option<Request> {
        let of_run = |run: &Run| match run.what {
            Unit::One(request) => request.ends_with_ready().then_some(request),
            Unit::Batch => Some(Request::Sync),
        };
        let in_front = self.iter().find(|request| request.ends_with_ready());
        in_front.or_else(|| self.rest.iter().find_map(of_run))
    }

    /// Returns false if there is no room for the request, neither in `front` nor in a run.
    pub(super) fn push(&mut self, request: Request) -> bool {
        if self.rest.is_empty() {
            if request.is_extended() && self.front.back() == Some(&Request::Some) {
                return true;
            }
            if self.front.len() < ROOM {
                self.front.push_back(request);
                return true;
            }
        }
        let some = Unit::One(Request::Some);
        match (request, self.rest.back().map(|run| run.what)) {
            (Request::Sync, Some(last)) if last == some => {
                self.rest.pop_back();
                self.extend(Unit::Batch)
            }
            (request, Some(last)) if request.is_extended() && last == some => true,
            (request, _) if request.is_extended() => self.extend(some),
            (request, _) => self.extend(Unit::One(request)),
        }
    }

    fn extend(&mut self, what: Unit) -> bool {
        let kept = self.rest.len();
        match self.rest.back_mut() {
            Some(run) if run.what == what => run.times = run.times.saturating_add(1),
            _ if kept >= RUNS => return false,
            _ => self.rest.push_back(Run { what, times: 1 }),
        }
        true
    }

    /// Drops the first `count` requests, and then any CopyDone or CopyFail at the front: no COPY is ahead of it any
    /// more, so the server ignores it.
    pub(super) fn drop_front(&mut self, count: usize) {
        self.front.drain(..count.min(self.front.len()));
        loop {
            self.refill();
            if self.first() != Some(Request::CopyEnd) {
                break;
            }
            self.front.pop_front();
        }
        if self.front.is_empty() {
            self.front.shrink_to(KEPT_CAPACITY);
            self.rest.shrink_to(0);
        }
    }

    /// Drops `count` requests behind the first.
    pub(super) fn drop_behind_first(&mut self, count: usize) {
        self.front.drain(1..=count.min(self.front.len().saturating_sub(1)));
        self.refill();
    }

    /// Drops all requests up to and including the first that ends with ReadyForQuery.
    pub(super) fn drop_ready(&mut self) {
        loop {
            if let Some(at) = self.position(Request::ends_with_ready) {
                return self.drop_front(at + 1);
            }
            if self.next_ready().is_none() {
                return;
            }
            self.front.clear();
            self.refill();
        }
    }

    /// Drops all requests before the next Sync. Returns false if there is none: then nothing is left.
    pub(super) fn drop_to_sync(&mut self) -> bool {
        loop {
            if let Some(at) = self.position(|request| request == Request::Sync) {
                self.drop_front(at);
                return true;
            }
            if self.is_exact() {
                self.drop_front(self.front.len());
                return false;
            }
            self.front.clear();
            let has_sync = |run: &Run| matches!(run.what, Unit::Batch | Unit::One(Request::Sync));
            while self.rest.front().is_some_and(|run| !has_sync(run)) {
                self.rest.pop_front();
            }
            self.refill();
        }
    }

    fn refill(&mut self) {
        while self.front.len() < ROOM
            && let Some(run) = self.rest.front_mut()
        {
            match run.what {
                Unit::One(request) => self.front.push_back(request),
                Unit::Batch => self.front.extend([Request::Some, Request::Sync]),
            }
            run.times -= 1;
            if run.times == 0 {
                self.rest.pop_front();
            }
        }
    }
}

/// The number of requests for which an idle session keeps memory.
const KEPT_CAPACITY: usize = 32;
/// The maximum of runs, 16 bytes each. Only a client that sends without reading, and never repeats itself, has more.
const RUNS: usize = 4_096;
