//! What is read and bound before anything is served, while the process has one thread. Floor 6.

use std::sync::Arc;

use super::error::Error;
use super::listeners::Listeners;
use super::renewed::Source;
use crate::acceptor::InForce;
use crate::config::Config;
use crate::credentials::state::StateFile;
use crate::error::Chain;
use crate::files::FileSetting;
use crate::hardening::{self, Changed};
use crate::metrics::{self, Metrics};
use crate::otlp;
use crate::postgres::upstream::{self, Upstream};
use crate::shutdown::Signals;
use crate::socket::Address;
use crate::upstreams;
use crate::vault::Vault;

/// All that the process holds when it is as restricted as it will be.
pub(super) struct Opened {
    pub(super) recorder: Arc<Metrics>,
    pub(super) vault: Arc<Vault>,
    pub(super) of_upstreams: upstream::Shared,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) tls: Option<InForce>,
    pub(super) state: Option<Arc<StateFile>>,
    pub(super) signals: Signals,
    pub(super) listeners: Listeners,
    pub(super) traces: Option<otlp::Sender>,
}

impl Opened {
    /// Reads what the configuration names, binds everything, and restricts the process. Call it within a tokio runtime, while
    /// the process has one thread.
    ///
    /// # Errors
    /// See [`Error`]. What was bound is free again.
    pub(super) fn open(config: &Config, source: &Source) -> Result<Self, Error> {
        let recorder = Arc::new(Metrics::install().map_err(|_| Error::Recorder)?);
        metrics::build_info();
        // A counter without labels is there from the start: an alert on its growth needs the zero.
        metrics::log_lines_dropped(0);
        for warning in &config.warnings {
            tracing::warn!("{}", warning.text);
        }
        let begun = hardening::begin(config.hardening)?;
        // What the files say is read first: nothing is bound, and nothing is asked of Vault, for a bad configuration.
        let vault = Arc::new(Vault::new(config.vault.clone())?);
        let of_upstreams = upstream::Shared::default();
        let upstreams = upstreams::build(config, &of_upstreams)?;
        let tls = tls(config)?;
        let state = state_file(config)?;
        let traces = config.traces.as_ref().and_then(traces);
        let signals = Signals::install(source.has_file()).map_err(Error::Signals)?;
        let listeners = Listeners::bind(config)?;
        begun.complete(&changed(config))?;
        Ok(Self { recorder, vault, of_upstreams, upstreams, tls, state, signals, listeners, traces })
    }
}

/// The files that the process goes on to change.
fn changed(config: &Config) -> Changed {
    let listen = config.listen().map(|listen| &listen.address);
    let sockets = listen.chain(&config.admin).filter_map(|address| match address {
        Address::Unix(path) => Some(path.clone()),
        Address::Tcp(_) => None,
    });
    let path = |file: &FileSetting| file.path().to_owned();
    Changed {
        made: config.audit_file.iter().map(path).collect(),
        replaced: config.state_file.iter().map(path).collect(),
        removed: sockets.collect(),
    }
}

/// What clients are offered TLS with. Blocks on its files, as nothing is served yet.
fn tls(config: &Config) -> Result<Option<InForce>, Error> {
    let Some(settings) = &config.tls else { return Ok(None) };
    let read = InForce::read(settings)?;
    for warning in read.warnings() {
        tracing::warn!("{warning}");
    }
    tracing::info!("clients are offered TLS, with a certificate {}", read.describe());
    Ok(Some(read))
}

/// What sends spans. Without a collector leasehold serves all the same.
fn traces(settings: &otlp::Settings) -> Option<otlp::Sender> {
    let sender = otlp::Sender::new(settings);
    sender.inspect_err(|error| tracing::warn!(error = %Chain(error), "no spans are sent")).ok()
}

/// The state file is opened before anything is bound: a second process must not come so far.
fn state_file(config: &Config) -> Result<Option<Arc<StateFile>>, Error> {
    let Some(file) = &config.state_file else { return Ok(None) };
    let opened = StateFile::open(file.path(), config.vault.server());
    opened.map(Some).map_err(|source| Error::State { file: file.clone(), source })
}
