//! The hosts of a URI, from its authority or from the parameters `host` and `port`. Floor 2.

use std::path::PathBuf;

use super::{Error, decode};
use crate::dial::Host;

/// Hosts and ports as written: percent-decoded, but not yet paired.
#[derive(Default)]
pub(super) struct HostList {
    hosts: Vec<String>,
    ports: Vec<String>,
}

impl HostList {
    /// Parses `h1:5432,[::1],%2Fsocket%2Fdir`.
    pub(super) fn parse(authority: &str) -> Result<Self, Error> {
        let mut list = Self::default();
        if authority.is_empty() {
            return Ok(list);
        }
        for (index, entry) in authority.split(',').enumerate() {
            let malformed = Error::Host { position: index + 1 };
            let (host, port) = match entry.strip_prefix('[') {
                Some(bracketed) => {
                    let (host, rest) = bracketed.split_once(']').ok_or_else(|| malformed.clone())?;
                    if !host.contains(':') {
                        return Err(malformed);
                    }
                    match rest.strip_prefix(':') {
                        Some(port) => (host, port),
                        None if rest.is_empty() => (host, ""),
                        None => return Err(malformed),
                    }
                }
                None => entry.split_once(':').unwrap_or((entry, "")),
            };
            list.hosts.push(decode(host)?);
            list.ports.push(decode(port)?);
        }
        Ok(list)
    }

    /// Replaces all hosts by the parameter `host`, where an IPv6 address has no brackets.
    pub(super) fn replace_hosts(&mut self, value: &str) {
        self.hosts = value.split(',').map(str::to_owned).collect();
    }

    /// Replaces all ports by the parameter `port`.
    pub(super) fn replace_ports(&mut self, value: &str) {
        self.ports = value.split(',').map(str::to_owned).collect();
    }

    /// Pairs hosts with ports: one port for all hosts, or one for each. An empty port means 5432.
    pub(super) fn hosts(self) -> Result<Vec<Host>, Error> {
        if self.hosts.iter().all(String::is_empty) {
            return Err(Error::NoHost);
        }
        if self.ports.len() > 1 && self.ports.len() != self.hosts.len() {
            return Err(Error::PortCount { ports: self.ports.len(), hosts: self.hosts.len() });
        }
        let only = if self.ports.len() == 1 { self.ports.first() } else { None };
        self.hosts
            .into_iter()
            .enumerate()
            .map(|(index, host)| {
                let position = index + 1;
                let port = only.or_else(|| self.ports.get(index)).map_or("", String::as_str);
                place(host, number(port, position)?, position)
            })
            .collect()
    }
}

fn place(host: String, port: u16, position: usize) -> Result<Host, Error> {
    if host.starts_with('/') {
        return Ok(Host::Unix(PathBuf::from(host).join(format!(".s.PGSQL.{port}"))));
    }
    // A zone as in fe80::1%eth0 is allowed; an abstract socket (@name) is not supported.
    let plain = |c: char| !c.is_whitespace() && !c.is_control() && !"/@[]".contains(c);
    if host.is_empty() || !host.chars().all(plain) {
        return Err(Error::Host { position });
    }
    Ok(Host::Tcp { name: host, port })
}

fn number(port: &str, position: usize) -> Result<u16, Error> {
    if port.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let number = port.parse().ok().filter(|number| digits && *number != 0);
    number.ok_or(Error::Port { position })
}

/// Source: <https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-PORT>
const DEFAULT_PORT: u16 = 5432;
