//! A database of leasehold's own, in which SHOW shows what it does: read-only, without secrets. Floor 4.
//!
//! It speaks the simple and the extended protocol, so that any client can ask; what there is to show comes from above.
//!
//! ```text
//!   StartupMessage for console_database ──▶ welcome ──▶ messages and answers ──▶ Terminate, shutdown, or silence
//! ```

mod conversation;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod statement;

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::protocol::backend::{self, Column, Type, Value};
use super::protocol::error_response;
use super::protocol::fatal::{Fatal, SqlState};
use super::protocol::frontend::{self, Frontend};
use super::protocol::startup::StartupMessage;
use super::relay::close_client;
use crate::error::{ClientFacing, Ended, Limited};
use crate::session::end::Stop;
use crate::session::{Buffered, SessionLimit};
use conversation::Conversation;

/// Who may use the console.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nobody.
    Off,
    /// Clients of Unix sockets.
    Socket,
    /// Every client.
    All,
}

/// One thing that SHOW shows.
pub(crate) struct View {
    /// In lower case.
    pub(crate) name: &'static str,
    /// What it is, for SHOW HELP.
    pub(crate) about: &'static str,
    pub(crate) columns: &'static [Column],
    /// The rows as they are now; each has a value for each column.
    pub(crate) rows: Box<dyn Fn() -> Vec<Vec<Value>> + Send + Sync>,
}

/// The console of a process.
pub(crate) struct Console {
    access: Access,
    database: String,
    views: Vec<View>,
    clients: SessionLimit,
}

/// What can stand behind SHOW.
enum Known<'a> {
    View(&'a View),
    /// A parameter of a server, with its value: clients ask for some when they connect.
    Parameter(&'static str, &'static str),
    Help,
}

impl Console {
    /// `database`: the name under which it is reached.
    #[must_use]
    pub(crate) fn new(access: Access, database: String, views: Vec<View>) -> Self {
        Self { access, database, views, clients: SessionLimit::of(Limited::Process) }
    }

    /// Its name, if a client that comes over a Unix socket, or does not, may use it.
    #[must_use]
    pub(crate) fn database_for(&self, over_unix: bool) -> Option<&str> {
        match self.access {
            Access::Off => None,
            Access::Socket => over_unix.then_some(&self.database),
            Access::All => Some(&self.database),
        }
    }

    /// Serves a client until it leaves, the process closes, or it is silent for an hour.
    ///
    /// Not cancel safe.
    pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut client: Buffered<S>,
        startup: &StartupMessage,
        stop: watch::Receiver<Stop>,
        send_timeout: Duration,
    ) {
        let Ok(_place) = self.clients.take(MOST_CLIENTS) else {
            return close_client(&mut client.stream, &full(), send_timeout).await;
        };
        let user = String::from_utf8_lossy(startup.user()).into_owned();
        tracing::debug!("the console is opened");
        let mut conversation = Conversation::new(self, user.clone());
        conversation.out = welcome(startup, &user);
        let last = converse(&mut client, conversation, &stop, send_timeout).await;
        if let Some(message) = last {
            close_client(&mut client.stream, &message, send_timeout).await;
        }
        tracing::debug!("the console is closed");
    }

    fn known(&self, name: &str) -> Option<Known<'_>> {
        if let Some(view) = self.views.iter().find(|view| view.name == name) {
            return Some(Known::View(view));
        }
        if name == HELP_NAME {
            return Some(Known::Help);
        }
        let (name, value) =
            PARAMETERS.iter().chain(OTHERS).find(|(known, _)| known.to_lowercase() == name)?;
        Some(Known::Parameter(name, value))
    }

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.views.iter().map(|view| view.name).chain([HELP_NAME])
    }

    fn help(&self) -> Vec<Vec<Value>> {
        let row = |name: &str, about: &str| {
            vec![Value::Text(format!("SHOW {}", name.to_uppercase())), Value::Text(about.to_owned())]
        };
        let mut rows: Vec<_> = self.views.iter().map(|view| row(view.name, view.about)).collect();
        rows.push(row(HELP_NAME, "this list"));
        rows
    }
}

/// Ends when the process begins to close its sessions.
async fn closing(mut stop: watch::Receiver<Stop>) {
    // Without a sender no stop will come, and the process is at its end.
    let _ = stop.wait_for(|stop| *stop != Stop::Running).await;
}

