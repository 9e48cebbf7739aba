//! What a driver asks of Vault: by a client of it, or in tests of a script. Floor 3.

use std::future::Future;
use std::pin::Pin;

use crate::secret::Secret;
use crate::vault::{Bounds, Failure, Grant, Lease, Login, Renewed, StaticCredential, Vault, VaultPath};

/// An answer that is yet to come.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// See the methods of the same names of [`Vault`].
pub(crate) trait VaultClient: Send + Sync {
    fn log_in(&self, bounds: Bounds) -> Answer<'_, Login>;
    fn issue<'a>(&'a self, token: &'a Secret, path: &'a VaultPath, bounds: Bounds) -> Answer<'a, Grant>;
    fn read_static<'a>(
        &'a self,
        token: &'a Secret,
        path: &'a VaultPath,
        bounds: Bounds,
    ) -> Answer<'a, StaticCredential>;
    fn renew<'a>(
        &'a self,
        token: &'a Secret,
        lease: &'a Lease,
        username: &'a str,
        bounds: Bounds,
    ) -> Answer<'a, Renewed>;
    fn renew_token<'a>(&'a self, token: &'a Secret, bounds: Bounds) -> Answer<'a, Renewed>;
    fn revoke<'a>(&'a self, token: &'a Secret, lease: &'a Lease, bounds: Bounds) -> Answer<'a, ()>;
    fn revoke_token<'a>(&'a self, token: &'a Secret, bounds: Bounds) -> Answer<'a, ()>;
    fn has_lease<'a>(&'a self, token: &'a Secret, lease: &'a Lease, bounds: Bounds) -> Answer<'a, bool>;
    fn retry_now(&self, path: &VaultPath);
    fn grant_was_of_use(&self, path: &VaultPath, of_use: bool);
    fn login_was_of_use(&self, of_use: bool);
}

impl VaultClient for Vault {
    fn log_in(&self, bounds: Bounds) -> Answer<'_, Login> {
        Box::pin(Self::log_in(self, bounds))
    }

    fn issue<'a>(&'a self, token: &'a Secret, path: &'a VaultPath, bounds: Bounds) -> Answer<'a, Grant> {
        Box::pin(Self::issue(self, token, path, bounds))
    }

    fn read_static<'a>(
        &'a self,
        token: &'a Secret,
        path: &'a VaultPath,
        bounds: Bounds,
    ) -> Answer<'a, StaticCredential> {
        Box::pin(Self::read_static(self, token, path, bounds))
    }

    fn renew<'a>(
        &'a self,
        token: &'a Secret,
        lease: &'a Lease,
        username: &'a str,
        bounds: Bounds,
    ) -> Answer<'a, Renewed> {
        Box::pin(Self::renew(self, token, lease, username, bounds))
    }

    fn renew_token<'a>(&'a self, token: &'a Secret, bounds: Bounds) -> Answer<'a, Renewed> {
        Box::pin(Self::renew_token(self, token, bounds))
    }

    fn revoke<'a>(&'a self, token: &'a Secret, lease: &'a Lease, bounds: Bounds) -> Answer<'a, ()> {
        Box::pin(Self::revoke(self, token, lease, bounds))
    }

    fn revoke_token<'a>(&'a self, token: &'a Secret, bounds: Bounds) -> Answer<'a, ()> {
        Box::pin(Self::revoke_token(self, token, bounds))
    }

    fn has_lease<'a>(&'a self, token: &'a Secret, lease: &'a Lease, bounds: Bounds) -> Answer<'a, bool> {
        Box::pin(Self::has_lease(self, token, lease, bounds))
    }

    fn retry_now(&self, path: &VaultPath) {
        Self::retry_now(self, path);
    }

    fn grant_was_of_use(&self, path: &VaultPath, of_use: bool) {
        Self::grant_was_of_use(self, path, of_use);
    }

    fn login_was_of_use(&self, of_use: bool) {
        Self::login_was_of_use(self, of_use);
    }
}
