//! What a leasehold stands between: a database, and a Vault with a role for it.

use super::bench;
use super::leasehold::{Builder, leasehold};
use super::postgres::{Database, Server};
use super::vault::{Setup, Spec, Vault};

/// A database, and a Vault with a role for it.
pub(crate) struct Backends {
    pub(crate) db: Database,
    pub(crate) vault: Vault,
    pub(crate) setup: Setup,
}

impl Backends {
    /// On the shared PostgreSQL and the shared Vault.
    pub(crate) async fn new(spec: Spec) -> Self {
        Self::on(&bench().postgres().await, spec).await
    }

    /// On this PostgreSQL and the shared Vault.
    pub(crate) async fn on(server: &Server, spec: Spec) -> Self {
        Self::of(server.database().await, bench().vault().await, spec).await
    }

    pub(crate) async fn of(db: Database, vault: Vault, spec: Spec) -> Self {
        let setup = vault.setup(&db, spec).await;
        Self { db, vault, setup }
    }

    /// A leasehold between the two, with one route.
    pub(crate) fn leasehold(&self) -> Builder {
        self.without_upstream().upstream(&self.db)
    }

    /// A leasehold with one route whose upstream is at this URI.
    pub(crate) fn leasehold_at(&self, uri: &str) -> Builder {
        self.without_upstream().upstream_uri(uri)
    }

    /// A leasehold without its upstream yet.
    pub(crate) fn without_upstream(&self) -> Builder {
        leasehold().vault(&self.vault).login(&self.setup)
    }
}