/// Reads and answers until the client leaves or the process closes; `Some` is the last message that the client gets. Where an answer
/// could not be sent as a whole there is none: it would stand in the middle of a message.
async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
    client: &mut Buffered<S>,
    mut conversation: Conversation<'_>,
    stop: &watch::Receiver<Stop>,
    send_timeout: Duration,
) -> Option<BytesMut> {
    loop {
        let message = match frontend::parse(&mut client.buffer) {
            Ok(message) => message,
            Err(error) => return Some(violation(&error)),
        };
        let is_last = message == Some(Frontend::Terminate);
        let waits = message.is_none();
        if let Some(message) = message {
            conversation.take(message);
        }
        let out = &mut conversation.out;
        if (waits || is_last || out.len() > FLUSH_AT) && !out.is_empty() {
            let sending = async {
                client.stream.write_all(out).await?;
                client.stream.flush().await
            };
            let closed = async {
                closing(stop.clone()).await;
                sleep(LAST_ANSWER_WITHIN).await;
            };
            let sent = tokio::select! {
                sent = timeout(send_timeout, sending) => matches!(sent, Ok(Ok(()))),
                () = closed => false,
            };
            if !sent {
                return None;
            }
            out.clear();
            // A client with many answers to come and little haste holds up no shutdown.
            if !is_last && *stop.borrow() != Stop::Running {
                return Some(stopping());
            }
        }
        if is_last {
            return Some(BytesMut::new());
        }
        if waits {
            client.buffer.reserve(READ_BYTES);
            let read = timeout(SILENT_FOR, client.stream.read_buf(&mut client.buffer));
            let read = tokio::select! {
                biased;
                () = closing(stop.clone()) => return Some(stopping()),
                read = read => read,
            };
            match read {
                Ok(Ok(read)) if read > 0 => {}
                Ok(_) => return None,
                Err(_) => return Some(silent()),
            }
        }
    }
}

/// What comes before the first ReadyForQuery.
fn welcome(startup: &StartupMessage, user: &str) -> BytesMut {
    let mut out = BytesMut::new();
    let options = startup.protocol_options();
    if startup.protocol() > backend::PROTOCOL_3_2 || !options.is_empty() {
        out.extend_from_slice(&backend::negotiate(startup.protocol(), options));
    }
    let application = startup.parameter(b"application_name").unwrap_or_default();
    let application = String::from_utf8_lossy(application);
    let mut parameters = PARAMETERS.to_vec();
    parameters.extend([("application_name", &*application), ("session_authorization", user)]);
    // A cancel would find nothing that runs.
    let (pid, key) = (rand::random_range(1..i32::MAX), rand::random());
    out.extend_from_slice(&backend::welcome(&parameters, pid, key));
    out
}

fn violation(error: &frontend::Error) -> BytesMut {
    error_response::fatal(&Fatal {
        sqlstate: SqlState::ProtocolViolation,
        message: error.to_string().into(),
        detail: None,
        hint: None,
    })
}

fn stopping() -> BytesMut {
    error_response::fatal(&ClientFacing::Ended { why: Ended::Shutdown, idle: true }.into())
}

fn full() -> BytesMut {
    error_response::fatal(&Fatal {
        sqlstate: SqlState::TooManyConnections,
        message: "too many clients of leasehold's console".into(),
        detail: Some("It serves 16 at once, whatever max_sessions is."),
        hint: Some("Close one of them."),
    })
}

fn silent() -> BytesMut {
    error_response::fatal(&Fatal {
        sqlstate: SqlState::AdminShutdown,
        message: "terminating connection to leasehold's console: it was silent for an hour".into(),
        detail: None,
        hint: Some("Reconnect when there is something to ask."),
    })
}

/// A version that clients can read: they look at it for what a server can do.
const PRODUCT: &str = concat!("PostgreSQL 18.0 (leasehold ", env!("CARGO_PKG_VERSION"), ")");

/// What a server tells its clients of itself.
///
/// Source: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-ASYNC>
const PARAMETERS: &[(&str, &str)] = &[
    ("server_version", concat!("18.0 (leasehold ", env!("CARGO_PKG_VERSION"), ")")),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("default_transaction_read_only", "on"),
    ("in_hot_standby", "off"),
    ("is_superuser", "off"),
];

/// What clients ask for besides.
const OTHERS: &[(&str, &str)] = &[
    ("transaction_isolation", "read committed"),
    ("transaction isolation level", "read committed"),
    ("transaction_read_only", "on"),
    ("default_transaction_isolation", "read committed"),
    ("server_version_num", "180000"),
    ("max_identifier_length", "63"),
    ("search_path", ""),
    ("session authorization", ""),
    ("statement_timeout", "0"),
    ("lc_collate", "C"),
    ("lc_ctype", "C"),
];

const HELP_NAME: &str = "help";
const HELP: &[Column] = &[("command", Type::Text), ("shows", Type::Text)];
/// Whoever looks: people, and what they let look for them.
const MOST_CLIENTS: usize = 16;
/// A client that has gone without a word gives its place back then at the latest.
const SILENT_FOR: Duration = Duration::from_secs(3_600);
/// How long a client may take to read an answer once the process closes.
const LAST_ANSWER_WITHIN: Duration = Duration::from_secs(1);
const READ_BYTES: usize = 4 * 1024;
/// A client that asks on without reading does not fill the memory.
const FLUSH_AT: usize = 64 * 1024;

#[cfg(test)]
mod tests;
