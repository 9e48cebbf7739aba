//! Sends nothing: leasehold was built without the feature. Floor 5.

use super::Settings;
use crate::traces::Traces;

/// It cannot.
#[derive(Debug, thiserror::Error)]
#[error("this leasehold is built without the feature otlp")]
pub(crate) struct Error;

/// There is none.
pub(crate) enum Sender {}

impl Sender {
    /// # Errors
    /// Always.
    pub(crate) fn new(_settings: &Settings) -> Result<Self, Error> {
        Err(Error)
    }

    /// What begins the spans that are sent.
    #[must_use]
    pub(crate) fn traces(&self) -> Traces {
        match *self {}
    }

    /// Sends from now on.
    #[must_use]
    pub(crate) fn start(self) -> Sending {
        match self {}
    }
}

/// There is none.
pub(crate) enum Sending {}

impl Sending {
    /// Sends what is left.
    pub(crate) async fn finish(self, _insisted: impl Future<Output = ()>) {
        match self {}
    }
}
