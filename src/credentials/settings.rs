//! What a route's driver needs to know. Floor 3.

use std::time::Duration;

use super::state::Origin;
use crate::lease::Settings;

/// What a route's driver needs to know.
pub(crate) struct RouteSettings {
    /// The route's name.
    pub(crate) name: String,
    /// `<mount>/creds/<role>`.
    pub(crate) vault_path: String,
    /// Whom the login is for; a credential of another one is not taken up.
    pub(crate) login: String,
    /// How long a request may take.
    pub(crate) client_timeout: Duration,
    /// The lease arithmetic.
    pub(crate) lease: Settings,
    /// A lazy route gives its credential back after this long without a session.
    pub(crate) idle_after: Duration,
}

impl RouteSettings {
    pub(super) fn origin(&self) -> Origin {
        Origin { vault_path: self.vault_path.clone(), login: self.login.clone() }
    }
}
