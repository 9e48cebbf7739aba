//! The text of an address of Vault: read, shown, resolved. Floor 2.

use std::net::SocketAddr;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::Error;

/// A base URL. `place` counts from 0.
pub(super) fn parse(place: usize, text: &str) -> Result<Url, Error> {
    let refuse = |reason| Err(Error::Address { position: place + 1, reason });
    let Ok(url) = Url::parse(text.trim()) else {
        return refuse("is not a URL");
    };
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return refuse("is neither http:// nor https:// with a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("holds a user or password, which Vault does not take");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return refuse("has a path; only scheme, host and port are supported");
    }
    Ok(url)
}

/// Scheme, host and port, as in `https://vault:8200`.
pub(super) fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

pub(super) fn authority(url: &Url) -> &str {
    url.authority().rsplit_once('@').map_or_else(|| url.authority(), |(_, host)| host)
}

/// The host without the brackets of IPv6.
pub(super) fn plain_host(url: &Url) -> String {
    match url.host() {
        Some(Host::Ipv6(address)) => address.to_string(),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}

/// Leads every name to one host.
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
