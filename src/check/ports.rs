//! Whether what `run` listens on is free. Floor 6.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use super::finding::Finding;
use crate::config::Config;
use crate::files::{NoDirectory, Shown};
use crate::socket::{Address, Holder};

/// A finding for each address that cannot be listened on, or one for all that can. Binds each for a moment. An address whose
/// port the system chooses is not looked at.
pub(crate) fn ports(config: &Config) -> Vec<Finding> {
    let clients = config.listeners.iter().flat_map(|listener| {
        listener.addresses.iter().map(|listen| (&listen.address, listener.setting(), listen.optional))
    });
    let http = config.http.map(Address::Tcp);
    let http = http.iter().map(|address| (address, "--http", false));
    let admin = config.admin.iter().map(|address| (address, "--admin", false));
    let (mut free, mut findings) = (Vec::new(), Vec::new());
    for (address, flag, optional) in clients.chain(http).chain(admin) {
        match address {
            Address::Tcp(tcp) if tcp.port() == 0 => {}
            Address::Tcp(tcp) => match TcpListener::bind(tcp) {
                Ok(_) => free.push(address.to_string()),
                Err(error) if optional && error.kind() == io::ErrorKind::AddrNotAvailable => {}
                Err(error) => findings.push(taken(*tcp, flag, &error)),
            },
            Address::Unix(path) => findings.extend(no_directory(path, flag)),
        }
    }
    if !free.is_empty() {
        findings.insert(0, Finding::ok("listen", format!("free: {}", free.join(", "))));
    }
    findings
}

fn taken(address: SocketAddr, flag: &str, error: &io::Error) -> Finding {
    let remedy = format!("end what listens there, or name another address by {flag}");
    if error.kind() != io::ErrorKind::AddrInUse {
        let detail = format!("{address} cannot be listened on: {error}");
        return Finding::error("listen", detail, format!("name another address by {flag}"));
    }
    match Holder::of(address) {
        Some(Holder::Process { pid, name }) if name == OURS => Finding::warning(
            "listen",
            format!("a leasehold has {address} already (pid {pid})"),
            format!("one more beside it needs another address by {flag}"),
        ),
        // A leasehold lets nobody but root look into it, others mostly let their user.
        Some(Holder::User(uid)) if uid == rustix::process::geteuid().as_raw() => Finding::warning(
            "listen",
            format!("{address} is taken by a process of this user that cannot be looked into"),
            format!("where that is a leasehold that this one replaces, nothing; else {remedy}"),
        ),
        Some(holder) => Finding::error("listen", format!("{address} is taken by {holder}"), remedy),
        None => Finding::error("listen", format!("{address} is taken"), remedy),
    }
}

fn no_directory(path: &Path, flag: &str) -> Option<Finding> {
    if let Some(missing) = NoDirectory::of(path) {
        let remedy = format!("{}, or name another by {flag}", NoDirectory::REMEDY);
        return Some(Finding::error("listen", format!("{} for the socket", missing.fact()), remedy));
    }
    let directory = path.parent()?;
    let error = fs::metadata(directory).err()?;
    let detail = format!("the directory {} of the socket cannot be looked at: {error}", Shown(directory));
    Some(Finding::error(
        "listen",
        detail,
        format!("open it to the user that leasehold runs as, or name another by {flag}"),
    ))
}

/// The name of the program.
const OURS: &str = "leasehold";
