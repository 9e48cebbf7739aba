//! The credentials of one route, as logins and operators see them. Floor 3.

use std::sync::Arc;
use std::time::Duration;

use super::Generation;
use super::status::RouteStatus;

/// The handle of a route's driver. Cheap to clone by `Arc`.
pub struct Route {}

/// What a check of a suspect lease said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Vault renewed it: it lives.
    Alive,
    /// Vault could not be asked, or was asked too recently.
    Silent,
    /// It is gone. A fresh one is on its way: [`Route::current`] waits for it.
    Lost,
}

/// No usable credential within the time given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable credential")]
pub struct NoCredential;

/// Why a rotation on command failed. Nothing was drained.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct RotateFailed {
    /// One line, without secrets.
    pub reason: String,
}

impl Route {
    /// The route's name.
    #[must_use]
    pub fn name(&self) -> &str {
        unimplemented!()
    }

    /// The current credential. Waits for one, at most this long.
    ///
    /// # Errors
    /// [`NoCredential`] if there is none by then.
    pub async fn current(&self, _within: Duration) -> Result<Arc<Generation>, NoCredential> {
        unimplemented!()
    }

    /// The latest usable generation before this one, if there is one.
    #[must_use]
    pub fn before(&self, _number: u64) -> Option<Arc<Generation>> {
        unimplemented!()
    }

    /// A login with this generation was refused with 28P01, or 28000 for the role itself: asks Vault whether its lease
    /// lives. However many ask, Vault is asked once, and at most every 5 s.
    pub async fn check(&self, _number: u64) -> Verdict {
        unimplemented!()
    }

    /// This generation was refused twice though its lease seems to live: asks for a fresh one, which is issued at most
    /// once a minute. `None` if it is too early for that, or none came in time.
    pub async fn replace(&self, _number: u64, _within: Duration) -> Option<Arc<Generation>> {
        unimplemented!()
    }

    /// A 42501 or 42704 passed by in a session of this generation: its lease is checked, at most every 30 s.
    pub fn denial_passed_by(&self, _number: u64) {
        unimplemented!()
    }

    /// Issues, proves and publishes a fresh credential now. With `drain` all earlier generations end that long after
    /// publication and are revoked (`DrainSpan::Default`: the route's own drain). Gives the new generation's number.
    ///
    /// # Errors
    /// If no fresh credential could be published; then nothing is drained.
    pub async fn rotate(&self, _drain: Option<DrainSpan>) -> Result<u64, RotateFailed> {
        unimplemented!()
    }

    /// What `/status` shows of the route.
    #[must_use]
    pub fn status(&self) -> RouteStatus {
        unimplemented!()
    }

    /// Whether the route has a usable credential.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        unimplemented!()
    }

    /// Whether the route has had its first credential.
    #[must_use]
    pub fn has_had_credential(&self) -> bool {
        unimplemented!()
    }

    /// Whether Vault has answered the route's first request with a refusal that is not transient.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        unimplemented!()
    }
}

/// How long earlier generations may go on after a rotation on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainSpan {
    /// The route's own drain.
    Default,
    /// This long; zero is at once.
    For(Duration),
}
