//! The spans of a route's attempts at a fresh credential. Floor 3.
//!
//! ```text
//! rotation                      one attempt, up to the publication; none where nothing is replaced
//! └─ issuance                   one attempt; the root where there is no rotation
//!    ├─ vault.login             where a login is needed
//!    ├─ vault.issue
//!    └─ proof                   as often as it takes
//! ```
//!
//! Whatever else Vault is asked for is a trace of its own. A role without attempts, a static one, has only those.

use crate::lease::{GenerationId, Reason};
use crate::traces::{Kind, RouteTraces, Span};

pub(super) struct Spans {
    traces: RouteTraces,
    attempt: Option<Attempt>,
}

struct Attempt {
    rotation: Option<Span>,
    issuance: Span,
    /// What it has made.
    number: Option<GenerationId>,
    /// What was said last.
    error: Option<String>,
}

impl Attempt {
    /// Both spans, the outer one last.
    fn each(&mut self) -> impl Iterator<Item = &mut Span> {
        [Some(&mut self.issuance), self.rotation.as_mut()].into_iter().flatten()
    }
}

impl Spans {
    pub(super) fn new(traces: RouteTraces) -> Self {
        Self { traces, attempt: None }
    }

    /// An attempt begins. `replaces`: whether a credential is published.
    pub(super) fn issuing(&mut self, reason: Reason, replaces: bool) {
        self.given_up();
        let rotates = replaces && reason != Reason::Standby;
        let rotation = rotates.then(|| self.traces.begin(Kind::Internal, "rotation"));
        let issuance = match &rotation {
            Some(rotation) => self.traces.begin_in(rotation, Kind::Internal, "issuance"),
            None => self.traces.begin(Kind::Internal, "issuance"),
        };
        let mut attempt = Attempt { rotation, issuance, number: None, error: None };
        attempt.each().for_each(|span| span.word("reason", reason.as_str()));
        self.attempt = Some(attempt);
    }

    /// What went wrong last, one line without secrets.
    pub(super) fn failed(&mut self, error: &str) {
        if let Some(attempt) = &mut self.attempt {
            attempt.error = Some(error.to_owned());
        }
    }

    /// Vault has made a credential.
    pub(super) fn granted(&mut self, number: GenerationId) {
        if let Some(attempt) = &mut self.attempt {
            attempt.number = Some(number);
            attempt.each().for_each(|span| span.number("lease.generation", number.get()));
        }
    }

    /// A credential is published: that of the attempt, or one that stood by or was taken up.
    pub(super) fn published(&mut self, number: GenerationId, reason: Reason, proved: bool, successor: bool) {
        let outcome = if proved { "published" } else { "published_unproved" };
        if let Some(mut attempt) = self.attempt.take_if(|attempt| attempt.number == Some(number)) {
            attempt.each().for_each(|span| span.word("outcome", outcome));
        } else if successor {
            let mut rotation = self.traces.begin(Kind::Internal, "rotation");
            rotation.word("reason", reason.as_str());
            rotation.number("lease.generation", number.get());
            rotation.word("outcome", outcome);
        }
    }

    /// The credential of the attempt stands by.
    pub(super) fn stands_by(&mut self, number: GenerationId) {
        if let Some(mut attempt) = self.attempt.take_if(|attempt| attempt.number == Some(number)) {
            attempt.each().for_each(|span| span.word("outcome", "stands_by"));
        }
    }

    /// There is no attempt any more, and nothing has come of it.
    pub(super) fn given_up(&mut self) {
        let Some(mut attempt) = self.attempt.take() else { return };
        match attempt.error.take() {
            Some(error) => attempt.each().for_each(|span| span.fail("failed", &error)),
            None => attempt.each().for_each(|span| span.word("outcome", "given_up")),
        }
    }

    /// A request of the attempt, or one for itself.
    pub(super) fn of_attempt(&self, name: &'static str) -> Span {
        match &self.attempt {
            Some(attempt) => self.traces.begin_in(&attempt.issuance, Kind::Client, name),
            None => self.traces.begin(Kind::Client, name),
        }
    }

    /// The proof of a candidate, or of what is published.
    pub(super) fn of_proof(&self, number: GenerationId) -> Span {
        let is_candidate = self.attempt.as_ref().is_some_and(|attempt| attempt.number == Some(number));
        let mut span =
            if is_candidate { self.of_attempt("proof") } else { self.traces.begin(Kind::Client, "proof") };
        span.number("lease.generation", number.get());
        span
    }
}
