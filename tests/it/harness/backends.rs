//! What a leasehold stands between: a database, and a Vault with a role for it.

use std::ops::{Deref, DerefMut};

use super::bench;
use super::fault::Fault;
use super::leasehold::{Builder, leasehold};
use super::postgres::{Database, Server};
use super::vault::{Setup, Spec, Vault, through};

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
        Self::with_database(server.database().await, spec).await
    }

    /// With this database, and the shared Vault.
    pub(crate) async fn with_database(db: Database, spec: Spec) -> Self {
        Self::of(db, bench().vault().await, spec).await
    }

    /// On the shared PostgreSQL and this Vault.
    pub(crate) async fn with_vault(vault: Vault, spec: Spec) -> Self {
        Self::of(bench().postgres().await.database().await, vault, spec).await
    }

    pub(crate) async fn of(db: Database, vault: Vault, spec: Spec) -> Self {
        let setup = vault.setup(&db, spec).await;
        Self { db, vault, setup }
    }

    /// The same, with a forwarder between leasehold and Vault.
    pub(crate) async fn forwarded(self) -> Forwarded {
        let fault = self.vault.forwarder().await;
        Forwarded { backends: self, fault }
    }

    /// A second role for the same database, with a login of its own.
    pub(crate) async fn another(&self, spec: Spec) -> Setup {
        self.vault.setup(&self.db, spec).await
    }

    /// Changes the TTLs of the role; a lease feels it at its next renewal.
    pub(crate) async fn retune(&mut self, ttl: &str, max_ttl: &str) {
        self.setup.retune(&self.db, ttl, max_ttl).await;
    }

    /// Puts the usual creation statements in place of those that the role was made with.
    pub(crate) async fn recreate(&mut self) {
        self.setup.recreate(&self.db).await;
    }

    /// A leasehold between the two, with one route.
    pub(crate) fn leasehold(&self) -> Builder {
        self.without_upstream().upstream(&self.db)
    }

    /// The same, with this forwarder between it and Vault.
    pub(crate) fn leasehold_through(&self, vault: &Fault) -> Builder {
        leasehold().upstream(&self.db).vault(&through(&self.vault, vault)).login(&self.setup)
    }

    /// A leasehold with one route whose upstream is at this URI.
    pub(crate) fn leasehold_at(&self, uri: &str) -> Builder {
        self.without_upstream().upstream_uri(uri)
    }

    /// A leasehold without its upstream yet.
    pub(crate) fn without_upstream(&self) -> Builder {
        leasehold().vault(&self.vault).login(&self.setup)
    }

    /// A leasehold without its login yet.
    pub(crate) fn without_login(&self) -> Builder {
        leasehold().upstream(&self.db).vault(&self.vault)
    }

    /// A leasehold whose routes are in this file.
    pub(crate) fn with_file(&self, toml: &str) -> Builder {
        leasehold().vault(&self.vault).approle(&self.setup).config_toml(toml)
    }
}

/// Backends whose Vault leasehold reaches by way of a forwarder, which counts what is asked.
pub(crate) struct Forwarded {
    backends: Backends,
    pub(crate) fault: Fault,
}

impl Forwarded {
    /// On the shared PostgreSQL and the shared Vault.
    pub(crate) async fn new(spec: Spec) -> Self {
        Backends::new(spec).await.forwarded().await
    }

    /// On the shared PostgreSQL and this Vault.
    pub(crate) async fn with_vault(vault: Vault, spec: Spec) -> Self {
        Backends::with_vault(vault, spec).await.forwarded().await
    }

    /// A leasehold between the two, with one route.
    pub(crate) fn leasehold(&self) -> Builder {
        self.without_login().login(&self.setup)
    }

    /// A leasehold with one route whose upstream is at this URI.
    pub(crate) fn leasehold_at(&self, uri: &str) -> Builder {
        self.reached().login(&self.setup).upstream_uri(uri)
    }

    /// A leasehold without its login yet.
    pub(crate) fn without_login(&self) -> Builder {
        self.reached().upstream(&self.db)
    }

    /// A leasehold whose routes are in this file.
    pub(crate) fn with_file(&self, toml: &str) -> Builder {
        self.reached().approle(&self.setup).config_toml(toml)
    }

    fn reached(&self) -> Builder {
        leasehold().vault(&through(&self.vault, &self.fault))
    }

    /// How many requests with this in their first lines have come.
    pub(crate) fn asked(&self, words: &str) -> usize {
        self.fault.asked().iter().filter(|asked| asked.line.contains(words)).count()
    }
}

impl Deref for Forwarded {
    type Target = Backends;

    fn deref(&self) -> &Backends {
        &self.backends
    }
}

impl DerefMut for Forwarded {
    fn deref_mut(&mut self) -> &mut Backends {
        &mut self.backends
    }
}
