//! What the configuration alone shows of the way to servers and from clients. Pure. Floor 6.

use super::finding::Finding;
use crate::config::{Config, RouteConfig};
use crate::postgres::upstream::uri::SslMode;

/// What others on the network can read or change.
pub(super) fn open_to_others(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = config.routes.iter().filter_map(to_servers).collect();
    if config.tls.is_none()
        && let Some(open) = config.listen().find(|listen| !listen.address.is_local())
    {
        findings.push(Finding::warning(
            "client_tls",
            format!("clients of {} connect without TLS: whoever is on their way reads and changes what they send and get", open.address),
            "write --tls-cert-file and --tls-key-file, and have clients ask for it by sslmode=verify-full",
        ));
    }
    findings
}

fn to_servers(route: &RouteConfig) -> Option<Finding> {
    let uri = &route.upstream.uri;
    let remote = uri.hosts.iter().find(|host| !host.is_local())?;
    let host = remote.name();
    let detail = match uri.tls.mode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer => format!(
            "sslmode={} lets sessions with {host} go without TLS: whoever is on their way reads and changes them",
            uri.tls.mode.as_str()
        ),
        SslMode::Require if uri.tls.root_cert.is_none() => {
            format!(
                "sslmode=require does not ask who {host} is: whoever is on the way can answer in its place"
            )
        }
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => return None,
    };
    let remedy = "write sslmode=verify-full, which is the default, in --upstream, with sslrootcert= where its CA is not one of the system's";
    Some(Finding::warning("tls", detail, remedy).of(&route.name))
}
