//! Plays a script against an address, as a client that reads while it writes.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time::timeout;

use super::answer::{Answer, next_message};
use super::script::{End, Script, Step};
use crate::harness::{Raw, SOON, Session, eventually, packet, same};

/// Who plays where.
pub(super) struct Place<'a> {
    pub(super) addr: SocketAddr,
    pub(super) user: &'a str,
    pub(super) database: &'a str,
    /// The other session.
    pub(super) beside: &'a Session,
}

/// Plays it from a database in its first state. With `waits`, those of an earlier run, each wait lasts until as many
/// messages have come; without them, until nothing more comes.
pub(super) async fn play(script: &Script, place: &Place<'_>, waits: Option<&[usize]>) -> Answer {
    // Of a client that went away the server may still be at work.
    eventually(SOON, async || same(place.beside.value(OTHERS).await, "0")).await;
    place.beside.batch_execute(RESET).await.unwrap();
    let stream = TcpStream::connect(place.addr).await.expect("it listens");
    stream.set_nodelay(true).unwrap();
    let (from, to) = stream.into_split();
    let mut client = Client { to: Some(to), ear: Ear::new(from), answer: Answer::default() };
    client.start(script, place).await;
    for step in &script.steps {
        client.take(step, script, place, waits).await;
    }
    client.end(script.end).await;
    let Client { ear, mut answer, .. } = client;
    answer.bytes = ear.heard.borrow().bytes.clone();
    answer.reset |= ear.heard.borrow().reset;
    if script.end != End::Reset {
        answer.left = place.beside.value(LEFT).await;
    }
    answer
}

struct Client {
    to: Option<OwnedWriteHalf>,
    ear: Ear,
    answer: Answer,
}

impl Client {
    async fn start(&mut self, script: &Script, place: &Place<'_>) {
        for (number, ask) in script.start.asks.chars().enumerate() {
            let code = if ask == 'S' { SSL_REQUEST } else { GSS_REQUEST };
            self.write(&packet(code, &[])).await;
            self.ear.until(WITHIN, |heard| heard.bytes.len() > number).await;
        }
        self.ear.at = script.start.asks.len();
        self.write(&script.start.message(place.user, place.database)).await;
        // Up to the first ReadyForQuery, or an error. Only then is the trace that of a session.
        let at = self.ear.at;
        let begun = |heard: &Heard| {
            heard.over || matches!(last_tag(heard.bytes.get(at..).unwrap_or_default()), Some('Z' | 'E'))
        };
        self.ear.until(WITHIN, begun).await;
        self.ear.take_new();
    }

    async fn take(&mut self, step: &Step, script: &Script, place: &Place<'_>, waits: Option<&[usize]>) {
        match step {
            Step::Send(send) => {
                self.look();
                self.answer.trace.extend(send.messages.iter().map(|message| (true, message.tag, None)));
                let bytes = send.bytes();
                let pieces = if send.pieces == 0 { bytes.len().max(1) } else { send.pieces };
                for piece in bytes.chunks(pieces) {
                    self.write(piece).await;
                    tokio::task::yield_now().await;
                }
            }
            Step::Wait | Step::Until(_) => {
                let number = self.answer.waits.len();
                match (waits.and_then(|waits| waits.get(number)), step) {
                    (Some(wanted), _) => self.until_count(*wanted, script.start.asks.len()).await,
                    (None, Step::Until(tag)) => self.until_tag(*tag).await,
                    (None, _) => self.until_quiet().await,
                }
                self.look();
                self.answer.waits.push(self.ear.count);
            }
            Step::Cancel => {
                if let Some(key) = self.ear.key(script.start.asks.len()) {
                    Raw::cancel(place.addr, &key).await;
                }
            }
            Step::Notify(channel) => {
                place.beside.batch_execute(&format!("NOTIFY {channel}, 'from beside'")).await.unwrap();
            }
        }
    }

    async fn end(&mut self, end: End) {
        match end {
            End::Terminate => {
                self.write(&Raw::message('X', &[])).await;
                self.half_close().await;
            }
            End::HalfClose => self.half_close().await,
            End::Reset => {
                if let Some(to) = self.to.take() {
                    let stream: &TcpStream = to.as_ref();
                    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                    self.ear.stop();
                    to.forget();
                }
                return;
            }
        }
        self.ear.until(WITHIN, |heard| heard.over).await;
        self.look();
    }

    /// A server that has gone is not written to; what it said before is what counts.
    async fn write(&mut self, bytes: &[u8]) {
        let Some(to) = &mut self.to else { return };
        let written = timeout(WITHIN, to.write_all(bytes)).await.unwrap_or(Ok(()));
        self.note(written);
    }

