//! Where a value comes from, and the settings that need no more than that. Floor 6.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;

use crate::files::FileSetting;

use super::env::Environment;
use super::error::{Error, Origin};
use super::file::{File, Source, Unbuilt, Written};
use super::flags::{AdminFlags, GeneralFlags, LimitFlags, UnbuiltFlags};
use super::values::{self, Bad};
use super::{Cancel, Limits, Listen, OrOff, UnknownCancel};

/// The environment and the file; flags come with each question.
pub(super) struct Sources<'a> {
    pub(super) env: &'a Environment,
    pub(super) file: File,
    source: Option<Source>,
}

/// A value, and where it was found.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl Found<PathBuf> {
    /// The path with its place, for what opens it.
    pub(super) fn into_file(self) -> FileSetting {
        FileSetting::new(self.value, self.origin)
    }
}

pub(super) const UNBUILT: &str = "not supported yet";

impl<'a> Sources<'a> {
    /// Reads the file, if one is named.
    pub(super) fn open(config: Option<&Path>, env: &'a Environment) -> Result<Self, Error> {
        let origin = match config {
            Some(_) => Origin::Flag("--config".to_owned()),
            None => Origin::Env("LEASEHOLD_CONFIG".to_owned()),
        };
        let (source, file) = match env.config_file(config) {
            None => (None, File::default()),
            Some(path) => {
                let (source, file) = Source::read(path, &origin)?;
                (Some(source), file)
            }
        };
        Ok(Self { env, file, source })
    }

    #[cfg(test)]
    pub(super) fn of_text(text: &str, env: &'a Environment) -> Result<Self, Error> {
        let (source, file) = Source::parse(Path::new("test.toml"), text.to_owned())?;
        Ok(Self { env, file, source: Some(source) })
    }

