//! Tests the phase with random sessions against a model of the server.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::postgres::protocol::phase::Phase;
use crate::postgres::protocol::phase::model::{Message, Server, Statement};

fn fails() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn statement() -> impl Strategy<Value = Statement> {
    prop_oneof![
        Just(Statement::Done),
        Just(Statement::Rows),
        Just(Statement::Empty),
        Just(Statement::Suspended),
        Just(Statement::Fails),
        Just(Statement::Begin),
        Just(Statement::Commit),
        Just(Statement::CopyOut),
    ]
}

fn sync() -> impl Strategy<Value = Message> {
    fails().prop_map(|commit_fails| Message::Sync { commit_fails })
}

fn pipelined() -> impl Strategy<Value = Message> {
    prop_oneof![
        3 => fails().prop_map(|fails| Message::Parse { fails }),
        3 => fails().prop_map(|fails| Message::Bind { fails }),
        2 => (any::<bool>(), fails()).prop_map(|(rows, fails)| Message::Describe { rows, fails }),
        4 => statement().prop_map(Message::Execute),
        1 => Just(Message::Close),
        3 => sync(),
        1 => Just(Message::Flush),
        1 => prop_oneof![Just(Message::CopyDone), Just(Message::CopyFail)],
    ]
}

/// Extended messages with a Sync now and then. With `odd`, a query may have no Sync before it, and the end may have
/// none; otherwise a query comes only where an earlier error makes the server skip it.
fn pipeline(odd: bool) -> BoxedStrategy<Vec<Message>> {
    let query = prop_oneof![
        vec(statement(), 1..4).prop_map(Message::Query),
        fails().prop_map(|fails| Message::FunctionCall { fails }),
    ];
    if odd {
        return vec(prop_oneof![8 => pipelined(), 1 => query], 1..10).boxed();
    }
    let skipped = (prop::option::weighted(0.2, query), sync()).prop_map(|(query, sync)| match query {
        Some(query) => vec![Message::Parse { fails: true }, query, sync],
        None => vec![sync],
    });
    (vec(pipelined(), 1..10), skipped).prop_map(|(messages, end)| [messages, end].concat()).boxed()
}

/// The data of a COPY, with stray Syncs if `syncs`, and its end.
fn copy_data(syncs: bool) -> impl Strategy<Value = Vec<Message>> {
    let data = fails().prop_map(|bad| Message::CopyData { bad });
    let middle = if syncs { prop_oneof![4 => data, 1 => sync()].boxed() } else { data.boxed() };
    let end = prop_oneof![4 => Just(Message::CopyDone), 1 => Just(Message::CopyFail)];
    (vec(middle, 0..4), end).prop_map(|(mut messages, end)| {
        messages.push(end);
        messages
    })
}

fn copy_in() -> impl Strategy<Value = Statement> {
    fails().prop_map(|fails_at_once| Statement::CopyIn { fails_at_once })
}

/// COPY FROM STDIN in simple queries, also twice in one string, and in extended queries as libpq sends it.
fn copies(stray: bool) -> impl Strategy<Value = Vec<Message>> {
    let simple = (copy_in(), copy_data(stray))
        .prop_map(|(copy, data)| [vec![Message::Query(vec![Statement::Done, copy])], data].concat());
    let double =
        (copy_in(), copy_data(stray), copy_in(), copy_data(false)).prop_map(|(one, first, two, second)| {
            [vec![Message::Query(vec![one, Statement::Done, two])], first, second].concat()
        });
    let extended = (fails(), copy_in(), any::<bool>(), copy_data(stray), sync()).prop_map(
        move |(fails, copy, early, data, last)| {
            let mut messages =
                vec![Message::Parse { fails }, Message::Bind { fails: false }, Message::Execute(copy)];
            messages.push(if early { Message::Sync { commit_fails: false } } else { Message::Flush });
            [messages, data, vec![last]].concat()
        },
    );
    let both = fails().prop_map(|bad| {
        let data = Message::CopyData { bad };
        vec![
            Message::Sync { commit_fails: false },
            Message::Query(vec![Statement::CopyBoth]),
            data,
            Message::CopyDone,
        ]
    });
    prop_oneof![simple, double, extended, both]
}

