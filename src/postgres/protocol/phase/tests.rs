//! Tests the phase with scripted sessions, and in `random` against a model of the server.

mod random;

use super::Phase;

/// Plays a script: `>` precedes the types that the client sends, `<` those that the server sends. ReadyForQuery is
/// written as its status, `i`, `t` or `e`. ParameterDescription, also a `t`, is left out.
fn after(script: &str) -> Phase {
    let mut phase = Phase::default();
    play(&mut phase, script);
    phase
}

fn play(phase: &mut Phase, script: &str) {
    for word in script.split_whitespace() {
        let (side, tags) = word.split_at(1);
        for tag in tags.bytes() {
            match (side, tag) {
                (">", _) => phase.frontend(tag),
                (_, b'i' | b't' | b'e') => phase.backend(b'Z', &[tag.to_ascii_uppercase()]),
                _ => phase.backend(tag, b""),
            }
        }
    }
}

/// Asserts that the session is between transactions at the end of the script, and not before.
fn between_only_after(script: &str) {
    let words: Vec<_> = script.split_whitespace().collect();
    for end in 1..words.len() {
        let front = words[..end].join(" ");
        assert!(!after(&front).between_transactions(), "{front}");
    }
    let phase = after(script);
    assert!(phase.between_transactions(), "{script}: {phase:?}");
    assert!(!phase.statement_running(), "{script}");
}

fn never_between(script: &str) {
    let phase = after(script);
    assert!(!phase.between_transactions(), "{script}: {phase:?}");
}

#[test]
fn new_session_is_between_transactions() {
    assert!(after("").between_transactions());
    assert!(!after("").statement_running());
}

#[test]
fn simple_query_ends_with_ready() {
    between_only_after(">Q <TDDC <i");
    between_only_after(">Q <CTDCC <i");
    between_only_after(">Q <I <i");
    between_only_after(">Q <E <i");
    between_only_after(">Q <HddcC <i");
    between_only_after(">QQ <C <i <E <i");
}

#[test]
fn transaction_is_not_between() {
    never_between(">Q <C <t");
    never_between(">Q <C <t >Q <E <e");
    between_only_after(">Q <C <t >Q <C <i");
}

#[test]
fn extended_query_ends_with_sync() {
    between_only_after(">PBDES <12 <nC <i");
    between_only_after(">PDS <1 <T <i");
    between_only_after(">PDS <1 <n <i");
    between_only_after(">BES <2DDs <i");
    between_only_after(">BES <2I <i");
    between_only_after(">CS <3 <i");
    between_only_after(">S <i");
}

#[test]
fn pipeline_owes_one_ready_a_sync() {
    between_only_after(">PBES >PBES >PBES <12C <t <12 <E <e <12C <i");
}

#[test]
fn begin_behind_flush_is_not_between_though_all_is_answered() {
    never_between(">PBEH <12C");
    assert!(!after(">PBEH <12C").statement_running());
    between_only_after(">PBEH <12C >S <i");
}

#[test]
fn begin_behind_a_pipelined_sync_is_not_between() {
    never_between(">PBES >PBE <12C <i <12C");
}

#[test]
fn lone_flush_and_late_copy_messages_change_nothing() {
    let mut phase = Phase::default();
    for script in [">H", ">dd", ">c", ">f", "<N", "<A", "<S"] {
        play(&mut phase, script);
        assert!(phase.between_transactions(), "{script}");
    }
}

#[test]
fn error_skips_to_the_next_sync() {
    between_only_after(">PBES <E <i");
    between_only_after(">PBES <1E <i");
    between_only_after(">PBES >PBES <1E <i <12C <i");
    between_only_after(">P <E >BE >S <i");
}

#[test]
fn error_skips_queries_too() {
    between_only_after(">PQS <E <i");
    between_only_after(">P <E >Q >FS <i");
    between_only_after(">P <E >Q >S >Q <i <C <i");
}

#[test]
fn error_of_commit_at_sync_skips_nothing() {
    between_only_after(">PBES >Q <12C <E <i <C <i");
}

#[test]
fn copy_in_swallows_syncs() {
    between_only_after(">PBDES <12nG >dd >cS <C <i");
    between_only_after(">PBESdcS <12G <C <i");
    between_only_after(">PBEH <12G >dd >c <C >S <i");
    between_only_after(">Q <G >dSdH >c <C <i");
    between_only_after(">Q <G >SSc <C <i");
}

#[test]
fn queries_behind_a_copy_in_are_kept() {
    between_only_after(">Q <G >dcQ <C <i <C <i");
    between_only_after(">PBES <12G >dcS >PBES <C <i <12C <i");
}

#[test]
fn two_copies_in_one_query_work() {
    between_only_after(">Q <G >d >c <C <G >d >c <C <i");
    between_only_after(">Qdcdc <G <C <G <C <i");
}

