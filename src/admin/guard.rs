//! Keeps web pages, and requests that were forged through an app, away from the admin address. Floor 5.
//!
//! An app that can be made to send a request of a stranger's choice (SSRF) reaches loopback as well as leasehold's own
//! commands do. It can mostly choose the address and the body, and seldom a header: a request that changes something is
//! a POST with one that only the commands, and a person, send.
//!
//! A page in a browser on this machine can send requests to loopback, and by DNS rebinding even read the replies. What
//! gives it away: an `Origin`, a `Sec-Fetch-Site` of another site, or a `Host` that is the page's own name.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

/// Why a request is refused, if it is.
#[must_use]
pub(super) fn refusal(headers: &HeaderMap, authority: Option<&str>) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) {
        return Some("a request with an Origin is refused here\n");
    }
    let fine = |value: &http::HeaderValue| matches!(value.as_bytes(), b"none" | b"same-origin");
    if !headers.get_all("sec-fetch-site").iter().all(fine) {
        return Some("a request from another site is refused here\n");
    }
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    if hosts.next().is_some() || !host.is_some_and(is_loopback) || !authority.is_none_or(is_loopback) {
        return Some("the Host must be localhost or a loopback address here\n");
    }
    None
}

/// Why a request to change something is refused, if it is.
#[must_use]
pub(super) fn refusal_of_command(headers: &HeaderMap) -> Option<&'static str> {
    (!headers.contains_key(COMMAND_HEADER)).then_some(
        "this request needs the header leasehold-admin, which the commands send; by hand: curl --request POST \
         --header 'leasehold-admin: 1'\n",
    )
}

/// The header of requests that change something; its value does not matter.
pub(crate) const COMMAND_HEADER: &str = "leasehold-admin";

/// Whether `host[:port]` names this machine.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((inner, port)) = rest.split_once(']') else {
            return false;
        };
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && inner.parse::<Ipv6Addr>().is_ok_and(|ip| ip.to_canonical().is_loopback());
    }
    let name = match host.split_once(':') {
        Some((name, port)) if is_port(port) => name,
        Some(_) => return false,
        None => host,
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        for host in [
            "localhost",
            "LOCALHOST:9091",
            "127.0.0.1",
            "127.1.2.3:80",
            "[::1]",
            "[::1]:9091",
            "[::ffff:127.0.0.1]:1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "example.com",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1:9091",
            "0.0.0.0",
            "[::]",
            "[::1",
            "[::1]x",
            "::1",
            "localhost:x",
            "localhost:1:2",
            "user@localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