    /// The flag, the variable, or the key of the file. `key` has its tables in front, with dots.
    pub(super) fn pick<T>(
        &self,
        key: &str,
        flag: Option<&T>,
        file: Option<&Spanned<impl Written>>,
        parse: fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<Found<T>>, Error>
    where
        T: Clone,
    {
        if let Some(value) = flag {
            return Ok(Some(Found { value: value.clone(), origin: Origin::Flag(flag_name(key)) }));
        }
        match self.env_or_file(key, file) {
            None => Ok(None),
            Some((text, origin)) => parsed(&text, origin, parse).map(Some),
        }
    }

    /// As [`Sources::pick`], where the default needs no origin.
    pub(super) fn pick_or<T: Clone>(
        &self,
        key: &str,
        flag: Option<&T>,
        file: Option<&Spanned<impl Written>>,
        parse: fn(&str) -> Result<T, Bad>,
        default: T,
    ) -> Result<T, Error> {
        let found = self.pick(key, flag, file, parse)?;
        Ok(found.map_or(default, |found| found.value))
    }

    /// As [`Sources::pick`], without where it was found.
    pub(super) fn value<T: Clone>(
        &self,
        key: &str,
        flag: Option<&T>,
        file: Option<&Spanned<impl Written>>,
        parse: fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<T>, Error> {
        Ok(self.pick(key, flag, file, parse)?.map(|found| found.value))
    }

    fn env_or_file(&self, key: &str, file: Option<&Spanned<impl Written>>) -> Option<(String, Origin)> {
        let variable = env_name(key);
        if let Some(text) = self.env.get(&variable) {
            return Some((text.to_owned(), Origin::Env(variable)));
        }
        let value = file?;
        Some((value.as_ref().to_text(), self.place(value, Some(key))))
    }

    /// Where a value of the file stands.
    pub(super) fn place<T>(&self, value: &Spanned<T>, key: Option<&str>) -> Origin {
        match &self.source {
            Some(source) => source.place(value.span().start, key),
            None => Origin::Default(key.unwrap_or("(top)").to_owned()),
        }
    }

    /// Refuses what a later version will know.
    pub(super) fn refuse_unbuilt(&self) -> Result<(), Error> {
        for key in UnbuiltFlags::KEYS {
            let variable = env_name(key);
            if self.env.get(&variable).is_some() {
                return Err(Error::invalid(Origin::Env(variable), UNBUILT));
            }
        }
        let file = &self.file;
        self.refuse_keys([
            ("tls", &file.tls),
            ("allow_uids", &file.allow_uids),
            ("allow_gids", &file.allow_gids),
            ("client_san", &file.client_san),
            ("hardening", &file.hardening),
        ])
    }

    /// Refuses the first of these keys that is set.
    pub(super) fn refuse_keys<const N: usize>(&self, keys: [(&str, &Unbuilt); N]) -> Result<(), Error> {
        for (key, value) in keys {
            if let Some(value) = value {
                return Err(Error::invalid(self.place(value, Some(key)), UNBUILT));
            }
        }
        Ok(())
    }
}

/// Reads a text that was found somewhere.
pub(super) fn parsed<T>(
    text: &str,
    origin: Origin,
    parse: impl Fn(&str) -> Result<T, Bad>,
) -> Result<Found<T>, Error> {
    match parse(text) {
        Ok(value) => Ok(Found { value, origin }),
        Err(reason) => Err(Error::invalid(origin, reason)),
    }
}

/// `vault.addr` → `--vault-addr`
pub(super) fn flag_name(key: &str) -> String {
    format!("--{}", key.replace(['.', '_'], "-"))
}

/// `vault.addr` → `LEASEHOLD_VAULT_ADDR`
pub(super) fn env_name(key: &str) -> String {
    format!("LEASEHOLD_{}", key.replace('.', "_").to_ascii_uppercase())
}

pub(super) fn listen(sources: &Sources<'_>, flags: &GeneralFlags) -> Result<Vec<Listen>, Error> {
    let file = &sources.file;
    let public = sources.pick_or(
        "listen_public",
        flags.listen_public.as_ref(),
        file.listen_public.as_ref(),
        values::boolean,
        false,
    )?;
    let found = sources.pick("listen", flags.listen.as_ref(), file.listen.as_ref(), values::listens)?;
    let Some(Found { value: listen, origin }) = found else {
        return Ok(Listen::default_list());
    };
    if listen.is_empty() {
        return Err(Error::invalid(origin, "at least one address is needed"));
    }
    if let Some(open) = listen.iter().find(|listen| !public && !listen.is_private()) {
        return Err(Error::invalid(
            origin,
            format!(
                "{} is open beyond this machine, and whoever reaches it needs no password; --listen-public allows it",
                open.address
            ),
        ));
    }
    for (at, one) in listen.iter().enumerate() {
        let fixed = !matches!(one.address, super::ListenAddress::Tcp(addr) if addr.port() == 0);
        if fixed && listen.iter().skip(at + 1).any(|other| other.address == one.address) {
            return Err(Error::invalid(origin, format!("{} is there twice", one.address)));
        }
    }
    Ok(listen)
}

pub(super) fn http(sources: &Sources<'_>, flags: &GeneralFlags) -> Result<Option<SocketAddr>, Error> {
    let default = OrOff::At((Ipv4Addr::LOCALHOST, 9090).into());
    let address =
        sources.pick_or("http", flags.http.as_ref(), sources.file.http.as_ref(), values::http, default)?;
    Ok(address.at())
}

pub(super) fn admin(
    sources: &Sources<'_>,
    flags: &AdminFlags,
) -> Result<Option<crate::admin::Address>, Error> {
    let default = OrOff::At(crate::admin::Address::Tcp((Ipv4Addr::LOCALHOST, 9091).into()));
    let address = sources.pick_or(
        "admin",
        flags.admin.as_ref(),
        sources.file.admin.as_ref(),
        values::admin,
        default,
    )?;
    Ok(address.at())
}

pub(super) fn log(sources: &Sources<'_>, flags: &GeneralFlags) -> Result<crate::log::Options, Error> {
    let file = &sources.file;
    Ok(crate::log::Options {
        level: sources.pick_or(
            "log_level",
            flags.log_level.as_ref(),
            file.log_level.as_ref(),
            values::level,
            crate::log::Level::Info,
        )?,
        format: sources.value(
            "log_format",
            flags.log_format.as_ref(),
            file.log_format.as_ref(),
            values::format,
        )?,
    })
}

pub(super) fn sigterm(sources: &Sources<'_>, flags: &GeneralFlags) -> Result<crate::shutdown::Delays, Error> {
    let file = &sources.file;
    let min = sources.pick(
        "min_sigterm_delay",
        flags.min_sigterm_delay.as_ref(),
        file.min_sigterm_delay.as_ref(),
        values::duration,
    )?;
    let max = sources.pick_or(
        "max_sigterm_delay",
        flags.max_sigterm_delay.as_ref(),
        file.max_sigterm_delay.as_ref(),
        values::duration,
        // With the 5 s for giving leases back it fits into Kubernetes' 30 s.
        Duration::from_secs(20),
    )?;
    match min {
        Some(min) if min.value > max => {
            Err(Error::invalid(min.origin, "is longer than max_sigterm_delay, and both count from SIGTERM"))
        }
        min => Ok(crate::shutdown::Delays { min: min.map_or(Duration::ZERO, |min| min.value), max }),
    }
}

pub(super) fn state_file(sources: &Sources<'_>, flags: &GeneralFlags) -> Result<Option<FileSetting>, Error> {
    let file = sources.file.state_file.as_ref();
    let found = sources.pick("state_file", flags.state_file.as_ref(), file, values::path)?;
    Ok(found.map(Found::into_file))
}

pub(super) fn limits(sources: &Sources<'_>, flags: &LimitFlags) -> Result<Limits, Error> {
    let file = &sources.file.limits;
    let span = |key: &str, flag: &Option<Duration>, file: &Option<Spanned<String>>, parse, seconds| {
        sources.pick_or(key, flag.as_ref(), file.as_ref(), parse, Duration::from_secs(seconds))
    };
    Ok(Limits {
        handshake_timeout: span(
            "limits.handshake_timeout",
            &flags.limits_handshake_timeout,
            &file.handshake_timeout,
            values::span,
            15,
        )?,
        login_wait: span(
            "limits.login_wait",
            &flags.limits_login_wait,
            &file.login_wait,
            values::duration,
            10,
        )?,
        connect_timeout: span(
            "limits.connect_timeout",
            &flags.limits_connect_timeout,
            &file.connect_timeout,
            values::span,
            10,
        )?,
        send_timeout: span(
            "limits.send_timeout",
            &flags.limits_send_timeout,
            &file.send_timeout,
            values::span,
            30,
        )?,
        max_sessions: sources.pick_or(
            "limits.max_sessions",
            flags.limits_max_sessions.as_ref(),
            file.max_sessions.as_ref(),
            values::count,
            0,
        )?,
        replica_grace: sources.value(
            "limits.replica_grace",
            flags.limits_replica_grace.as_ref(),
            file.replica_grace.as_ref(),
            values::duration,
        )?,
        issue_burst: sources.pick_or(
            "limits.issue_burst",
            flags.limits_issue_burst.as_ref(),
            file.issue_burst.as_ref(),
            values::burst,
            3,
        )?,
        issue_interval: span(
            "limits.issue_interval",
            &flags.limits_issue_interval,
            &file.issue_interval,
            values::span,
            60,
        )?,
    })
}

pub(super) fn cancel(sources: &Sources<'_>, flags: &LimitFlags, public: bool) -> Result<Cancel, Error> {
    // A public listener is the sign of several replicas behind one address, where a cancel may reach the wrong one.
    let default = if public { UnknownCancel::Forward } else { UnknownCancel::Off };
    Ok(Cancel {
        unknown: sources.pick_or(
            "cancel.unknown",
            flags.cancel_unknown.as_ref(),
            sources.file.cancel.unknown.as_ref(),
            values::unknown_cancel,
            default,
        )?,
    })
}
