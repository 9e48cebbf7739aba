//! What a server said in a conversation, and what of it may differ without meaning anything.

use crate::harness::Frame;

/// All that came, and when.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// The connection ended by a reset: the server had not read all, and what it said last may be lost.
    pub(super) reset: bool,
    /// How many messages there were at the end of each wait.
    pub(super) waits: Vec<usize>,
    /// What the database holds afterwards.
    pub(super) left: String,
    /// In the order in which they were sent and seen: whether it is the client's, its type, its first byte.
    pub(super) trace: Vec<(bool, u8, Option<u8>)>,
}

/// The bytes that came, cut into messages.
pub(super) struct Parts {
    /// The answers to requests for encryption.
    pub(super) first: Vec<u8>,
    pub(super) frames: Vec<Frame>,
    /// Less than a message.
    pub(super) rest: Vec<u8>,
}

impl Parts {
    /// `asks`: so many requests for encryption were sent, each answered by one byte.
    pub(super) fn of(bytes: &[u8], asks: usize) -> Self {
        let first = &bytes[..asks.min(bytes.len())];
        let mut rest = &bytes[first.len()..];
        let mut frames = Vec::new();
        while let Some((tag, body, after)) = next_message(rest) {
            frames.push(Frame { tag, body: body.to_vec().into() });
            rest = after;
        }
        Self { first: first.to_vec(), frames, rest: rest.to_vec() }
    }

    /// The same, with all that may differ between two runs of one conversation put into one form:
    ///
    /// - BackendKeyData: its bytes, not its length;
    /// - the process's own id in a NotificationResponse;
    /// - the role that is logged in, wherever its name stands;
    /// - where a statement was when it was cancelled, as its context says.
    fn alike(mut self) -> Self {
        let key = self.frames.iter().find(|frame| frame.tag == 'K').map(|frame| frame.body.clone());
        let role = self.role();
        // A role's name is in no value that is made large.
        for frame in self.frames.iter_mut().filter(|frame| frame.body.len() < 2_000) {
            match frame.tag {
                'K' => frame.body = vec![0; frame.body.len()].into(),
                'A' if key.as_ref().is_some_and(|key| key[..4] == frame.body[..4]) => {
                    frame.body = [b"self", &frame.body[4..]].concat().into();
                }
                'D' => frame.body = without_in_row(&frame.body, &role).into(),
                'E' if frame.sqlstate() == "57014" => frame.body = without_context(&frame.body).into(),
                'E' | 'N' | 'S' | 'd' => frame.body = without(&frame.body, &role).into(),
                _ => {}
            }
        }
        self
    }

    /// Whom the server reports to be logged in.
    fn role(&self) -> Vec<u8> {
        let report = b"session_authorization\0";
        let of = |frame: &Frame| Some(frame.body.strip_prefix(report)?.strip_suffix(b"\0")?.to_vec());
        self.frames.iter().filter(|frame| frame.tag == 'S').find_map(of).unwrap_or_default()
    }
}

/// Where two answers differ first; `None`: nowhere. Of a connection that ended by a reset only what came of it counts: how
/// much that is depends on the time. A server that gives a client up for what it sent may reset the connection or not, as it
/// has read all that was sent or not.
pub(super) fn difference(asks: usize, direct: &Answer, through: &Answer) -> Option<String> {
    let [mut left, mut right] = [direct, through].map(|answer| Parts::of(&answer.bytes, asks).alike());
    let given_up =
        |parts: &Parts| parts.frames.last().is_some_and(|last| is_fatal(last) && last.sqlstate() == "08P01");
    if direct.reset || through.reset || given_up(&left) {
        // leasehold says that it has lost the server, which directly the reset itself says. Behind the server's own last word
        // it says nothing.
        if !right.frames.iter().rev().nth(1).is_some_and(is_fatal) {
            right.frames.pop_if(|frame| frame.tag == 'E' && frame.sqlstate() == "08006");
        } else if right.frames.last().is_some_and(is_fatal) {
            return Some("through, a second FATAL follows the server's".to_owned());
        }
        let least = left.frames.len().min(right.frames.len());
        for parts in [&mut left, &mut right] {
            parts.frames.truncate(least);
            parts.rest.clear();
        }
    }
    if left.first != right.first {
        return Some(format!(
            "requests for encryption: {:?} directly, {:?} through",
            left.first, right.first
        ));
    }
    let most = left.frames.len().max(right.frames.len());
    for at in 0..most {
        let (one, other) = (left.frames.get(at), right.frames.get(at));
        if one != other {
            let before: String = left.frames[..at].iter().map(|frame| frame.tag).collect();
            return Some(format!(
                "message {at}, behind {before}: {} directly, {} through",
                show(one),
                show(other)
            ));
        }
    }
    if left.rest != right.rest {
        return Some(format!("the end: {:?} directly, {:?} through", left.rest, right.rest));
    }
    (direct.left != through.left)
        .then(|| format!("left behind: {} directly, {} through", direct.left, through.left))
}

fn is_fatal(frame: &Frame) -> bool {
    frame.tag == 'E' && frame.fields()[&'V'] == "FATAL"
}

/// The next whole message, its type and its body, and what is behind it.
pub(super) fn next_message(bytes: &[u8]) -> Option<(char, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let length = usize::try_from(u32::from_be_bytes(*rest.first_chunk()?)).unwrap();
    Some((char::from(*tag), rest.get(4..length)?, &rest[length..]))
}

fn show(frame: Option<&Frame>) -> String {
    frame.map_or_else(
        || "nothing".to_owned(),
        |frame| format!("{} {}", frame.tag, frame.body[..frame.body.len().min(600)].escape_ascii()),
    )
}

fn without(bytes: &[u8], role: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        match rest.strip_prefix(role).filter(|_| !role.is_empty()) {
            Some(behind) => {
                kept.extend(b"ROLE");
                rest = behind;
            }
            None => {
                kept.push(*first);
                rest = after;
            }
        }
    }
    kept
}

fn without_context(body: &[u8]) -> Vec<u8> {
    body.split_inclusive(|byte| *byte == 0).filter(|field| field[0] != b'W').collect::<Vec<_>>().concat()
}

/// A DataRow has the length of each value before it.
fn without_in_row(body: &[u8], role: &[u8]) -> Vec<u8> {
    let Some((count, mut rest)) = body.split_at_checked(2) else { return body.to_vec() };
    let mut kept = count.to_vec();
    while let Some((length, after)) = rest.split_at_checked(4) {
        let length = i32::from_be_bytes(length.try_into().unwrap());
        let (value, after) = after.split_at(usize::try_from(length).unwrap_or(0));
        let value = without(value, role);
        let length = if length < 0 { length } else { i32::try_from(value.len()).unwrap() };
        kept.extend(length.to_be_bytes());
        kept.extend(value);
        rest = after;
    }
    kept
}
