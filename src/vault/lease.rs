//! The lease_id of a lease, and its namespace. Pure. Floor 2.
//!
//! A path may lead into a namespace: `ns1/database/creds/app` is the role `app` of the mount `database` in the
//! namespace `ns1`, or of a mount `ns1/database`. Vault's reply shows which: its lease_id begins with the path inside
//! the namespace. A lease in a namespace is renewed, looked up and revoked there, and needs a policy for it
//! (`ns1/sys/leases/renew`).
//!
//! Source: <https://openbao.org/docs/concepts/namespaces/>

use std::fmt;
use std::time::Duration;

/// A lease, as requests identify it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    id: String,
    /// The namespace below that of the requests; empty if the lease is in the latter.
    namespace: String,
}

impl Lease {
    /// The lease with this lease_id, whose credential was read at `vault_path`.
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

    /// The empty lease of a static role.
    #[must_use]
    pub(crate) fn none() -> Self {
        Self { id: String::new(), namespace: String::new() }
    }

    /// The complete lease_id.
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

    /// Whether the lease is in another namespace than the token that requested it. The revocation of that token does
    /// not revoke such a lease.
    #[must_use]
    pub(crate) fn is_elsewhere(&self) -> bool {
        !self.namespace.is_empty()
    }

    /// The path of `operation` for this lease, such as `sys/leases/renew`.
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

/// A lease that Vault made although its reply cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// The lease, which is unused.
    pub(crate) lease: Lease,
    /// The user of the lease; empty if the reply does not name it.
    pub(crate) username: String,
    /// How long the lease lives without renewal, from the sending of the request. `None`: the reply does not say.
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
