//! The commands that talk to a running leasehold, by its admin address. Floor 6.
//!
//! Exit codes: 0 done, 1 a negative answer, 69 no leasehold answers.

mod client;
mod manual;
mod sessions;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, sleep, timeout_at};

use crate::admin::{Rotated, SessionList, Status};
use crate::clock;
use crate::config::{
    self, AdminFlags, Environment, LogLevelFlags, ReloadFlags, RotateFlags, SessionsFlags, ShowFlags,
    ShutdownFlags, StatusFlags, WaitFlags,
};
use crate::credentials::DrainSpan;
use crate::error::Chain;
use crate::socket::Address;
use crate::terminal::Terminal;

use client::{Answer, Client};
pub(crate) use manual::{completion, man};

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The configuration does not say where to ask.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The command line can be read in two ways.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// The admin address is off.
    #[error("admin: is off, so this leasehold takes no commands")]
    Off,
    /// No leasehold answers there.
    #[error("no leasehold at {addr}: {reason}")]
    Unreachable {
        addr: Address,
        /// One line.
        reason: String,
    },
    /// leasehold answered that it could not do it.
    #[error("{0}")]
    Negative(String),
    /// The output cannot be written.
    #[error("cannot write")]
    Output(#[from] io::Error),
}

impl Error {
    /// As in `sysexits.h`.
    #[must_use]
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => error.exit_code(),
            Self::Ambiguous(_) => 64,
            Self::Off | Self::Unreachable { .. } => 69,
            Self::Negative(_) | Self::Output(_) => 1,
        }
    }
}

/// `leasehold status`
///
/// # Errors
/// If leasehold does not answer, or the output cannot be written.
pub(crate) async fn status(flags: &StatusFlags, env: &Environment) -> Result<(), Error> {
    let client = connect(&flags.at, env)?;
    let render = |answer: &Answer, terminal: Terminal| {
        Ok(table::render(&client.document::<Status>(answer)?, clock::wall(), terminal))
    };
    show(&client, "/status", flags.show, env, render).await?;
    if flags.check {
        let ready = client.ask(&Method::GET, "/readyz", QUICK).await?;
        if ready.code != StatusCode::OK {
            return Err(Error::Negative(format!("not ready: {}", ready.line())));
        }
    }
    Ok(())
}

/// `leasehold sessions`
///
/// # Errors
/// If leasehold does not answer, or the output cannot be written.
pub(crate) async fn sessions(flags: &SessionsFlags, env: &Environment) -> Result<(), Error> {
    let client = connect(&flags.at, env)?;
    let mut query = url::form_urlencoded::Serializer::for_suffix("/sessions?".to_owned(), "/sessions?".len());
    for (name, value) in flags.filter() {
        query.append_pair(name, value);
    }
    let render = |answer: &Answer, terminal: Terminal| {
        Ok(sessions::render(&client.document::<SessionList>(answer)?, clock::wall(), terminal.width()))
    };
    show(&client, &query.finish(), flags.show, env, render).await
}

/// Prints what is there at a path, once or, with `--watch`, again and again.
async fn show(
    client: &Client,
    path: &str,
    how: ShowFlags,
    env: &Environment,
    render: impl Fn(&Answer, Terminal) -> Result<String, Error>,
) -> Result<(), Error> {
    let mut out = io::stdout();
    loop {
        // It may have another size by now.
        let terminal = Terminal::of_stdout(env.wants_colours());
        let answer = client.ask(&Method::GET, path, QUICK).await?;
        if answer.code == StatusCode::BAD_REQUEST {
            return Err(Error::Negative(answer.line()));
        }
        let shown = render(&answer, terminal)?;
        let text = if how.json { answer.text() } else { shown };
        let text = if how.watch { terminal.frame(&text) } else { text };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if !how.watch {
            return Ok(());
        }
        sleep(WATCH_EVERY).await;
        if !how.json && terminal.size.is_none() {
            out.write_all(b"\n")?;
        }
    }
}

/// `leasehold rotate`
///
/// # Errors
/// If leasehold does not answer, or a route got no fresh credential.
pub(crate) async fn rotate(flags: &RotateFlags, env: &Environment) -> Result<(), Error> {
    if flags.drain == Some(DrainSpan::Default) && flags.route.as_deref().is_some_and(is_duration) {
        return Err(Error::Ambiguous(
            "--drain: its value is written behind an equals sign, as in --drain=5s",
        ));
    }
    let client = connect(&flags.at, env)?;
    let path = rotate_path(flags);
    let answer = client.ask(&Method::POST, &path, ROTATION).await?;
    if !matches!(answer.code, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE) {
        return Err(Error::Negative(answer.line()));
    }
    let rotated: Rotated = client.document(&answer)?;
    let mut out = io::stdout();
    let mut failed = Vec::new();
    for route in rotated.routes {
        match (route.generation, route.unchanged_since, route.error) {
            (Some(generation), _, None) => {
                writeln!(out, "{}: generation {generation} is published", table::clean(&route.name))?;
            }
            (None, Some(since), None) => {
                let (name, since) = (table::clean(&route.name), table::clean(&since));
                writeln!(out, "{name}: unchanged since {since}")?;
            }
            (_, _, error) => failed.push(table::clean(&format!(
                "{}: {}",
                route.name,
                error.unwrap_or_else(|| "no answer".to_owned())
            ))),
        }
    }
    out.flush()?;
    if failed.is_empty() { Ok(()) } else { Err(Error::Negative(failed.join("; "))) }
}

