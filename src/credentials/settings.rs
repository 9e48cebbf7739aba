//! What a route's driver needs to know. Floor 3.

use std::time::Duration;

use super::state::Origin;
use crate::lease::Settings;
use crate::vault::VaultPath;

/// What a route's driver needs to know.
pub(crate) struct RouteSettings {
    /// The route's name.
    pub(crate) name: String,
    /// Where credentials are read; `None` for a route that is not configured any more, for which nothing is issued.
    pub(crate) vault_path: Option<VaultPath>,
    /// Whom the login is for; a credential of another one is not taken up.
    pub(crate) login: String,
    /// How long a request may take.
    pub(crate) client_timeout: Duration,
    /// The lease arithmetic.
    pub(crate) lease: Settings,
}

impl RouteSettings {
    /// The path as it is shown and saved; empty where there is none.
    pub(super) fn path(&self) -> String {
        self.vault_path.as_ref().map(VaultPath::to_string).unwrap_or_default()
    }

    pub(super) fn origin(&self) -> Origin {
        Origin { vault_path: self.path(), login: self.login.clone() }
    }
}