#[test]
fn failed_simple_copy_leaves_messages_that_are_ignored() {
    between_only_after(">Q <G >d <E <i");
    between_only_after(">Qdc <G <E <i");
    let mut phase = after(">Q <G >d <E <i");
    play(&mut phase, ">ddc");
    assert!(phase.between_transactions());
    between_only_after(">Q <G >d >f <E <i");
    between_only_after(">QdcQ <E <i <C <i");
}

#[test]
fn failed_extended_copy_without_an_early_sync_is_exact() {
    between_only_after(">PBEH <12G >d <E >cS <i");
    between_only_after(">PBEH <12G >dcS <E <i");
}

#[test]
fn failed_extended_copy_counts_as_busy_until_the_next_content() {
    // The replies do not show whether the first Sync was ignored: both cases begin with E and Z.
    let swallowed = ">PBES <12G >dcS <E <i";
    never_between(swallowed);
    between_only_after(&format!("{swallowed} >Q <C <i"));
    between_only_after(&format!("{swallowed} >Q <E <i"));
    between_only_after(&format!("{swallowed} >PBES <1 <2C <i"));
    between_only_after(&format!("{swallowed} >PBES <E <i"));
    between_only_after(&format!("{swallowed} >F <V <i"));
    between_only_after(&format!("{swallowed} >Q <G >c <C <i"));
    between_only_after(&format!("{swallowed} <i"));
}

#[test]
fn function_call_ends_with_ready() {
    between_only_after(">F <V <i");
    between_only_after(">F <E <i");
}

#[test]
fn replication_is_busy_until_its_ready() {
    between_only_after(">Q <W <dd >d >dd <d >c <cC <i");
    between_only_after(">Q <W >d <E <i");
}

#[test]
fn asynchronous_messages_answer_nothing() {
    between_only_after(">Q <NAS <C <NAS <i");
    assert!(after("<E").between_transactions());
}

#[test]
fn error_behind_extended_requests_without_sync_is_never_between_again() {
    never_between(">PDH <1T <E >S <i");
    never_between(">PDHQ <1T <E >S <i");
    never_between(">PDHF <1T <E >S <i <i");
    between_only_after(">PDHQ <1T <C <i");
}

#[test]
fn goodbye_is_remembered_and_asks_for_nothing() {
    let phase = after(">X");
    assert!(phase.terminated() && phase.between_transactions());
    let phase = after(">QX");
    assert!(phase.terminated() && phase.statement_running());
}

#[test]
fn unknown_message_is_never_between_again() {
    never_between(">z");
    never_between(">z >Q <C <i");
    assert!(after(">zX").terminated());
    assert!(after(">z").statement_running());
}

#[test]
fn reply_that_nothing_asked_for_is_never_between_again() {
    never_between("<C");
    never_between(">PBES <C");
    never_between(">S <1 <i");
}

/// More requests than are stored individually.
const MANY: usize = 200_000;

#[test]
fn a_batch_of_any_length_before_one_sync_is_followed_to_its_end() {
    let mut phase = after(">P");
    (0..MANY).for_each(|_| play(&mut phase, ">BE"));
    play(&mut phase, "<1");
    (0..MANY / 2).for_each(|_| play(&mut phase, "<2C"));
    play(&mut phase, ">S");
    (0..MANY - MANY / 2).for_each(|_| play(&mut phase, "<2C"));
    assert!(!phase.between_transactions());
    assert!(phase.statement_running());
    play(&mut phase, "<i");
    assert!(phase.between_transactions(), "{:?}", phase.mode);
    assert!(!phase.statement_running());
}

#[test]
fn an_error_in_a_long_batch_skips_it_to_its_sync() {
    let mut phase = after(">PBE");
    (0..MANY).for_each(|_| play(&mut phase, ">PBE"));
    play(&mut phase, ">S >Q <12E");
    assert!(!phase.between_transactions());
    play(&mut phase, "<i");
    assert!(!phase.between_transactions());
    play(&mut phase, "<C <i");
    assert!(phase.between_transactions());
}

#[test]
fn a_pipeline_of_any_length_is_followed_to_its_end() {
    for (unit, reply) in
        [(">Q", "<C <i"), (">PBDES", "<12nC <i"), (">BES", "<E <i"), (">S", "<i"), (">F", "<V <i")]
    {
        let mut phase = after("");
        (0..MANY).for_each(|_| play(&mut phase, unit));
        for _ in 0..MANY {
            assert!(!phase.between_transactions(), "{unit}");
            play(&mut phase, reply);
        }
        assert!(phase.between_transactions(), "{unit}: {:?}", phase.mode);
        assert!(phase.outstanding.capacity() <= 64, "{unit}");
    }
}

#[test]
fn the_memory_of_what_is_outstanding_is_bounded() {
    let mut phase = after("");
    for turn in 0..MANY {
        play(&mut phase, [">PBES", ">Q", ">F", ">BE", ">Q", ">S"][turn * 7 % 6]);
        assert!(phase.outstanding.capacity() <= 200_000);
    }
    // Such a client is no longer tracked.
    assert!(phase.statement_running() && !phase.between_transactions());
}
