//! A server that authenticates leasehold with messages of any bytes. Floor 1.

use super::method::{ChannelBinding, Method, RequireAuth};
use super::{Authentication, CLEARTEXT, OK, Step, Terms, Transport};
use crate::secret::Secret;

const PASSWORD: &str = "a-password-of-a-role";
/// A derivation with more rounds takes longer than an input may.
const MOST_ROUNDS: u32 = 10_000;

/// The first byte chooses the terms. Each message is its length in one byte, and the body.
pub(crate) fn conversation(data: &[u8]) {
    let Some((choice, messages)) = data.split_first() else { return };
    let terms = terms(*choice);
    let password = Secret::new(PASSWORD.to_owned());
    let mut step = Step::Wait(Authentication::new("v-app", &password, [7; _], terms.clone()));
    let (mut asked, mut derived) = (None, false);
    let mut rest = messages;
    while let Some((length, after)) = rest.split_first() {
        let (body, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        assert!(!format!("{step:?}").contains(PASSWORD));
        let (Step::Wait(next) | Step::Send { next, .. }) = step else { return };
        let code = body.first_chunk().map_or(-1, |code| i32::from_be_bytes(*code));
        step = match next.handle(body) {
            Ok(step) => step,
            Err(error) => {
                assert!(!error.to_string().contains(PASSWORD) && !error.reason().is_empty());
                return;
            }
        };
        if let Step::Derive { derivation, next } = step {
            if derivation.iterations.get() > MOST_ROUNDS {
                return;
            }
            derived = true;
            let Ok(proof) = next.derived(derivation.run()) else { unreachable!("it asked for the keys") };
            step = proof;
        }
        match &step {
            Step::Send { message, .. } => {
                assert_eq!(message.first(), Some(&b'p'));
                let has = message.windows(PASSWORD.len()).any(|window| window == PASSWORD.as_bytes());
                assert_eq!(has, code == CLEARTEXT, "the password goes out where it was asked for in clear");
                assert!(!has || may_send_it(&terms), "{terms:?}");
                asked = asked.or(Some(code));
            }
            Step::Done => {
                assert_eq!(code, OK);
                // Without a request there was none, which is a method of its own.
                let is_private = terms.transport != Transport::Plain;
                assert!(asked.is_some() || terms.require_auth.allows(Method::None, is_private), "{terms:?}");
                assert!(derived || terms.channel_binding != ChannelBinding::Require, "{terms:?}");
            }
            Step::Wait(_) | Step::Derive { .. } => {}
        }
    }
}

fn may_send_it(terms: &Terms) -> bool {
    let is_written = !terms.require_auth.is_default();
    let is_for = match terms.transport {
        Transport::Plain => false,
        Transport::Local => true,
        Transport::Tls { verified, .. } => verified || is_written,
    };
    is_for && terms.require_auth.allows(Method::Password, true)
}

fn terms(choice: u8) -> Terms {
    let end_point = (choice & 4 != 0).then(|| vec![7; 32]);
    Terms {
        transport: match choice & 3 {
            0 => Transport::Plain,
            1 => Transport::Local,
            2 => Transport::Tls { end_point, verified: true },
            _ => Transport::Tls { end_point, verified: false },
        },
        channel_binding: match choice >> 3 & 3 {
            0 => ChannelBinding::Disable,
            1 => ChannelBinding::Require,
            _ => ChannelBinding::Prefer,
        },
        require_auth: match choice >> 5 {
            0 => "scram-sha-256".parse(),
            1 => "md5,none".parse(),
            2 => "password".parse(),
            3 => "!password".parse(),
            _ => Ok(RequireAuth::default()),
        }
        .unwrap_or_default(),
    }
}
