//! A small model of PostgreSQL's main loop: what it reads, skips, ignores and answers. For tests and
//! fuzzers only.
//!
//! It follows `PostgresMain` and `SocketBackend` in `src/backend/tcop/postgres.c`, and `CopyGetData` in
//! `src/backend/commands/copyfromparse.c`.

#![expect(clippy::panic, reason = "a program that no client sends is a fault of the test")]

use std::collections::VecDeque;

/// What a client sends, with its outcome at the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Parse { fails: bool },
    Bind { fails: bool },
    Describe { rows: bool, fails: bool },
    Execute(Statement),
    Close,
    Sync { commit_fails: bool },
    Flush,
    Query(Vec<Statement>),
    FunctionCall { fails: bool },
    CopyData { bad: bool },
    CopyDone,
    CopyFail,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Done,
    Rows,
    Empty,
    Suspended,
    Fails,
    Begin,
    Commit,
    CopyOut,
    CopyIn { fails_at_once: bool },
    CopyBoth,
}

impl Message {
    pub(super) fn tag(&self) -> u8 {
        match self {
            Self::Parse { .. } => b'P',
            Self::Bind { .. } => b'B',
            Self::Describe { .. } => b'D',
            Self::Execute(_) => b'E',
            Self::Close => b'C',
            Self::Sync { .. } => b'S',
            Self::Flush => b'H',
            Self::Query(_) => b'Q',
            Self::FunctionCall { .. } => b'F',
            Self::CopyData { .. } => b'd',
            Self::CopyDone => b'c',
            Self::CopyFail => b'f',
        }
    }

    /// Whether the main loop ignores the message.
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Flush | Self::CopyData { .. } | Self::CopyDone | Self::CopyFail)
    }
}

#[derive(Debug, Default)]
pub(super) struct Server {
    pub(super) unread: VecDeque<Message>,
    pub(super) replies: VecDeque<(u8, u8)>,
    block: Block,
    /// Extended messages have opened a transaction that ends with Sync.
    implicit: bool,
    skipping: bool,
    last_read_was_extended: bool,
    copy: Option<Copy>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Block {
    #[default]
    None,
    Open,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Query,
    Execute,
}

#[derive(Debug)]
struct Copy {
    both: bool,
    origin: Origin,
    then: VecDeque<Statement>,
}

impl Server {
    pub(super) fn outside_transaction(&self) -> bool {
        self.block == Block::None && !self.implicit && !self.skipping && self.copy.is_none()
    }

    /// Whether no transaction is open, all unread messages will be ignored, and all replies are delivered.
    pub(super) fn is_idle(&self) -> bool {
        self.outside_transaction() && self.unread.iter().all(Message::is_nothing) && self.replies.is_empty()
    }

    /// Reads one message.
    pub(super) fn step(&mut self) {
        let Some(message) = self.unread.pop_front() else { return };
        match self.copy.take() {
            Some(copy) if copy.both => self.read_in_copy_both(copy, &message),
            Some(copy) => self.read_in_copy(copy, &message),
            None => self.read(message),
        }
    }

    /// Applies `statement_timeout`, which keeps running while the server waits after an extended message.
    pub(super) fn time_out(&mut self) {
        if self.implicit && self.last_read_was_extended && !self.skipping && self.copy.is_none() {
            self.fail(Origin::Execute);
        }
    }

