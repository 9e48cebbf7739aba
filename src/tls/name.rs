//! Compares a certificate's names with the host by libpq's rule, which compares text. Floor 2.
//!
//! webpki rejects a `dNSName` that ends with a dot or looks like an IP address. libpq accepts both if the host is
//! written in the same way.
//!
//! Source: `pq_verify_peer_name_matches_certificate_name` in PostgreSQL's `src/interfaces/libpq/fe-secure-common.c`

use rustls::pki_types::CertificateDer;

use super::certificate::Leaf;

/// Whether one of the certificate's `dNSName`s equals `host` as written, including a dot at the end.
pub(super) fn fits(leaf: &CertificateDer<'_>, host: &str) -> bool {
    Leaf::read(leaf).is_some_and(|leaf| leaf.dns_names().iter().any(|name| matches(name, host)))
}

fn matches(name: &str, host: &str) -> bool {
    name.eq_ignore_ascii_case(host) || matches_wildcard(name, host)
}

/// Matches a pattern whose first label is `*`, which stands for exactly one label.
fn matches_wildcard(name: &str, host: &str) -> bool {
    match (name.strip_prefix('*'), host.split_once('.')) {
        (Some(rest), Some((label, further))) if rest.len() > 1 && !label.is_empty() => {
            rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(further))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    /// Each line was checked with psql 15 and a server with that certificate (`hostaddr` leads to the server).
    #[test]
    fn a_host_is_compared_with_a_name_as_libpq_does() {
        let key = KeyPair::generate().unwrap();
        for (name, host, expected) in [
            ("localhost.", "localhost.", true),
            ("LocalHost.", "localHOST.", true),
            ("localhost.", "localhost", false),
            ("*.example.com.", "db.example.com.", true),
            ("*.example.com.", "db.example.com", false),
            ("*.example.com.", "a.db.example.com.", false),
            ("*.example.com.", "example.com.", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("*.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
        ] {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
            let leaf = params.self_signed(&key).unwrap();
            assert_eq!(fits(leaf.der(), host), expected, "{name} {host}");
        }
    }
}
