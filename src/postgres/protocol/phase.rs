//! Tracks which replies the server still owes, and whether the session is between transactions. Floor 1.
//!
//! ReadyForQuery alone does not answer this. The client may have sent more since. After an error the server reads and
//! discards everything up to the next Sync, even a Query. COPY FROM STDIN ignores Syncs, of which libpq always sends
//! one. So every request is remembered by its type until a reply proves that it is done.
//!
//! If the replies are ambiguous, the interpretation with more outstanding requests is taken. It may report an idle
//! session as busy until the next reply with content; it never reports a busy session as idle.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(any(test, fuzzing))]
mod model;
mod outstanding;
mod places;
#[cfg(test)]
mod tests;

use outstanding::{Outstanding, Request};
pub use places::places;

/// The unanswered requests of one session, and the last ReadyForQuery. Starts after the startup's ReadyForQuery. Uses
/// almost no memory while nothing is outstanding. The first `ROOM` requests are stored individually.
#[derive(Debug, Default)]
pub(crate) struct Phase<const ROOM: usize = 65_536> {
    mode: Mode,
    status: Status,
    outstanding: Outstanding<ROOM>,
    since_ready: SinceReady,
    /// A failed COPY may have ignored the Syncs at the front of `outstanding`.
    unsure: bool,
    terminated: bool,
}

impl<const ROOM: usize> Phase<ROOM> {
    /// Records a message to the server. Call it before its first byte is forwarded.
    pub(crate) fn frontend(&mut self, tag: u8) {
        match tag {
            b'P' => self.request(Request::Parse),
            b'B' => self.request(Request::Bind),
            b'D' => self.request(Request::Describe),
            b'E' => self.request(Request::Execute),
            b'C' => self.request(Request::Close),
            b'S' => self.request(Request::Sync),
            b'Q' => self.request(Request::Query),
            b'F' => self.request(Request::FunctionCall),
            b'c' | b'f' => self.request(Request::CopyEnd),
            // CopyData and Flush get no reply and open no transaction.
            b'd' | b'H' => {}
            b'X' => self.terminated = true,
            // The server's reaction is unknown.
            _ => self.lose(),
        }
    }

    /// Records a message from the server. Only the first byte of ReadyForQuery's `body` is read. Call it before the
    /// message is forwarded.
    pub(crate) fn backend(&mut self, tag: u8, body: &[u8]) {
        match tag {
            b'Z' => self.ready(body),
            b'1' => self.answered(|request| request == Request::Parse),
            b'2' => self.answered(|request| request == Request::Bind),
            b'3' => self.answered(|request| request == Request::Close),
            b'T' | b'n' => self.answered(|request| matches!(request, Request::Describe | Request::Query)),
            b'C' | b'I' | b's' => self.completed(),
            b'V' => self.reach(|request| request == Request::FunctionCall),
            b'G' => self.copy_in(),
            b'E' => self.failed(),
            // Rows, COPY data, and what may come at any time: NoticeResponse, NotificationResponse, ParameterStatus.
            _ => {}
        }
    }

    /// Whether the server has done everything that was requested and is outside a transaction. The session can then be
    /// closed, and the client can know that nothing ran since its last ReadyForQuery. A partly forwarded message is not
    /// known here: ask [`super::frame::Scanner::at_boundary`] of both directions too.
    #[must_use]
    pub(crate) fn between_transactions(&self) -> bool {
        matches!(self.mode, Mode::Answering)
            && matches!(self.status, Status::Idle)
            && matches!(self.since_ready, SinceReady::Nothing)
            && self.outstanding.is_empty()
    }

    /// Whether the server may be executing something, so that a CancelRequest makes sense.
    #[must_use]
    pub(crate) fn statement_running(&self) -> bool {
        matches!(self.mode, Mode::Lost) || !self.outstanding.is_empty()
    }

    /// Whether the server is certainly working: it will send a message before it waits for the client.
    #[must_use]
    pub(crate) fn is_working(&self) -> bool {
        matches!(self.mode, Mode::Answering)
            && !self.unsure
            // The server may hold back its replies to other requests until it reads a Sync.
            && self.outstanding.next_ready().is_some()
    }

    /// Whether the client has sent Terminate.
    #[must_use]
    pub(crate) fn terminated(&self) -> bool {
        self.terminated
    }

    fn request(&mut self, request: Request) {
        match (self.mode, request) {
            (Mode::Lost, _) => return,
            // The server discards everything before the Sync.
            (Mode::Skipping, Request::Sync) => self.mode = Mode::Answering,
            (Mode::Skipping, _) => return,
            // Without a COPY ahead, this follows a COPY that has failed, and the server ignores it.
            (_, Request::CopyEnd) if self.outstanding.is_empty() => return,
            _ => {}
        }
        if let SinceReady::Nothing = self.since_ready {
            self.since_ready = SinceReady::Requests;
        }
        if !self.outstanding.push(request) {
            self.lose();
        }
    }

    fn ready(&mut self, body: &[u8]) {
        self.status = if body.first() == Some(&b'I') { Status::Idle } else { Status::InTransaction };
        self.switch(Mode::Answering);
        self.outstanding.drop_ready();
        self.settled();
        self.since_ready =
            if self.outstanding.is_empty() { SinceReady::Nothing } else { SinceReady::Requests };
    }

    /// Handles a reply that ends the request at the front, except a Query, which ends with ReadyForQuery.
    fn answered(&mut self, by: impl Fn(Request) -> bool) {
        self.reach(&by);
        match self.outstanding.first() {
            // It is unknown which of these requests it answers. Their ReadyForQuery ends all of them.
            Some(Request::Some) => self.since_ready = SinceReady::ExtendedReplies,
            Some(front) if by(front) && !front.ends_with_ready() => {
                self.drop_front(1);
                self.since_ready = SinceReady::ExtendedReplies;
            }
            _ => {}
        }
    }