    fn read(&mut self, message: Message) {
        if self.skipping && !matches!(message, Message::Sync { .. }) {
            return;
        }
        self.skipping = false;
        self.last_read_was_extended = matches!(message.tag(), b'P' | b'B' | b'D' | b'E' | b'C' | b'H');
        match message {
            Message::Parse { fails } => self.extended(fails, b"1"),
            Message::Bind { fails } => self.extended(fails, b"2"),
            Message::Describe { rows: true, fails } => self.extended(fails, b"tT"),
            Message::Describe { rows: false, fails } => self.extended(fails, b"n"),
            Message::Close => self.extended(false, b"3"),
            Message::Execute(statement) => self.run([statement].into(), Origin::Execute),
            Message::Query(statements) => self.run(statements.into(), Origin::Query),
            Message::FunctionCall { fails: true } => self.fail(Origin::Query),
            Message::FunctionCall { fails: false } => {
                self.reply(b"V");
                self.ready();
            }
            Message::Sync { commit_fails } => {
                if self.implicit && commit_fails && self.block == Block::None {
                    self.reply(b"E");
                }
                self.ready();
            }
            Message::Flush | Message::CopyData { .. } | Message::CopyDone | Message::CopyFail => {}
        }
    }

    fn read_in_copy(&mut self, copy: Copy, message: &Message) {
        match message {
            Message::CopyDone => {
                self.reply(b"C");
                self.run(copy.then, copy.origin);
            }
            Message::CopyFail | Message::CopyData { bad: true } => self.fail(copy.origin),
            Message::CopyData { bad: false } | Message::Sync { .. } | Message::Flush => {
                self.copy = Some(copy)
            }
            other => panic!("a program must not send {other:?} during COPY"),
        }
    }

    fn read_in_copy_both(&mut self, copy: Copy, message: &Message) {
        match message {
            Message::CopyDone => {
                self.reply(b"cC");
                self.run(copy.then, copy.origin);
            }
            Message::CopyData { bad: true } => self.fail(copy.origin),
            Message::CopyData { bad: false } => {
                self.reply(b"d");
                self.copy = Some(copy);
            }
            other => panic!("a program must not send {other:?} during replication"),
        }
    }

    fn extended(&mut self, fails: bool, replies: &[u8]) {
        self.implicit = true;
        if fails {
            return self.fail(Origin::Execute);
        }
        self.reply(replies);
    }

    fn run(&mut self, mut statements: VecDeque<Statement>, origin: Origin) {
        self.implicit |= origin == Origin::Execute;
        while let Some(statement) = statements.pop_front() {
            if self.block == Block::Failed && statement != Statement::Commit {
                return self.fail(origin);
            }
            match statement {
                Statement::Done => self.reply(b"C"),
                Statement::Rows if origin == Origin::Query => self.reply(b"TDDC"),
                Statement::Rows => self.reply(b"DDC"),
                Statement::Empty => self.reply(b"I"),
                Statement::Suspended if origin == Origin::Query => self.reply(b"NC"),
                Statement::Suspended => self.reply(b"Ds"),
                Statement::Fails => return self.fail(origin),
                Statement::Begin => {
                    self.block = Block::Open;
                    self.reply(b"C");
                }
                Statement::Commit => {
                    self.block = Block::None;
                    self.reply(b"C");
                }
                Statement::CopyOut => self.reply(b"HddcC"),
                Statement::CopyIn { fails_at_once } => {
                    self.reply(b"G");
                    if fails_at_once {
                        return self.fail(origin);
                    }
                    self.copy = Some(Copy { both: false, origin, then: statements });
                    return;
                }
                Statement::CopyBoth => {
                    self.reply(b"Wd");
                    self.copy = Some(Copy { both: true, origin, then: statements });
                    return;
                }
            }
        }
        if origin == Origin::Query {
            self.ready();
        }
    }

    fn fail(&mut self, origin: Origin) {
        self.reply(b"E");
        self.implicit = false;
        if self.block == Block::Open {
            self.block = Block::Failed;
        }
        match origin {
            Origin::Execute => self.skipping = true,
            Origin::Query => self.ready(),
        }
    }

    fn ready(&mut self) {
        self.implicit = false;
        let status = match self.block {
            Block::None => b'I',
            Block::Open => b'T',
            Block::Failed => b'E',
        };
        self.replies.push_back((b'Z', status));
    }

    fn reply(&mut self, tags: &[u8]) {
        self.replies.extend(tags.iter().map(|tag| (*tag, 0)));
    }
}
