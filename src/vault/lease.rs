//! The name of a lease, and the namespace that it is in. Pure. Floor 2.
//!
//! A path may lead into a namespace: `ns1/database/creds/app` is the role `app` of the mount `database` in the namespace
//! `ns1`, or of a mount `ns1/database`. Vault's reply decides it: its lease_id begins with the path inside the namespace.
//! Such a lease is renewed, looked up and revoked there, and needs a policy for it (`ns1/sys/leases/renew`).
//!
//! Source: <https://openbao.org/docs/concepts/namespaces/>

use std::fmt;
use std::time::Duration;

/// A lease, as requests name it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    id: String,
    /// Below the namespace of the requests; empty where the lease is in that one.
    namespace: String,
}

impl Lease {
    /// The lease of this id, whose credential was read at `vault_path`.
    #[must_use]
    pub(crate) fn new(id: String, vault_path: &str) -> Self {
        let read_at = vault_path.trim_matches('/');
        let namespace = id
            .rsplit_once('/')
            .and_then(|(path, _)| read_at.strip_suffix(path)?.strip_suffix('/'))
            .unwrap_or_default()
            .to_owned();
        Self { id, namespace }
    }

    /// What a static role has.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self { id: String::new(), namespace: String::new() }
    }

    /// The whole lease_id.
    #[must_use]
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The last eight characters of the lease_id, for logs and status.
    #[must_use]
    pub(crate) fn tail(&self) -> &str {
        let start = self.id.char_indices().rev().nth(7).map_or(0, |(at, _)| at);
        self.id.get(start..).unwrap_or("")
    }

    /// Whether it is in another namespace than the token that asked for it. The revocation of that token leaves it alone.
    #[must_use]
    pub(crate) fn is_elsewhere(&self) -> bool {
        !self.namespace.is_empty()
    }

    /// Where this lease is asked for `operation`, such as `sys/leases/renew`.
    #[must_use]
    pub(crate) fn path(&self, operation: &str) -> String {
        if self.namespace.is_empty() {
            operation.to_owned()
        } else {
            format!("{}/{operation}", self.namespace)
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("tail", &self.tail()).field("namespace", &self.namespace).finish()
    }
}

/// A lease that Vault made although its reply is of no use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// The lease, which is unused.
    pub(crate) lease: Lease,
    /// Its user; empty where the reply does not name it.
    pub(crate) username: String,
    /// How long it lives if it is left alone, from the sending of the request; `None` where the reply does not say.
    pub(crate) ttl: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_namespace_is_what_the_path_has_before_the_lease_id() {
        for (path, id, renewed_at) in [
            ("database/creds/app", "database/creds/app/x1", "sys/leases/renew"),
            ("/database/creds/app/", "database/creds/app/x1.nsid", "sys/leases/renew"),
            ("ns1/database/creds/app", "database/creds/app/x1.nsid", "ns1/sys/leases/renew"),
            ("ns1/sub/database/creds/app", "database/creds/app/x1.nsid", "ns1/sub/sys/leases/renew"),
            ("ns1/team/db/creds/app", "team/db/creds/app/x1.nsid", "ns1/sys/leases/renew"),
            ("team/db/creds/app", "team/db/creds/app/x1", "sys/leases/renew"),
            ("mydatabase/creds/app", "database/creds/app/x1", "sys/leases/renew"),
            ("database/creds/app", "x1", "sys/leases/renew"),
            ("database/creds/app", "", "sys/leases/renew"),
        ] {
            let lease = Lease::new(id.to_owned(), path);
            assert_eq!(lease.path("sys/leases/renew"), renewed_at, "{path} {id}");
            assert_eq!(lease.is_elsewhere(), renewed_at.starts_with("ns1"));
        }
    }
}
