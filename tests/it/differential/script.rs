//! A conversation as it is played: what the client sends, in which pieces, what it waits for, and how it ends. And its
//! text, as it stands in `corpus/`.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use crate::harness::{Raw, packet, startup_body};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) start: Start,
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
}

/// What comes before the first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// Requests for encryption, declined one after the other: `S` TLS, `G` GSSAPI.
    pub(super) asks: String,
    pub(super) protocol: i32,
    /// Beside the user and the database.
    pub(super) parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Send),
    /// Waits until nothing more comes of what was sent.
    Wait,
    /// Waits for a message of this type.
    Until(char),
    /// Asks for a cancel, on a connection of its own, and waits for its end.
    Cancel,
    /// Another session notifies this channel.
    Notify(String),
}

/// Messages that are written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Send {
    pub(super) messages: Vec<Message>,
    /// In pieces of so many bytes; 0: as a whole.
    pub(super) pieces: usize,
    /// So many bytes of the last message are not sent.
    pub(super) short: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
    /// A length field that does not say how long it is.
    pub(super) length: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Terminate, and a half close behind it.
    Terminate,
    HalfClose,
    /// Goes away without reading what is still to come.
    Reset,
}

impl Start {
    /// The bytes of the StartupMessage.
    pub(super) fn message(&self, user: &str, database: &str) -> Vec<u8> {
        let ours = [(&b"user"[..], user.as_bytes()), (b"database", database.as_bytes())];
        let theirs = self.parameters.iter().map(|(name, value)| (&name[..], &value[..]));
        packet(self.protocol, &startup_body(ours.into_iter().chain(theirs)))
    }
}

impl Message {
    pub(super) fn new(tag: char, body: impl Into<Vec<u8>>) -> Self {
        Self { tag: u8::try_from(tag).unwrap(), body: body.into(), length: None }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Raw::message(char::from(self.tag), &self.body);
        if let Some(length) = self.length {
            bytes[1..5].copy_from_slice(&length.to_be_bytes());
        }
        bytes
    }
}

impl Send {
    pub(super) fn new(messages: Vec<Message>) -> Self {
        Self { messages, pieces: 0, short: 0 }
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.messages.iter().flat_map(Message::bytes).collect();
        bytes.truncate(bytes.len().saturating_sub(self.short));
        bytes
    }
}

/// One line for each part; a message stands before the `send` that it goes with. Bytes that do not print are `\x00`.
impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Start { asks, protocol, parameters } = &self.start;
        writeln!(f, "start {protocol} {asks}")?;
        for (name, value) in parameters {
            writeln!(f, "parameter {} {}", escape(name), escape(value))?;
        }
        for step in &self.steps {
            match step {
                Step::Send(send) => {
                    for Message { tag, body, length } in &send.messages {
                        let length = length.map_or_else(String::new, |length| format!("!{length}"));
                        writeln!(f, "message {}{length} {}", escape(&[*tag]), escape(body))?;
                    }
                    writeln!(f, "send {} {}", send.pieces, send.short)?;
                }
                Step::Wait => writeln!(f, "wait")?,
                Step::Until(tag) => writeln!(f, "until {tag}")?,
                Step::Cancel => writeln!(f, "cancel")?,
                Step::Notify(channel) => writeln!(f, "notify {channel}")?,
            }
        }
        let end = match self.end {
            End::Terminate => "terminate",
            End::HalfClose => "half_close",
            End::Reset => "reset",
        };
        writeln!(f, "end {end}")
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let start = Start { asks: String::new(), protocol: 0, parameters: Vec::new() };
        let mut script = Self { start, steps: Vec::new(), end: End::HalfClose };
        let mut messages = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap_or_default();
            let number = |word: &str| word.parse().map_err(|error| format!("{line}: {error}"));
            match word() {
                "start" => {
                    script.start.protocol = number(word())?;
                    script.start.asks = word().to_owned();
                }
                "parameter" => script.start.parameters.push((unescape(word()), unescape(word()))),
                "message" => {
                    let head = word();
                    let (tag, length) =
                        head.split_once('!').filter(|(tag, _)| !tag.is_empty()).unwrap_or((head, ""));
                    let length = if length.is_empty() { None } else { Some(number(length)?) };
                    let tag = *unescape(tag).first().ok_or_else(|| format!("{line}: no type"))?;
                    messages.push(Message { tag, body: unescape(word()), length });
                }
                "send" => {
                    let pieces = usize::try_from(number(word())?).unwrap();
                    let short = usize::try_from(number(word())?).unwrap();
                    let messages = std::mem::take(&mut messages);
                    script.steps.push(Step::Send(Send { messages, pieces, short }));
                }
                "wait" => script.steps.push(Step::Wait),
                "until" => script.steps.push(Step::Until(word().chars().next().unwrap_or('Z'))),
                "cancel" => script.steps.push(Step::Cancel),
                "notify" => script.steps.push(Step::Notify(word().to_owned())),
                "end" => {
                    script.end = match word() {
                        "terminate" => End::Terminate,
                        "reset" => End::Reset,
                        _ => End::HalfClose,
                    }
                }
                other => return Err(format!("no such line: {other}")),
            }
        }
        Ok(script)
    }
}

/// Without spaces, so that it is one word.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'!' | b' ' => write!(text, "\\x{byte:02x}").unwrap(),
            _ => write!(text, "{}", byte.escape_ascii()).unwrap(),
        }
    }
    text
}

fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = if byte == b'\\' { rest.next() } else { None };
        bytes.push(match escaped {
            None => byte,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'x') => {
                let digits = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            Some(other) => other,
        });
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_comes_back_from_its_text() {
        let message = Message { tag: b'!', body: (0..=255).collect(), length: Some(-3) };
        let plain = Message::new('S', "");
        let steps = vec![
            Step::Send(Send { messages: vec![message, plain], pieces: 3, short: 1 }),
            Step::Wait,
            Step::Until('N'),
            Step::Cancel,
            Step::Notify("news".to_owned()),
        ];
        let parameters = vec![(b"options".to_vec(), b"-c a=b\\ c".to_vec()), (b"empty".to_vec(), Vec::new())];
        let start = Start { asks: "SG".to_owned(), protocol: Raw::PROTOCOL_3_2, parameters };
        for end in [End::Terminate, End::HalfClose, End::Reset] {
            let script = Script { start: start.clone(), steps: steps.clone(), end };
            assert_eq!(script.to_string().parse(), Ok(script));
        }
    }
}
