//! Where a session stands: what the server still owes, and whether the session is between transactions. Floor 1.
//!
//! ReadyForQuery alone does not tell. The client may have sent more since; after an error the server reads and drops
//! everything up to the next Sync, a Query too; and COPY FROM STDIN swallows Syncs, of which libpq always sends one. So
//! every request is remembered by its type until a reply proves it done.
//!
//! Where the replies leave two readings, the one with more outstanding is taken. That may call a session busy that is
//! not, until the next reply with content shows it; it never calls one idle that is not.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-flow.html>

#[cfg(test)]
mod model;
mod outstanding;
mod places;
#[cfg(test)]
mod tests;

use outstanding::{Outstanding, Request};
pub use places::places;

/// The requests of one session that are not yet answered, and the last ReadyForQuery. Starts behind the startup's own
/// ReadyForQuery. Holds next to no memory while nothing is outstanding. `ROOM` of them are kept one by one.
#[derive(Debug, Default)]
pub(crate) struct Phase<const ROOM: usize = 65_536> {
    mode: Mode,
    status: Status,
    outstanding: Outstanding<ROOM>,
    since_ready: SinceReady,
    /// The Syncs in front of `outstanding` may have been swallowed by a COPY that failed.
    unsure: bool,
    terminated: bool,
}

impl<const ROOM: usize> Phase<ROOM> {
    /// A message that goes to the server. Call it before its first byte is forwarded.
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
            // CopyData and Flush are never answered, and open no transaction.
            b'd' | b'H' => {}
            b'X' => self.terminated = true,
            // What the server does on it is not known.
            _ => self.lose(),
        }
    }

    /// A message that comes from the server; of `body` only ReadyForQuery's first byte is looked at. Call it before the
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
            // Rows, COPY data and what may come at any time: notices, notifications, parameter reports.
            _ => {}
        }
    }

    /// Whether the server has done all that was asked and is outside a transaction: the session can be closed, and the
    /// client can tell that nothing ran since its last ReadyForQuery. A message that is forwarded by half is not known
    /// here: ask [`super::frame::Scanner::at_boundary`] of both directions too.
    #[must_use]
    pub(crate) fn between_transactions(&self) -> bool {
        matches!(self.mode, Mode::Answering)
            && matches!(self.status, Status::Idle)
            && matches!(self.since_ready, SinceReady::Nothing)
            && self.outstanding.is_empty()
    }

    /// Whether the server may be working on something, so that a CancelRequest makes sense.
    #[must_use]
    pub(crate) fn statement_running(&self) -> bool {
        matches!(self.mode, Mode::Lost) || !self.outstanding.is_empty()
    }

    /// Whether the server is certainly at work: it has something to say before it waits for the client.
    #[must_use]
    pub(crate) fn is_working(&self) -> bool {
        matches!(self.mode, Mode::Answering)
            && !self.unsure
            // Replies to other requests may be held back until there is a Sync.
            && self.outstanding.next_ready().is_some()
    }

    /// Whether the client has said goodbye.
    #[must_use]
    pub(crate) fn terminated(&self) -> bool {
        self.terminated
    }

    fn request(&mut self, request: Request) {
        match (self.mode, request) {
            (Mode::Lost, _) => return,
            // Read and dropped.
            (Mode::Skipping, Request::Sync) => self.mode = Mode::Answering,
            (Mode::Skipping, _) => return,
            // With nothing ahead that could be a COPY it comes late, behind one that failed, and is ignored.
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

    /// A reply that ends the request at the front, unless that is a Query: it ends with ReadyForQuery.
    fn answered(&mut self, by: impl Fn(Request) -> bool) {
        self.reach(&by);
        match self.outstanding.first() {
            // Which of them it answers is not known; they are over with their ReadyForQuery.
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
            // A COPY succeeds only once CopyDone was read. The Syncs between the command and it were swallowed; nothing
            // else may be there, and what is behind it was not yet read.
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
            // Which of the Syncs behind it the COPY swallows depends on where it stands.
            return self.lose();
        }
        self.switch(Mode::CopyIn);
    }

    fn failed(&mut self) {
        if self.unsure {
            // The Sync in doubt has no work of its own that could fail, so the error is that of what follows.
            let doubtful = |request| matches!(request, Request::Sync | Request::CopyEnd);
            match self.outstanding.position(|request| !doubtful(request)) {
                Some(at) => self.settle(at),
                None if !self.outstanding.is_exact() => return self.lose(),
                None => {}
            }
        }
        if let Mode::CopyIn = self.mode {
            // Of the Syncs behind it the COPY may have swallowed some before it failed.
            self.unsure = true;
            self.mode = Mode::Answering;
        }
        match self.outstanding.first() {
            // Extended requests were answered, and no Sync has followed. Did a timeout strike while the server waited, so
            // that it now skips, or is it the error of a Query that came without a Sync? Only odd clients get here.
            None | Some(Request::Query | Request::FunctionCall)
                if matches!(self.since_ready, SinceReady::ExtendedReplies) =>
            {
                self.lose();
            }
            // An idle server's last word.
            None => {}
            // ReadyForQuery follows: nothing is skipped.
            Some(Request::Sync | Request::CopyEnd | Request::Query | Request::FunctionCall) => {}
            // Of one of them, or of the Query behind them?
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

    /// Content came that only such a request can bring, so the requests ahead of it are done.
    fn reach(&mut self, by: impl Fn(Request) -> bool) {
        match self.outstanding.position(|request| by(request) || request == Request::Some) {
            Some(0) => self.unsure = false,
            Some(at) if self.unsure => self.settle(at),
            // Not as PostgreSQL answers: whatever else is thought to be outstanding, it is not known.
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
/// COPY TO STDOUT and replication need no mode: the Query or Execute stays in front until they are over.
#[derive(Clone, Copy, Debug, Default)]
enum Mode {
    /// In order, each answered.
    #[default]
    Answering,
    /// Dropping all until a Sync that is not yet sent.
    Skipping,
    /// The front's COPY FROM STDIN: Syncs are swallowed until it ends.
    CopyIn,
    /// No longer followed, and never again called idle.
    Lost,
}

/// What happened since the last ReadyForQuery.
#[derive(Clone, Copy, Debug, Default)]
enum SinceReady {
    #[default]
    Nothing,
    /// Requests were forwarded, so a transaction may be open that it did not know of.
    Requests,
    /// Extended ones were answered; their transaction is open until Sync.
    ExtendedReplies,
}

/// What the last ReadyForQuery said.
#[derive(Clone, Copy, Debug, Default)]
enum Status {
    #[default]
    Idle,
    /// In a transaction, failed or not.
    InTransaction,
}