    async fn half_close(&mut self) {
        let Some(to) = &mut self.to else { return };
        let closed = to.shutdown().await;
        self.note(closed);
    }

    /// Of a reset only the first to ask hears.
    fn note(&mut self, done: std::io::Result<()>) {
        if done.is_err() {
            self.answer.reset = true;
            self.to = None;
        }
    }

    /// Notes what has come by now.
    fn look(&mut self) {
        self.answer.trace.extend(self.ear.take_new());
    }

    async fn until_count(&mut self, wanted: usize, asks: usize) {
        let enough =
            |heard: &Heard| heard.over || tags(heard.bytes.get(asks..).unwrap_or_default()).count() >= wanted;
        self.ear.until(WITHIN, enough).await;
    }

    async fn until_tag(&mut self, tag: char) {
        let at = self.ear.at;
        self.ear
            .until(WITHIN, |heard| {
                heard.over || tags(heard.bytes.get(at..).unwrap_or_default()).any(|seen| seen == tag)
            })
            .await;
    }

    async fn until_quiet(&mut self) {
        let at = self.ear.at;
        loop {
            let before = self.ear.heard.borrow().bytes.len();
            let said = last_tag(self.ear.heard.borrow().bytes.get(at..).unwrap_or_default());
            if matches!(said, Some('Z' | 'G')) || self.ear.heard.borrow().over {
                return;
            }
            if !self.ear.until(QUIET, |heard| heard.over || heard.bytes.len() > before).await {
                return;
            }
        }
    }
}

/// What has come so far.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    over: bool,
    /// It was over by a reset.
    reset: bool,
}

/// Reads all the time.
struct Ear {
    heard: watch::Receiver<Heard>,
    task: tokio::task::JoinHandle<()>,
    /// How much of it was looked at.
    at: usize,
    /// The messages in that.
    count: usize,
}

impl Ear {
    fn new(mut from: OwnedReadHalf) -> Self {
        let (tell, heard) = watch::channel(Heard::default());
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            let reset = loop {
                match from.read(&mut buffer).await {
                    Ok(0) => break false,
                    Ok(read) => tell.send_modify(|heard| heard.bytes.extend(&buffer[..read])),
                    Err(_) => break true,
                }
            };
            tell.send_modify(|heard| (heard.over, heard.reset) = (true, reset));
        });
        Self { heard, task, at: 0, count: 0 }
    }

    /// False if it did not come to this in time.
    async fn until(&self, within: Duration, enough: impl FnMut(&Heard) -> bool) -> bool {
        matches!(timeout(within, self.heard.clone().wait_for(enough)).await, Ok(Ok(_)))
    }

    /// The messages that were not looked at before: that they are the server's, their types, their first bytes.
    fn take_new(&mut self) -> Vec<(bool, u8, Option<u8>)> {
        let heard = self.heard.borrow();
        let mut rest = heard.bytes.get(self.at..).unwrap_or_default();
        let mut new = Vec::new();
        while let Some((tag, body, after)) = next_message(rest) {
            self.count += 1;
            // A row more leads the tracker nowhere.
            if !matches!(tag, 'D' | 'd') {
                new.push((false, u8::try_from(tag).unwrap(), body.first().copied()));
            }
            rest = after;
        }
        self.at = heard.bytes.len() - rest.len();
        new
    }

    /// The body of BackendKeyData.
    fn key(&self, asks: usize) -> Option<Vec<u8>> {
        let heard = self.heard.borrow();
        let mut rest = heard.bytes.get(asks..)?;
        while let Some((tag, body, after)) = next_message(rest) {
            if tag == 'K' {
                return Some(body.to_vec());
            }
            rest = after;
        }
        None
    }

    fn stop(&self) {
        self.task.abort();
    }
}

fn tags(mut bytes: &[u8]) -> impl Iterator<Item = char> {
    std::iter::from_fn(move || {
        let (tag, _, rest) = next_message(bytes)?;
        bytes = rest;
        Some(tag)
    })
}

fn last_tag(bytes: &[u8]) -> Option<char> {
    tags(bytes).last()
}

const OTHERS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
const RESET: &str = "TRUNCATE things";
const LEFT: &str = "SELECT count(*) || ' rows: ' || coalesce(string_agg(n || ' ' || coalesce(left(t, 40), '-'), ', '), '') FROM things";
const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
/// Nothing of a conversation takes longer, on a busy machine.
const WITHIN: Duration = Duration::from_secs(10);
/// What comes later than that comes after the wait; only how the conversation interleaves depends on it.
const QUIET: Duration = Duration::from_millis(4);
