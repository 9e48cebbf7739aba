//! The unanswered requests, in bounded memory however many there are. Floor 1.
//!
//! The first `ROOM` requests, which the server reads next, are stored individually. The rest is stored in runs, where
//! consecutive extended requests become one [`Request::Some`], without their number and types. Only their exact order
//! is lost: their ReadyForQuery ends the whole batch.

mod few;

use std::collections::VecDeque;

use few::Few;

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
    stored: Stored,
}

/// Most clients have few requests outstanding, and an idle one has none: those need no memory of their own.
#[derive(Debug)]
enum Stored {
    Few(Few),
    Many(Box<Many>),
}

#[derive(Debug)]
struct Many {
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
        self.stored.len() == 0
    }

    /// The individually stored requests. The server works on the first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Request> {
        self.stored.iter()
    }

    /// The allocated memory in bytes.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        match &self.stored {
            Stored::Few(_) => 0,
            Stored::Many(many) => many.front.capacity() + many.rest.capacity() * size_of::<Run>(),
        }
    }

    /// Whether every request is stored individually.
    pub(super) fn is_exact(&self) -> bool {
        self.stored.last_run().is_none()
    }

    pub(super) fn first(&self) -> Option<Request> {
        self.get(0)
    }

    pub(super) fn get(&self, at: usize) -> Option<Request> {
        self.stored.get(at)
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
        in_front.or_else(|| match &self.stored {
            Stored::Few(_) => None,
            Stored::Many(many) => many.rest.iter().find_map(of_run),
        })
    }

    /// Returns false if there is no room for the request, neither in `front` nor in a run.
    pub(super) fn push(&mut self, request: Request) -> bool {
        if self.is_exact() {
            if request.is_extended() && self.stored.last() == Some(Request::Some) {
                return true;
            }
            if self.stored.len() < ROOM {
                self.stored.push(request);
                return true;
            }
        }
        let some = Unit::One(Request::Some);
        match (request, self.stored.last_run()) {
            (Request::Sync, Some(last)) if last == some => {
                self.stored.drop_last_run();
                self.stored.extend(Unit::Batch)
            }
            (request, Some(last)) if request.is_extended() && last == some => true,
            (request, _) if request.is_extended() => self.stored.extend(some),
            (request, _) => self.stored.extend(Unit::One(request)),
        }
    }

    /// Drops the first `count` requests, and then any CopyDone or CopyFail at the front: no COPY is ahead of it any
    /// more, so the server ignores it.
    pub(super) fn drop_front(&mut self, count: usize) {
        self.stored.drop_front(count);
        loop {
            self.refill();
            if self.first() != Some(Request::CopyEnd) {
                break;
            }
            self.stored.drop_front(1);
        }
        if self.is_empty() {
            self.stored = Stored::default();
        }
    }

    /// Drops `count` requests behind the first.
    pub(super) fn drop_behind_first(&mut self, count: usize) {
        self.stored.drop_behind_first(count);
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
            self.stored.drop_front(usize::MAX);
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
                self.drop_front(usize::MAX);
                return false;
            }
            self.stored.drop_front(usize::MAX);
            self.stored.drop_runs_to_sync();
            self.refill();
        }
    }

    fn refill(&mut self) {
        let Stored::Many(many) = &mut self.stored else { return };
        while many.front.len() < ROOM
            && let Some(run) = many.rest.front_mut()
        {
            match run.what {
                Unit::One(request) => many.front.push_back(request),
                Unit::Batch => many.front.extend([Request::Some, Request::Sync]),
            }
            run.times -= 1;
            if run.times == 0 {
                many.rest.pop_front();
            }
        }
    }
}

impl Default for Stored {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl Stored {
    fn len(&self) -> usize {
        match self {
            Self::Few(few) => few.len(),
            Self::Many(many) => many.front.len(),
        }
    }

    fn get(&self, at: usize) -> Option<Request> {
        match self {
            Self::Few(few) => few.get(at),
            Self::Many(many) => many.front.get(at).copied(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = Request> {
        (0..self.len()).map_while(|at| self.get(at))
    }

    fn last(&self) -> Option<Request> {
        self.get(self.len().checked_sub(1)?)
    }

    fn push(&mut self, request: Request) {
        match self {
            Self::Few(few) => {
                if !few.push(request) {
                    let front = self.iter().chain([request]).collect();
                    *self = Self::Many(Box::new(Many { front, rest: VecDeque::new() }));
                }
            }
            Self::Many(many) => many.front.push_back(request),
        }
    }

    fn drop_front(&mut self, count: usize) {
        match self {
            Self::Few(few) => few.drop_front(count),
            Self::Many(many) => drop(many.front.drain(..count.min(many.front.len()))),
        }
    }

    fn drop_behind_first(&mut self, count: usize) {
        let count = count.min(self.len().saturating_sub(1));
        match self {
            Self::Few(few) => few.drop_behind_first(count),
            Self::Many(many) => drop(many.front.drain(1..=count)),
        }
    }

    fn last_run(&self) -> Option<Unit> {
        match self {
            Self::Few(_) => None,
            Self::Many(many) => many.rest.back().map(|run| run.what),
        }
    }

    fn drop_last_run(&mut self) {
        if let Self::Many(many) = self {
            many.rest.pop_back();
        }
    }

    fn drop_runs_to_sync(&mut self) {
        let has_sync = |run: &Run| matches!(run.what, Unit::Batch | Unit::One(Request::Sync));
        if let Self::Many(many) = self {
            while many.rest.front().is_some_and(|run| !has_sync(run)) {
                many.rest.pop_front();
            }
        }
    }

    /// Puts one more behind the runs. Returns false if there are too many.
    fn extend(&mut self, what: Unit) -> bool {
        let first = Run { what, times: 1 };
        match self {
            Self::Few(_) => {
                let (front, rest) = (self.iter().collect(), VecDeque::from([first]));
                *self = Self::Many(Box::new(Many { front, rest }));
            }
            Self::Many(many) => {
                let kept = many.rest.len();
                match many.rest.back_mut() {
                    Some(run) if run.what == what => run.times = run.times.saturating_add(1),
                    _ if kept >= RUNS => return false,
                    _ => many.rest.push_back(first),
                }
            }
        }
        true
    }
}

/// The maximum of runs, 16 bytes each. Only a client that sends without reading, and never repeats itself, has more.
const RUNS: usize = 4_096;
