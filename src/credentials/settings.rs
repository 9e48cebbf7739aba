//! What a route's driver needs to know. Floor 3.

use std::time::Duration;

use super::state::Origin;
use crate::lease::Settings;
use crate::vault::VaultPath;

/// What a route's driver needs to know.
pub(crate) struct RouteSettings {
    /// The route's name.
    pub(crate) name: String,
    /// Whom and what it is for.
    pub(crate) serves: Serves,
    /// Where credentials are read.
    pub(crate) vault_path: VaultPath,
    /// Whom the login is for; a credential of another one is not taken up.
    pub(crate) login: String,
    /// How long a request may take.
    pub(crate) client_timeout: Duration,
    /// The lease arithmetic.
    pub(crate) lease: Settings,
}

/// Whom a route is for, and where it leads, as the status shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serves {
    /// The user name, or `*`.
    pub(crate) user: String,
    /// The database, or `*`.
    pub(crate) database: String,
    /// The servers, with commas.
    pub(crate) upstream: String,
}

impl RouteSettings {
    pub(super) fn origin(&self) -> Origin {
        Origin { vault_path: self.vault_path.to_string(), login: self.login.clone() }
    }
}
