//! Why each host did not let a session in. Floor 4.

use std::fmt;

use crate::error::Chain;
use crate::postgres::upstream::LoginError;

/// The latest reason of each host that was tried, in the order of the first try.
#[derive(Debug, Default)]
pub(super) struct Reasons(Vec<(String, String)>);

impl Reasons {
    /// Keeps what this host's latest try ended with. `host`: as configured, with its port.
    pub(super) fn note(&mut self, host: &str, error: &LoginError) {
        let reason = Chain(error).to_string();
        match self.0.iter_mut().find(|(known, _)| known == host) {
            Some((_, known)) => *known = reason,
            None => self.0.push((host.to_owned(), reason)),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// `db1:5432: cannot reach the upstream server: …; db2:5432: …`
impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (host, reason)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{host}: {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::socket::Address;

    #[test]
    fn each_host_is_shown_once_with_its_latest_reason() {
        let mut reasons = Reasons::default();
        reasons.note("db1:5432", &LoginError::Unsuitable(Address::Tcp("127.0.0.1:5432".parse().unwrap())));
        reasons.note("[::1]:5433", &LoginError::Unreachable(std::io::Error::other("no route to host")));
        reasons.note("db1:5432", &LoginError::Closed);
        assert_eq!(
            reasons.to_string(),
            "db1:5432: upstream server closed the connection during the login; \
             [::1]:5433: cannot reach the upstream server: no route to host"
        );
    }
}
