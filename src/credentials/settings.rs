//! What a route's driver needs to know. Floor 3.

use std::time::Duration;

use super::state::Origin;
use crate::lease::Settings;
use crate::vault::VaultPath;

/// What a route's driver needs to know.
pub(crate) struct RouteSettings {
    /// The route's name.
    pub(crate) name: String,
    /// Where credentials are read.
    pub(crate) vault_path: VaultPath,
    /// Whom the login is for; a credential of another one is not taken up.
    pub(crate) login: String,
    /// How long a request may take.
    pub(crate) client_timeout: Duration,
    /// The lease arithmetic.
    pub(crate) lease: Settings,
}

impl RouteSettings {
    pub(super) fn origin(&self) -> Origin {
        Origin { vault_path: self.vault_path.to_string(), login: self.login.clone() }
    }
}
