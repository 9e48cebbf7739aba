//! Makes a session that served one client ready for an equal one: `DISCARD ALL`, and what the next client gets first.
//! Floor 2.
//!
//! Source: <https://www.postgresql.org/docs/current/sql-discard.html>

#[cfg(test)]
mod tests;

use bytes::BytesMut;

use super::UpstreamSession;
use super::conversation::{Failure, Fault, HEADER, body, command};
use crate::postgres::protocol::startup::CancelRequest;

impl UpstreamSession {
    /// Whether `DISCARD ALL` of this server keeps a role that `ALTER ROLE … SET role` has set. False if the server did not
    /// say its version.
    #[must_use]
    pub(crate) fn can_be_reset(&self) -> bool {
        let version = parameters(&self.prologue).find(|(name, _)| *name == b"server_version");
        version.and_then(|(_, version)| numbers(version)).is_some_and(keeps_a_role)
    }

    /// Resets the session. If the server has reported other values of its parameters since the login, which is `reported`,
    /// or does so now, the values that the next client gets are asked for again.
    ///
    /// Not cancel safe: dropped, it leaves a session that can only be closed.
    ///
    /// # Errors
    /// The session cannot be used any more; close it.
    pub(crate) async fn reset(&mut self, reported: bool) -> Result<(), ResetError> {
        if !self.rest.is_empty() {
            return Err(Failure::Protocol(Fault::Unexpected).into());
        }
        let answer = command(&mut self.stream, "DISCARD ALL", b"DISCARD ALL").await?;
        if reported || answer.reported {
            self.refresh_parameters().await?;
        }
        Ok(())
    }

    async fn refresh_parameters(&mut self) -> Result<(), ResetError> {
        let mut fresh = BytesMut::with_capacity(self.prologue.len());
        for frame in frames(&self.prologue) {
            let Some((name, before)) = parameter(frame) else {
                fresh.extend_from_slice(frame);
                continue;
            };
            let word = std::str::from_utf8(name).ok().filter(|name| is_parameter_name(name));
            let word = word.ok_or(Failure::Protocol(Fault::Unexpected))?;
            let answer = command(&mut self.stream, &format!("SHOW {word}"), b"SHOW").await?;
            let value = answer.value.ok_or(Failure::Protocol(Fault::Unexpected))?;
            // After a promotion the server may not be what target_session_attrs wants.
            if name == b"in_hot_standby" && value != before {
                return Err(ResetError);
            }
            put(&mut fresh, b'S', &[name, b"\0", &value, b"\0"]);
        }
        self.prologue = fresh;
        Ok(())
    }

    /// Gives the client another cancel key than the server's, and returns it with the server's process id: so the key
    /// of one client cancels nothing of the next. `None` if the server sent no key.
    pub(crate) fn give_other_key(&mut self) -> Option<CancelRequest> {
        let given = self.cancel.as_ref()?.request().with_other_key(|key| rand::fill(key));
        let mut prologue = BytesMut::with_capacity(self.prologue.len());
        for frame in frames(&self.prologue) {
            if frame.first() == Some(&b'K') {
                prologue.extend_from_slice(&given.backend_key_data());
            } else {
                prologue.extend_from_slice(frame);
            }
        }
        self.prologue = prologue;
        Some(given)
    }
}

/// A session could not be reset. What the server said is not repeated: it is another client's business.
#[derive(Debug, thiserror::Error)]
#[error("the server did not reset the session")]
pub(crate) struct ResetError;

impl From<Failure> for ResetError {
    fn from(_: Failure) -> Self {
        Self
    }
}

/// The ParameterStatus messages: names and values.
fn parameters(messages: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    frames(messages).filter_map(parameter)
}

/// The name and the value in a ParameterStatus.
fn parameter(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut words = (frame.first() == Some(&b'S')).then(|| body(frame).split(|byte| *byte == 0))?;
    Some((words.next()?, words.next()?))
}

/// Whole messages, one after another.
fn frames(messages: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = messages;
    std::iter::from_fn(move || {
        let length = rest.get(1..HEADER)?.try_into().ok().map(u32::from_be_bytes)?;
        let (frame, after) = rest.split_at_checked(usize::try_from(length).ok()?.checked_add(1)?)?;
        rest = after;
        Some(frame)
    })
}

fn put(to: &mut BytesMut, tag: u8, body: &[&[u8]]) {
    let length: usize = 4 + body.iter().map(|part| part.len()).sum::<usize>();
    to.extend_from_slice(&[tag]);
    to.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    for part in body {
        to.extend_from_slice(part);
    }
}

/// Whether the name can stand in a command as it is.
fn is_parameter_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'))
}

/// Whether `DISCARD ALL` of this version keeps a role that `ALTER ROLE … SET role` has set.
///
/// Source: the fix of CVE-2024-10978, <https://www.postgresql.org/docs/release/15.9/>
fn keeps_a_role((major, minor): (u32, u32)) -> bool {
    match major {
        0..12 => false,
        12 => minor >= 21,
        13 => minor >= 17,
        14 => minor >= 14,
        15 => minor >= 9,
        16 => minor >= 5,
        17 => minor >= 1,
        _ => true,
    }
}

/// The first two numbers of a version: `15.20 (Debian 15.20-1)`.
fn numbers(version: &[u8]) -> Option<(u32, u32)> {
    let text = std::str::from_utf8(version).ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next().and_then(Result::ok).unwrap_or(0)))
}