    fn completed(&mut self) {
        let by = |request| matches!(request, Request::Execute | Request::Query);
        self.reach(by);
        if let Mode::CopyIn = self.mode {
            // A COPY succeeds only after the server has read CopyDone. It ignored the Syncs between the command and
            // CopyDone. Nothing else may be there, and the server has not yet read what is behind CopyDone.
            let syncs =
                self.outstanding.iter().skip(1).take_while(|request| *request == Request::Sync).count();
            match self.outstanding.get(1 + syncs) {
                Some(Request::CopyEnd) => self.outstanding.drop_behind_first(1 + syncs),
                None if !self.outstanding.is_exact() => return self.lose(),
                _ => {}
            }
            self.mode = Mode::Answering;
        }
        self.answered(by);
    }

    fn copy_in(&mut self) {
        self.reach(|request| matches!(request, Request::Execute | Request::Query));
        if self.outstanding.first() == Some(Request::Some) {
            // Which of the Syncs behind it the COPY ignores depends on its position, which is unknown.
            return self.lose();
        }
        self.switch(Mode::CopyIn);
    }

    fn failed(&mut self) {
        if self.unsure {
            // The uncertain Sync does no work that could fail, so the error belongs to what follows it.
            let doubtful = |request| matches!(request, Request::Sync | Request::CopyEnd);
            match self.outstanding.position(|request| !doubtful(request)) {
                Some(at) => self.settle(at),
                None if !self.outstanding.is_exact() => return self.lose(),
                None => {}
            }
        }
        if let Mode::CopyIn = self.mode {
            // Before it failed, the COPY may have ignored some of the Syncs behind it.
            self.unsure = true;
            self.mode = Mode::Answering;
        }
        match self.outstanding.first() {
            // Extended requests were answered, and no Sync has followed. Either a timeout expired while the server
            // waited, so it skips now, or a Query without a Sync before it failed. Only unusual clients get here.
            None | Some(Request::Query | Request::FunctionCall)
                if matches!(self.since_ready, SinceReady::ExtendedReplies) =>
            {
                self.lose();
            }
            // An idle server sends an error only before it closes the connection.
            None => {}
            // ReadyForQuery follows, and nothing is skipped.
            Some(Request::Sync | Request::CopyEnd | Request::Query | Request::FunctionCall) => {}
            // The error may belong to one of these requests or to the Query behind them.
            Some(Request::Some) if !matches!(self.outstanding.next_ready(), None | Some(Request::Sync)) => {
                self.lose();
            }
            // The server now skips to the next Sync.
            Some(_) => {
                if !self.outstanding.drop_to_sync() {
                    self.switch(Mode::Skipping);
                }
                self.settled();
            }
        }
    }

    /// Handles a reply that only a request in `by` can cause, so the requests ahead of it are done.
    fn reach(&mut self, by: impl Fn(Request) -> bool) {
        match self.outstanding.position(|request| by(request) || request == Request::Some) {
            Some(0) => self.unsure = false,
            Some(at) if self.unsure => self.settle(at),
            // PostgreSQL does not answer like this, so what is outstanding is unknown.
            _ => self.lose(),
        }
    }

    fn settle(&mut self, front: usize) {
        self.drop_front(front);
        self.unsure = false;
    }

    fn drop_front(&mut self, count: usize) {
        self.outstanding.drop_front(count);
        self.settled();
    }

    fn settled(&mut self) {
        if self.outstanding.is_empty() {
            self.unsure = false;
        }
    }

    fn switch(&mut self, mode: Mode) {
        if !matches!(self.mode, Mode::Lost) {
            self.mode = mode;
        }
    }

    fn lose(&mut self) {
        *self = Self { mode: Mode::Lost, terminated: self.terminated, ..Self::default() };
    }
}

/// How the server reads what the client sends.
///
/// ```text
///              CopyInResponse            ErrorResponse, and no Sync sent yet
///   CopyIn ◀──────────────────── Answering ─────────────────────────────────▶ Skipping
///      └────────────────────────────▶ ▲ ◀─────────────────────────────────────────┘
///         CommandComplete,                        Sync sent
///         ErrorResponse                           any ─── too much, or unknown ───▶ Lost
/// ```
///
/// An ErrorResponse in CopyIn goes straight on to Skipping if no Sync was sent.
///
/// COPY TO STDOUT and replication need no mode: the Query or Execute stays at the front until they end.
#[derive(Clone, Copy, Debug, Default)]
enum Mode {
    /// It reads requests in order and answers each.
    #[default]
    Answering,
    /// It discards everything until a Sync that is not yet sent.
    Skipping,
    /// The request at the front runs COPY FROM STDIN, which ignores Syncs until it ends.
    CopyIn,
    /// The session is no longer tracked, and is never again reported as idle.
    Lost,
}

/// What happened since the last ReadyForQuery.
#[derive(Clone, Copy, Debug, Default)]
enum SinceReady {
    #[default]
    Nothing,
    /// Requests were forwarded, so a transaction may be open that ReadyForQuery did not report.
    Requests,
    /// Extended requests were answered; their transaction is open until Sync.
    ExtendedReplies,
}

/// The status in the last ReadyForQuery.
#[derive(Clone, Copy, Debug, Default)]
enum Status {
    #[default]
    Idle,
    /// In a transaction, failed or not.
    InTransaction,
}
