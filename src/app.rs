//! How it all comes together. Floor 6.

mod certificates;
mod error;
mod greeting;
mod listeners;
mod live;
mod opened;
mod renewed;
mod running;
mod serve;
mod service_manager;
mod simulate;
mod usage;

use std::future::Future;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clap::Parser as _;

use crate::cli;
use crate::config::{CheckFlags, Cli, Command, Config, Environment};
use crate::error::Chain;
use crate::notify::{self, Notify};
use crate::terminal::Terminal;
use opened::Opened;
use renewed::Source;
use service_manager::ServiceManager;

/// Runs the command line.
///
/// Exit codes: 64 usage, 78 configuration, 71 the machine refuses (no thread, no address), 69 no leasehold at the
/// admin address, 1 a command's negative answer.
#[must_use]
pub fn main() -> ExitCode {
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return usage(&error),
    };
    let env = Environment::of_process();
    match command {
        Command::Run(flags) => match Config::load(&flags, &env) {
            Ok(config) => run(config, Source { flags: *flags, env }),
            Err(error) => exit_with(&Chain(&error), error.exit_code()),
        },
        Command::Check(flags) => check(&flags, &env),
        Command::Policy(flags) => match Config::load_without_token(&flags, &env) {
            Ok(config) => print(&crate::policy::hcl(&config)),
            Err(error) => exit_with(&Chain(&error), error.exit_code()),
        },
        Command::Status(flags) => ask(cli::status(&flags, &env)),
        Command::Sessions(flags) => ask(cli::sessions(&flags, &env)),
        Command::Rotate(flags) => ask(cli::rotate(&flags, &env)),
        Command::Reload(flags) => ask(cli::reload(&flags, &env)),
        Command::Wait(flags) => ask(cli::wait(&flags, &env)),
        Command::Shutdown(flags) => ask(cli::shutdown(&flags, &env)),
        Command::LogLevel(flags) => ask(cli::log_level(&flags, &env)),
        Command::Simulate(flags) => simulate::simulate(&flags),
        Command::Completion(flags) => print(&cli::completion(flags.shell)),
        Command::Man(flags) => match cli::man(flags.command.as_deref()) {
            Ok(page) => print(&page),
            Err(error) => cli::finish(Err(error)),
        },
    }
}

fn run(config: Config, source: Source) -> ExitCode {
    // Leases, probes and commands. Sessions have threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_with(&error, OS_ERROR),
    };
    // What is left of the log is written when it is dropped, after everything else.
    let mut log = match crate::log::init(&config.log, config.audit_file.as_ref()) {
        Ok(log) => log,
        Err(error) => return exit_with(&Chain(&error), error.exit_code()),
    };
    if let Err(error) = crate::socket::descriptors::raise_limit() {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    let notify = Notify::new(source.env.get("NOTIFY_SOCKET")).unwrap_or_else(|error| {
        tracing::warn!(%error, "NOTIFY_SOCKET is no socket that can be written to; the service manager is not notified");
        Notify::default()
    });
    let watchdog = notify::watchdog(source.env.get("WATCHDOG_USEC"), source.env.get("WATCHDOG_PID"));
    let manager = ServiceManager { notify, watchdog };
    let opened = {
        let _runtime = runtime.enter();
        Opened::open(&config, &source)
    };
    // The first thread beside this one: it is as restricted.
    let started = log.start();
    let serve = |opened| {
        started?;
        runtime.block_on(serve::serve(config, source, opened, log.control.clone(), manager))
    };
    let served = opened.and_then(serve);
    // What is still in flight is not waited for.
    runtime.shutdown_timeout(Duration::ZERO);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_with(&Chain(&error), error.exit_code()),
    }
}

/// Exit 1 if there is an error among the findings.
fn check(flags: &CheckFlags, env: &Environment) -> ExitCode {
    let load = if flags.offline { Config::load_without_token } else { Config::load };
    let config = match load(&flags.run, env) {
        Ok(config) => config,
        Err(error) => return exit_with(&Chain(&error), error.exit_code()),
    };
    // A kernel that refuses leaves what the operator has set up.
    let _ = crate::hardening::leave_no_core_dump();
    // As `run` does: addresses are bound with what root may, and files are read again without it. The runtime's threads inherit it.
    let ports = crate::check::ports(&config);
    let dropped = crate::hardening::drop_capabilities(config.hardening);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return exit_with(&error, OS_ERROR),
    };
    let checked = runtime.block_on(crate::check::check(config, flags.offline, ports));
    runtime.shutdown_timeout(Duration::ZERO);
    let findings = match checked {
        Ok(findings) => findings,
        Err(error) => return exit_with(&readable(&error, dropped), CONFIGURATION),
    };
    let terminal = Terminal::of_stdout(env.wants_colours());
    let text =
        if flags.json { crate::check::json(&findings) } else { crate::check::table(&findings, terminal) };
    let printed = print(&text);
    if findings.iter().any(|finding| finding.outcome == crate::check::Outcome::Error) {
        return ExitCode::from(1);
    }
    printed
}

/// What keeps `check` from looking. Where a file is root's to read at the start alone, it says what mends that.
fn readable(error: &crate::check::Error, dropped: u32) -> String {
    let text = Chain(error).to_string();
    let denied = io::Error::from(rustix::io::Errno::ACCESS).to_string();
    if dropped > 0 && text.contains(&denied) { format!("{text}; {}", crate::check::READABLE) } else { text }
}

/// A command needs no second thread.
fn ask(command: impl Future<Output = Result<(), cli::Error>>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => cli::finish(runtime.block_on(command)),
        Err(error) => exit_with(&error, OS_ERROR),
    }
}

/// Help and version go to stdout and are no error.
fn usage(error: &clap::Error) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    // Without a stdout or stderr the exit code has to do.
    let _ = match usage::text(error, &arguments) {
        Some(text) => writeln!(io::stderr(), "{text}"),
        None => error.print(),
    };
    if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS }
}

/// A reader that has gone, as in `leasehold policy | head`, is no fault.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => exit_with(&format_args!("cannot write: {error}"), 1),
    }
}

/// The exit code matters more than the line: a stderr that is not read may be full, and its lock held by the log.
fn exit_with(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    let line: Arc<str> = format!("leasehold: {error}\n").into();
    let (done, said) = mpsc::sync_channel(1);
    let of_thread = Arc::clone(&line);
    let writer = std::thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(of_thread.as_bytes());
        // The waiting side may have given up.
        let _ = done.send(());
    });
    let _ = match writer {
        Ok(_) => said.recv_timeout(LAST_WORD).map_err(|_| ()),
        // Without a thread it may have to wait for the reader.
        Err(_) => io::stderr().write_all(line.as_bytes()).map_err(|_| ()),
    };
    ExitCode::from(code)
}

/// How long the end of the process waits for the reader of stderr.
const LAST_WORD: Duration = Duration::from_secs(1);

/// `EX_USAGE` of `sysexits.h`.
const USAGE: u8 = 64;

/// `EX_CONFIG` of `sysexits.h`.
const CONFIGURATION: u8 = 78;

/// `EX_OSERR` of `sysexits.h`.
const OS_ERROR: u8 = 71;
