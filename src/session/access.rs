//! Which clients may use a route: users of this machine, and subject alternative names of client certificates. Floor 4.

use crate::acceptor::Identity;
use crate::error::Allowed;
use crate::socket::User;

/// Who may use a route. A client needs to be one of those that are listed; where nothing is listed, every client may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    /// Users, who connect over a Unix socket.
    pub(crate) uids: Vec<u32>,
    /// Groups that a process on a Unix socket runs with.
    pub(crate) gids: Vec<u32>,
    /// Names, one of which the client's certificate has.
    pub(crate) sans: Vec<San>,
}

/// A subject alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum San {
    /// A `dNSName`; letters of either case are the same.
    Dns(String),
    /// A `uniformResourceIdentifier`, such as a SPIFFE ID.
    Uri(String),
    /// An `rfc822Name`.
    Email(String),
}

impl San {
    fn is_of(&self, identity: &Identity) -> bool {
        match self {
            Self::Dns(name) => identity.dns.iter().any(|shown| shown.eq_ignore_ascii_case(name)),
            Self::Uri(uri) => identity.uris.contains(uri),
            Self::Email(address) => identity.emails.contains(address),
        }
    }
}

impl Access {
    /// Whether a client may use the route. `user`: as whom it connects over a Unix socket. `identity`: what its verified
    /// certificate says.
    ///
    /// # Errors
    /// Whom the route is for.
    pub(crate) fn check(&self, user: Option<User>, identity: Option<&Identity>) -> Result<(), Allowed> {
        let users = !self.uids.is_empty() || !self.gids.is_empty();
        let allowed = match (users, !self.sans.is_empty()) {
            (false, false) => return Ok(()),
            (true, false) => Allowed::Users,
            (false, true) => Allowed::Certificates,
            (true, true) => Allowed::UsersAndCertificates,
        };
        let by_user = user.is_some_and(|user| self.uids.contains(&user.uid) || self.gids.contains(&user.gid));
        let by_certificate = identity.is_some_and(|shown| self.sans.iter().any(|san| san.is_of(shown)));
        if by_user || by_certificate { Ok(()) } else { Err(allowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            subject: "CN=app".to_owned(),
            dns: vec!["App.Example".to_owned()],
            uris: vec!["spiffe://example/app".to_owned()],
            emails: vec!["app@example".to_owned()],
        }
    }

    #[test]
    fn where_nothing_is_listed_every_client_may() {
        assert_eq!(Access::default().check(None, None), Ok(()));
    }

    #[test]
    fn a_client_is_one_of_those_that_are_listed() {
        let user = |uid, gid| Some(User { uid, gid });
        let access = Access { uids: vec![1000], gids: vec![50], sans: Vec::new() };
        assert_eq!(access.check(user(1000, 1), None), Ok(()));
        assert_eq!(access.check(user(1, 50), None), Ok(()));
        for stranger in [user(50, 1000), user(0, 0), None] {
            assert_eq!(access.check(stranger, Some(&identity())), Err(Allowed::Users));
        }
        let access = Access { sans: vec![San::Uri("spiffe://example/app".to_owned())], ..access };
        assert_eq!(access.check(None, Some(&identity())), Ok(()));
        assert_eq!(access.check(None, None), Err(Allowed::UsersAndCertificates));
    }

    #[test]
    fn a_name_is_of_its_kind_and_whole() {
        let of = |san| Access { sans: vec![san], ..Access::default() }.check(None, Some(&identity()));
        assert_eq!(of(San::Dns("app.example".to_owned())), Ok(()));
        assert_eq!(of(San::Email("app@example".to_owned())), Ok(()));
        for other in [
            San::Dns("example".to_owned()),
            San::Dns("spiffe://example/app".to_owned()),
            San::Uri("spiffe://example/ap".to_owned()),
            San::Uri("spiffe://example/app/2".to_owned()),
            San::Uri("App.Example".to_owned()),
            San::Email("APP@example".to_owned()),
        ] {
            assert_eq!(of(other.clone()), Err(Allowed::Certificates), "{other:?}");
        }
    }
}
