//! Parses, shows and resolves an address of Vault. Floor 2.

use std::fmt;
use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The base URL of a Vault server: `http` or `https`, a host, and optionally a port.
///
/// Two addresses are equal if they lead to the same server: case, a slash at the end and the scheme's default port are
/// ignored.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address(Url);

/// The reason why a text is not an [`Address`]. It does not repeat the text, which may contain a password or be a
/// misplaced secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    /// The text is not a URL.
    #[error("not a URL such as https://vault:8200")]
    NotUrl,
    /// The scheme is another, or there is no host.
    #[error("neither http:// nor https:// with a host")]
    Scheme,
    /// There is a user or a password before the host.
    #[error("holds a user or password, which Vault does not take")]
    Credentials,
    /// There is a path, a query or a fragment.
    #[error("has a path; only scheme, host and port are supported")]
    Path,
}

impl Address {
    /// Parses a base URL. White space around it is ignored.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub(crate) fn parse(text: &str) -> Result<Self, AddressError> {
        let url = Url::parse(text.trim()).map_err(|_| AddressError::NotUrl)?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(AddressError::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(AddressError::Credentials);
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(AddressError::Path);
        }
        Ok(Self(url))
    }

    /// Whether requests to this address are encrypted.
    #[must_use]
    pub(crate) fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// Whether the host is certainly this machine: a loopback address, or `localhost`.
    #[must_use]
    pub(crate) fn is_loopback(&self) -> bool {
        match self.0.host() {
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        }
    }

    pub(super) fn url(&self) -> &Url {
        &self.0
    }

    /// The host and port, as in `vault:8200`.
    pub(super) fn authority(&self) -> &str {
        self.0.authority()
    }

    /// The host, without the brackets of an IPv6 address.
    pub(super) fn plain_host(&self) -> String {
        match self.0.host() {
            Some(Host::Ipv6(address)) => address.to_string(),
            Some(other) => other.to_string(),
            None => String::new(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&origin(&self.0))
    }
}

/// The scheme, host and port, as in `https://vault:8200`.
pub(super) fn origin(url: &Url) -> String {
    let authority = url.authority().rsplit_once('@').map_or_else(|| url.authority(), |(_, host)| host);
    format!("{}://{authority}", url.scheme())
}

/// A resolver that resolves each name as this host.
pub(super) struct Fixed(pub(super) String);

impl Resolve for Fixed {
    fn resolve(&self, _name: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_base_url_is_an_address() {
        for (good, shown) in [
            ("https://vault:8200", "https://vault:8200"),
            (" http://[::1]:8200/ ", "http://[::1]:8200"),
            ("HTTPS://Vault:443", "https://vault"),
        ] {
            assert_eq!(Address::parse(good).unwrap().to_string(), shown);
        }
        for (bad, error) in [
            ("", AddressError::NotUrl),
            ("vault", AddressError::NotUrl),
            ("vault:8200", AddressError::Scheme),
            ("unix:///run/v.sock", AddressError::Scheme),
            ("https://u:hunter2@vault", AddressError::Credentials),
            ("https://v/?x=1", AddressError::Path),
            ("https://v/#f", AddressError::Path),
            ("https://v/hvs.x", AddressError::Path),
        ] {
            assert_eq!(Address::parse(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn a_loopback_address_is_told_by_its_text() {
        for (text, is_loopback) in [
            ("http://127.0.0.3:8200", true),
            ("http://[::1]:8200", true),
            ("http://localhost:8200", true),
            ("http://vault:8200", false),
            ("http://10.0.0.1:8200", false),
        ] {
            assert_eq!(Address::parse(text).unwrap().is_loopback(), is_loopback, "{text}");
        }
    }
}
