//! A configuration that a reload reads again: what of it can be put in force, and what needs a restart. Floor 6.

use std::sync::Arc;

use super::certificates::Certificates;
use crate::acceptor::InForce;
use crate::config::{Config, Environment, RunFlags};
use crate::console::ShownSetting;
use crate::error::Chain;
use crate::postgres::upstream::{self, Upstream};
use crate::upstreams;
use crate::vault::Vault;

/// The sources of the configuration, which a reload reads again.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) flags: RunFlags,
    pub(super) env: Environment,
}

impl Source {
    /// Whether there is a file to be read again.
    pub(super) fn has_file(&self) -> bool {
        self.file().is_some()
    }

    /// What a reload says where it has changed nothing.
    pub(super) fn unchanged(&self) -> String {
        match self.file() {
            Some(file) => format!("no route changed: {file} was read, and says of them what it said before"),
            None => "no route changed: this process has no config file to read again, and its flags and variables hold \
                     until a restart"
                .to_owned(),
        }
    }

    fn file(&self) -> Option<&str> {
        self.flags.file(&self.env)
    }
}

/// A configuration that was read again and holds together. Nothing of it is in force yet.
pub(super) struct Renewed {
    pub(super) config: Config,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    pub(super) vault: Vault,
    pub(super) tls: Option<InForce>,
    pub(super) certificates: Certificates,
    /// The settings that need a restart, and are as they were.
    pub(super) restart: Vec<&'static str>,
}

impl Renewed {
    /// Reads the files again. Blocks on them. `tls`: what clients are offered now.
    pub(super) fn read(
        source: &Source,
        old: &Config,
        shared: &upstream::Shared,
        tls: Option<&InForce>,
    ) -> Result<Self, String> {
        let mut config =
            Config::load(&source.flags, &source.env).map_err(|error| Chain(&error).to_string())?;
        let restart = keep_what_needs_a_restart(old, &mut config);
        let upstreams = upstreams::build(&config, shared).map_err(|error| Chain(&error).to_string())?;
        let vault = Vault::new(config.vault.clone()).map_err(|error| format!("vault: {}", Chain(&error)))?;
        let tls = config.tls.as_ref().map(|settings| InForce::reread(settings, tls));
        let tls = tls.transpose().map_err(|error| Chain(&error).to_string())?;
        let certificates = Certificates::read(&config);
        Ok(Self { config, upstreams, vault, tls, certificates, restart })
    }
}

/// What a row of the settings says of those that only a restart changes.
const RESTART: &str = "restart";

/// Keeps what only a restart can change as it is, and gives the names of such settings that differ.
fn keep_what_needs_a_restart(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut names = Vec::new();
    let mut keep = |name, differs: bool| {
        if differs {
            names.push(name);
        }
    };
    keep("listen or [[listener]]", new.listeners != old.listeners);
    keep("http", new.http != old.http);
    keep("admin", new.admin != old.admin);
    keep("log_format", new.log.format != old.log.format);
    keep("min_sigterm_delay or max_sigterm_delay", new.sigterm != old.sigterm);
    keep("state_file", new.state_file != old.state_file);
    keep("[vault] addr", new.vault.addrs != old.vault.addrs);
    keep("[limits]", new.limits != old.limits);
    keep("threads", new.threads != old.threads);
    keep("audit_file", new.audit_file != old.audit_file);
    keep("hardening", new.hardening != old.hardening);
    keep("console", (new.console, &new.console_database) != (old.console, &old.console_database));
    keep("[cancel]", new.cancel_unknown != old.cancel_unknown);
    new.listeners.clone_from(&old.listeners);
    new.http = old.http;
    new.admin.clone_from(&old.admin);
    new.log.format = old.log.format;
    new.sigterm = old.sigterm;
    new.state_file.clone_from(&old.state_file);
    new.vault.addrs.clone_from(&old.vault.addrs);
    new.limits = old.limits;
    new.threads = old.threads;
    new.audit_file.clone_from(&old.audit_file);
    new.hardening = old.hardening;
    new.console = old.console;
    new.console_database.clone_from(&old.console_database);
    // What a running process shows is what it does.
    for row in new.shown.iter_mut().filter(|row| row.on_reload == RESTART) {
        if let Some(kept) = old.shown.iter().find(|kept| kept.key == row.key) {
            row.clone_from(kept);
        }
    }
    // There may be another number of these.
    let of_listeners = |row: &ShownSetting| row.key.starts_with("listener.");
    new.shown.retain(|row| !of_listeners(row));
    new.shown.extend(old.shown.iter().filter(|row| of_listeners(row)).cloned());
    new.cancel_unknown = old.cancel_unknown;
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listeners: &str) -> Config {
        let path =
            std::env::temp_dir().join(format!("leasehold-renewed-{:016x}.toml", rand::random::<u64>()));
        let route = "[[route]]\nupstream = 'postgresql://db/'\nvault_path = 'database/creds/app'\n";
        std::fs::write(&path, format!("{route}{listeners}")).unwrap();
        let env = [("VAULT_TOKEN".to_owned(), "x".to_owned())].into_iter().collect();
        let config = Config::load(&RunFlags::of_file(&path), &env).unwrap();
        std::fs::remove_file(path).unwrap();
        config
    }

    #[test]
    fn listeners_are_shown_as_they_are_in_force() {
        let one = "[[listener]]\naddress = '/run'\nmax_sessions = 1\n";
        let two = "[[listener]]\naddress = '/run'\n[[listener]]\naddress = '/tmp'\nmax_handshakes = 2\n";
        let listeners = |config: &Config| -> Vec<String> {
            let rows = config.shown.iter().filter(|row| row.key.starts_with("listener."));
            rows.map(|row| format!("{}={}", row.key, row.value)).collect()
        };
        for (old, new) in [(one, two), (two, one), (two, ""), ("", two)] {
            let (old, mut new) = (config(old), config(new));
            assert_eq!(keep_what_needs_a_restart(&old, &mut new), ["listen or [[listener]]"]);
            assert_eq!((listeners(&new), &new.listeners), (listeners(&old), &old.listeners));
        }
        let rows = ["listener.1.address=/run", "listener.2.address=/tmp", "listener.2.max_handshakes=2"];
        assert_eq!(listeners(&config(two)), rows);
    }
}