/// A program without COPY FROM STDIN, and without a Query behind extended requests that have no Sync.
fn plain_program() -> impl Strategy<Value = Vec<Message>> {
    let part = prop_oneof![
        2 => vec(statement(), 1..3).prop_map(|statements| vec![Message::Query(statements)]),
        1 => fails().prop_map(|fails| vec![Message::FunctionCall { fails }]),
        3 => (vec(pipelined(), 1..10), sync()).prop_map(|(messages, sync)| [messages, vec![sync]].concat()),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

fn program(odd: bool) -> impl Strategy<Value = Vec<Message>> {
    let part = prop_oneof![
        2 => vec(statement(), 1..3).prop_map(|statements| vec![Message::Query(statements)]),
        1 => fails().prop_map(|fails| vec![Message::FunctionCall { fails }]),
        3 => pipeline(odd),
        2 => copies(odd),
    ];
    vec(part, 0..8).prop_map(|parts| parts.concat())
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Client,
    Server,
    Delivery,
    Timeout,
    Notice,
}

fn turns(timeouts: bool) -> impl Strategy<Value = Vec<Turn>> {
    let usual = prop_oneof![Just(Turn::Client), Just(Turn::Server), Just(Turn::Delivery), Just(Turn::Notice)];
    let turn =
        if timeouts { prop_oneof![8 => usual, 1 => Just(Turn::Timeout)].boxed() } else { usual.boxed() };
    // Runs give a client that is far ahead as well as one that waits for each reply.
    vec((turn, 1..12_usize), 0..60).prop_map(|runs| {
        runs.into_iter().flat_map(|(turn, times)| std::iter::repeat_n(turn, times)).collect()
    })
}

#[derive(Default)]
struct Session<const ROOM: usize> {
    phase: Phase<ROOM>,
    server: Server,
}

impl<const ROOM: usize> Session<ROOM> {
    fn play(&mut self, program: Vec<Message>, turns: Vec<Turn>) {
        let mut program = program.into_iter();
        for turn in turns {
            match turn {
                Turn::Client => {
                    if let Some(message) = program.next() {
                        self.send(message);
                    }
                }
                Turn::Server => self.server.step(),
                Turn::Delivery => self.deliver(),
                Turn::Timeout => self.server.time_out(),
                Turn::Notice => self.phase.backend(b'N', b""),
            }
            self.check();
        }
        program.for_each(|message| self.send(message));
        self.settle();
    }

    fn send(&mut self, message: Message) {
        self.phase.frontend(message.tag());
        self.server.unread.push_back(message);
        self.check();
    }

    fn deliver(&mut self) {
        if let Some((tag, status)) = self.server.replies.pop_front() {
            self.phase.backend(tag, &[status]);
            self.check();
        }
    }

    fn settle(&mut self) {
        while !self.server.unread.is_empty() {
            self.server.step();
            self.check();
        }
        while !self.server.replies.is_empty() {
            self.deliver();
        }
    }

    /// Asserts that no running session is ended early.
    fn check(&self) {
        assert!(
            !self.phase.between_transactions() || self.server.is_idle(),
            "{:?} {:?}",
            self.phase,
            self.server
        );
    }
}

/// Whether a COPY FROM STDIN may fail behind a Sync, so that the replies allow two interpretations.
fn may_leave_a_doubt(program: &[Message]) -> bool {
    let fails_at_once = |statement: &Statement| *statement == Statement::CopyIn { fails_at_once: true };
    let copies = |statement: &Statement| matches!(statement, Statement::CopyIn { .. });
    program.iter().any(|message| matches!(message, Message::Execute(statement) if copies(statement)))
        && program.iter().any(|message| match message {
            Message::CopyFail | Message::CopyData { bad: true } => true,
            Message::Execute(statement) => fails_at_once(statement),
            _ => false,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn between_is_never_claimed_too_early(program in program(true), turns in turns(true)) {
        Session::<65_536>::default().play(program, turns);
    }

    /// Nearly all requests are stored in runs here.
    #[test]
    fn between_is_never_claimed_too_early_in_little_room(program in program(true), turns in turns(true)) {
        Session::<3>::default().play(program.clone(), turns.clone());
        Session::<2>::default().play(program, turns);
    }

    #[test]
    fn between_is_seen_in_little_room(program in plain_program(), turns in turns(false)) {
        let mut session = Session::<2>::default();
        session.play(program, turns);
        prop_assert_eq!(session.phase.between_transactions(), session.server.outside_transaction());
        prop_assert!(!session.phase.statement_running());
    }

    #[test]
    fn between_is_seen_when_all_is_answered(program in program(false), turns in turns(false)) {
        let mut session = Session::<65_536>::default();
        let doubt = may_leave_a_doubt(&program);
        session.play(program, turns);
        if !doubt {
            prop_assert_eq!(session.phase.between_transactions(), session.server.outside_transaction());
            prop_assert!(!session.phase.statement_running());
        }
        session.send(Message::Sync { commit_fails: false });
        session.settle();
        session.send(Message::Query(vec![Statement::Rows]));
        session.settle();
        prop_assert!(!session.phase.statement_running());
        prop_assert_eq!(session.phase.between_transactions(), session.server.outside_transaction());
    }

    #[test]
    fn no_messages_panic(messages in vec((any::<bool>(), prop_oneof![
        prop::sample::select(&b"PBDESCQFdcfHX"[..]), prop::sample::select(&b"123TntCIsEZGWHVdc"[..]), any::<u8>(),
    ]), 0..200)) {
        let (mut phase, mut little): (Phase, Phase<2>) = Default::default();
        for (from_client, tag) in messages {
            if from_client { phase.frontend(tag) } else { phase.backend(tag, b"I") }
            if from_client { little.frontend(tag) } else { little.backend(tag, b"I") }
        }
    }
}
