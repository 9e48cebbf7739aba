//! Lists the tracker's states in a conversation, so that tests can check how many of them are reached. Floor 1.

use super::{Mode, Phase, SinceReady, Status};

/// Returns the tracker's state at the start and after each message, as text: its mode, the last ReadyForQuery's status,
/// what has happened since, and `unsure` if it is set. A message is a tuple: whether the client sent it, its type, and
/// the first byte of its body.
#[must_use]
pub fn places(messages: &[(bool, u8, Option<u8>)]) -> Vec<String> {
    let mut phase: Phase = Phase::default();
    let mut places = vec![phase.place()];
    for (of_client, tag, first) in messages {
        if *of_client {
            phase.frontend(*tag);
        } else {
            phase.backend(*tag, first.as_slice());
        }
        places.push(phase.place());
    }
    places
}

impl Phase {
    fn place(&self) -> String {
        let mode = match self.mode {
            Mode::Answering => "answering",
            Mode::Skipping => "skipping",
            Mode::CopyIn => "copy_in",
            Mode::Lost => "lost",
        };
        let status = match self.status {
            Status::Idle => "idle",
            Status::InTransaction => "in_transaction",
        };
        let since = match self.since_ready {
            SinceReady::Nothing => "nothing",
            SinceReady::Requests => "requests",
            SinceReady::ExtendedReplies => "extended_replies",
        };
        let unsure = if self.unsure { " unsure" } else { "" };
        format!("{mode} {status} {since}{unsure}")
    }
}