/// `leasehold reload`
///
/// # Errors
/// If leasehold does not answer, or the file is bad; then nothing has changed.
pub(crate) async fn reload(flags: &ReloadFlags, env: &Environment) -> Result<(), Error> {
    let client = connect(&flags.at, env)?;
    let answer = client.ask(&Method::POST, "/reload", ROTATION).await?;
    if answer.code != StatusCode::OK {
        return Err(Error::Negative(answer.line()));
    }
    writeln!(io::stdout(), "{}", answer.line())?;
    Ok(())
}

/// `leasehold log-level`
///
/// # Errors
/// If leasehold does not answer.
pub(crate) async fn log_level(flags: &LogLevelFlags, env: &Environment) -> Result<(), Error> {
    let client = connect(&flags.at, env)?;
    let answer = client.ask(&Method::POST, &format!("/log?level={}", flags.level.as_str()), QUICK).await?;
    if answer.code != StatusCode::OK {
        return Err(Error::Negative(answer.line()));
    }
    writeln!(io::stdout(), "{}", answer.line())?;
    Ok(())
}

/// `leasehold wait`
///
/// # Errors
/// If it is not ready in time: 69 if it never answered, else its reason.
pub(crate) async fn wait(flags: &WaitFlags, env: &Environment) -> Result<(), Error> {
    let client = connect(&flags.at, env)?;
    let until = Instant::now() + flags.max;
    let mut reason = None;
    loop {
        let asked = timeout_at(until, client.ask(&Method::GET, "/readyz", QUICK)).await;
        match asked {
            Ok(Ok(answer)) if answer.code == StatusCode::OK => return Ok(()),
            Ok(Ok(answer)) => reason = Some(Error::Negative(format!("not ready: {}", answer.line()))),
            Ok(Err(error)) if !matches!(reason, Some(Error::Negative(_))) => reason = Some(error),
            Ok(Err(_)) | Err(_) => {}
        }
        if Instant::now() + POLL_EVERY >= until {
            return Err(reason.unwrap_or_else(|| client.unreachable("no answer in time")));
        }
        sleep(POLL_EVERY).await;
    }
}

/// `leasehold shutdown`
///
/// # Errors
/// If leasehold does not answer, or, with `--wait`, it has not gone after ten minutes.
pub(crate) async fn shutdown(flags: &ShutdownFlags, env: &Environment) -> Result<(), Error> {
    let client = connect(&flags.at, env)?;
    let answer = client.ask(&Method::POST, "/quitquitquit", QUICK).await?;
    if answer.code != StatusCode::OK {
        return Err(Error::Negative(answer.line()));
    }
    let until = Instant::now() + GONE_BY;
    while flags.wait && client.is_there(QUICK).await {
        if Instant::now() >= until {
            return Err(Error::Negative("it has not stopped in ten minutes".to_owned()));
        }
        sleep(POLL_EVERY).await;
    }
    Ok(())
}

/// What is printed, and what the process answers. A reader that has gone, as in `leasehold status | head`, is no fault.
#[must_use]
pub(crate) fn finish(result: Result<(), Error>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // Without a stderr the exit code has to do.
            let _ = writeln!(io::stderr(), "leasehold: {}", Chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Whether a route's name is more likely the time that belongs to a flag.
fn is_duration(name: &str) -> bool {
    humantime::parse_duration(name).is_ok()
}

fn rotate_path(flags: &RotateFlags) -> String {
    let mut query = url::form_urlencoded::Serializer::for_suffix("/rotate?".to_owned(), "/rotate?".len());
    if let Some(route) = &flags.route {
        query.append_pair("route", route);
    }
    match flags.drain {
        None => {}
        Some(DrainSpan::Default) => {
            query.append_pair("drain", "");
        }
        Some(DrainSpan::For(span)) => {
            query.append_pair("drain", &humantime::format_duration(span).to_string());
        }
    }
    query.finish()
}

fn connect(flags: &AdminFlags, env: &Environment) -> Result<Client, Error> {
    match config::admin_address(flags, env)? {
        Some(addr) => Ok(Client::new(addr)),
        None => Err(Error::Off),
    }
}

/// The bound on an answer that needs no work.
const QUICK: Duration = Duration::from_secs(10);

/// The bound on `rotate`: the server's own, and a little more.
const ROTATION: Duration = Duration::from_secs(310);

/// The pause between two looks of `wait` and `shutdown --wait`.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// The pause between two tables with `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// The bound on `shutdown --wait`: longer than any orchestrator waits.
const GONE_BY: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests;
