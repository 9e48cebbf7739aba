//! A session whose client, server and network do what bytes say, against the model of the server. Floor 1.
//!
//! Both directions go through a scanner, in chunks. What is asserted is what a session's end depends on: it is never
//! called idle while the server may be working.

use super::Phase;
use super::model::{Message, Server, Statement};
use crate::postgres::protocol::frame::Scanner;

/// Plays a session of a client that keeps to the protocol, and then one that does not.
pub(crate) fn session(data: &[u8]) {
    let (program, turns) = data.split_at(data.len() / 2);
    let program = program_of(&mut Choices(program));
    Session::<65_536>::default().play(program.clone(), turns);
    Session::<3>::default().play(program, turns);
    let (mut phase, mut little): (Phase, Phase<2>) = Default::default();
    for [way, tag] in data.as_chunks().0 {
        if way & 1 == 0 {
            phase.frontend(*tag);
            little.frontend(*tag);
        } else {
            phase.backend(*tag, &[*way]);
            little.backend(*tag, &[*way]);
        }
        assert!(!(phase.between_transactions() && phase.statement_running()));
        assert!(!(little.between_transactions() && little.statement_running()));
    }
}

/// Decisions that come from bytes; the first of each kind where there are none left.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn of(&mut self, count: u8) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first % count
    }

    fn seldom(&mut self) -> bool {
        self.of(8) == 7
    }
}

/// What a client sends: parts that each end in a way that the model knows.
fn program_of(choices: &mut Choices<'_>) -> Vec<Message> {
    let mut program = Vec::new();
    while !choices.0.is_empty() && program.len() < 100 {
        match choices.of(4) {
            0 => program.push(Message::Query(statements(choices))),
            1 => program.push(Message::FunctionCall { fails: choices.seldom() }),
            2 => {
                for _ in 0..=choices.of(9) {
                    let message = pipelined(choices);
                    program.push(message);
                }
            }
            _ => copy(choices, &mut program),
        }
    }
    program
}

fn statements(choices: &mut Choices<'_>) -> Vec<Statement> {
    (0..=choices.of(3)).map(|_| statement(choices)).collect()
}

fn statement(choices: &mut Choices<'_>) -> Statement {
    match choices.of(8) {
        0 => Statement::Done,
        1 => Statement::Rows,
        2 => Statement::Empty,
        3 => Statement::Suspended,
        4 => Statement::Fails,
        5 => Statement::Begin,
        6 => Statement::Commit,
        _ => Statement::CopyOut,
    }
}

fn pipelined(choices: &mut Choices<'_>) -> Message {
    match choices.of(10) {
        0 => Message::Parse { fails: choices.seldom() },
        1 => Message::Bind { fails: choices.seldom() },
        2 => Message::Describe { rows: choices.of(2) == 1, fails: choices.seldom() },
        3 | 4 => Message::Execute(statement(choices)),
        5 => Message::Close,
        6 => Message::Flush,
        7 => Message::CopyDone,
        8 => Message::CopyFail,
        _ => Message::Sync { commit_fails: choices.seldom() },
    }
}

/// A COPY with its data and its end, as a simple query, as libpq's extended one, or for replication.
fn copy(choices: &mut Choices<'_>, program: &mut Vec<Message>) {
    let form = choices.of(3);
    let copy = Statement::CopyIn { fails_at_once: choices.seldom() };
    match form {
        0 => program.push(Message::Query(vec![statement(choices), copy])),
        1 => {
            program.push(Message::Parse { fails: choices.seldom() });
            program.push(Message::Bind { fails: false });
            program.push(Message::Execute(copy));
            program.push(if choices.of(2) == 0 {
                Message::Flush
            } else {
                Message::Sync { commit_fails: false }
            });
        }
        _ => {
            program.push(Message::Sync { commit_fails: false });
            program.push(Message::Query(vec![Statement::CopyBoth]));
        }
    }
    for _ in 0..choices.of(4) {
        program.push(match choices.of(5) {
            4 if form < 2 => Message::Sync { commit_fails: false },
            _ => Message::CopyData { bad: choices.seldom() },
        });
    }
    program.push(if form < 2 && choices.of(5) == 4 { Message::CopyFail } else { Message::CopyDone });
    if form == 1 {
        program.push(Message::Sync { commit_fails: choices.seldom() });
    }
}

#[derive(Default)]
struct Session<const ROOM: usize> {
    phase: Phase<ROOM>,
    server: Server,
    to_server: Scanner,
    to_client: Scanner,
}

impl<const ROOM: usize> Session<ROOM> {
    fn play(&mut self, program: Vec<Message>, turns: &[u8]) {
        let mut program = program.into_iter();
        for turn in turns {
            match turn % 8 {
                0..3 => {
                    if let Some(message) = program.next() {
                        self.send(message, usize::from(turn >> 3));
                    }
                }
                3 | 4 => self.server.step(),
                5 | 6 => self.deliver(),
                _ if *turn < 32 => self.server.time_out(),
                _ => self.phase.backend(b'N', b""),
            }
            self.check();
        }
        program.for_each(|message| self.send(message, 0));
        while !self.server.unread.is_empty() {
            self.server.step();
            self.check();
        }
        while !self.server.replies.is_empty() {
            self.deliver();
        }
    }

    /// `body`: the length of what follows the header, which comes in two chunks.
    fn send(&mut self, message: Message, body: usize) {
        let bytes = encoded(message.tag(), &vec![b'x'; body]);
        let (first, second) = bytes.split_at(bytes.len() / 2);
        for chunk in [first, second] {
            let phase = &mut self.phase;
            let fed = self.to_server.feed(chunk, |frame| phase.frontend(frame.tag));
            assert_eq!(fed, Ok(()));
            self.check();
        }
        assert!(self.to_server.at_boundary());
        self.server.unread.push_back(message);
        self.check();
    }

    fn deliver(&mut self) {
        if let Some((tag, status)) = self.server.replies.pop_front() {
            for chunk in encoded(tag, &[status]).chunks(5) {
                let phase = &mut self.phase;
                let fed = self.to_client.feed(chunk, |frame| phase.backend(frame.tag, frame.body));
                assert_eq!(fed, Ok(()));
            }
            self.check();
        }
    }

    fn check(&self) {
        let (phase, server) = (&self.phase, &self.server);
        assert!(!phase.between_transactions() || server.is_idle(), "{phase:?} {server:?}");
    }
}

fn encoded(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), body].concat()
}
