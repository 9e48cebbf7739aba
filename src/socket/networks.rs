//! The addresses from which clients may connect over TCP. Floor 2.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

/// An IP address, or all that begin with the same bits. An IPv4 address is the same when IPv6 carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Network {
    address: IpAddr,
    /// At most 32 or 128.
    prefix: u32,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NetworkError {
    /// It has another form.
    #[error("neither an IP address nor a network such as 10.0.0.0/8 or fd00::/8")]
    Form,
    /// It is longer than the address.
    #[error("the prefix behind '/' is longer than the address")]
    Prefix,
    /// The address goes on behind the prefix, so one of the two is a mistake.
    #[error("the address has bits behind its prefix")]
    BitsBehind,
}

impl Network {
    /// Whether the address is in it.
    #[must_use]
    pub(crate) fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                agree(network.to_bits().into(), address.to_bits().into(), 32 - self.prefix)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                agree(network.to_bits(), address.to_bits(), 128 - self.prefix)
            }
            _ => false,
        }
    }
}

/// Whether two addresses are the same but for so many bits at their end.
fn agree(one: u128, other: u128, last: u32) -> bool {
    (one ^ other).checked_shr(last).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse().map_err(|_| NetworkError::Form)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let (bits, length): (u128, u32) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let prefix = prefix.unwrap_or(length);
        let last = length.checked_sub(prefix).ok_or(NetworkError::Prefix)?;
        if last > 0 && bits.trailing_zeros() < last {
            return Err(NetworkError::BitsBehind);
        }
        Ok(Self { address, prefix })
    }
}

/// The networks from which clients may connect; at first from everywhere. A change holds for new connections.
#[derive(Debug, Default)]
pub(crate) struct AllowedNetworks(RwLock<Option<Arc<[Network]>>>);

impl AllowedNetworks {
    /// `None`: from everywhere.
    pub(crate) fn set(&self, networks: Option<Vec<Network>>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = networks.map(Into::into);
    }

    /// Whether a client may connect from this address. `None`: it is not known, as that of a client that has gone.
    #[must_use]
    pub(crate) fn contain(&self, address: Option<IpAddr>) -> bool {
        let networks = self.0.read().unwrap_or_else(PoisonError::into_inner);
        networks.as_ref().is_none_or(|networks| {
            address.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Result<Network, NetworkError> {
        text.parse()
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_as_it_does() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "a00::1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.4/31", "192.0.2.5", "192.0.2.6"),
            ("fd00::/8", "fdff::1", "fe00::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("0.0.0.0/0", "255.1.2.3", "::1"),
            ("::/0", "ffff::", "127.0.0.1"),
        ] {
            let network = network(text).unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!network.contains(outside.parse().unwrap()), "{text} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/", "10.0.0/8", "10.0.0.0/8/8", "host", "10.0.0.0/-1", "10.0.0.0/255.0.0.0"]
        {
            assert_eq!(network(text), Err(NetworkError::Form), "{text}");
        }
        assert_eq!(network("10.0.0.0/33"), Err(NetworkError::Prefix));
        assert_eq!(network("::/129"), Err(NetworkError::Prefix));
        assert_eq!(network("10.0.0.1/8"), Err(NetworkError::BitsBehind));
        assert_eq!(network("fd00::1/64"), Err(NetworkError::BitsBehind));
    }

    #[test]
    fn without_a_list_everywhere_is_allowed() {
        let (allowed, address) = (AllowedNetworks::default(), "192.0.2.1".parse().unwrap());
        assert!(allowed.contain(Some(address)) && allowed.contain(None));
        allowed.set(Some(vec![network("10.0.0.0/8").unwrap()]));
        assert!(!allowed.contain(Some(address)));
        allowed.set(None);
        assert!(allowed.contain(Some(address)));
    }
}
