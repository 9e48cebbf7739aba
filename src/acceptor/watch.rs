//! Reads certificates again when their files have changed, without a command of the operator. Floor 2.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::files::Stamps;
use super::{Acceptor, InForce};
use crate::error::Chain;

impl Acceptor {
    /// Checks the files every [`LOOK_EVERY`], for as long as it is polled. Changed files are read once two checks in a
    /// row find the same state, since certificate and key are written one after the other. Files that cannot be used
    /// are logged once, and the certificates in force stay.
    ///
    /// A file system that hangs blocks only this task and one thread.
    pub(crate) async fn watch(self: Arc<Self>) {
        let mut latest: Option<Stamps> = None;
        let mut refused: Option<Stamps> = None;
        loop {
            sleep(LOOK_EVERY).await;
            let Some(before) = self.in_force() else { continue };
            let settings = before.settings.clone();
            let Ok(stamps) = spawn_blocking(move || Stamps::of(&settings)).await else { continue };
            let settled = latest.replace(stamps.clone()).is_some_and(|earlier| earlier == stamps);
            if !settled || stamps == before.stamps || refused.as_ref() == Some(&stamps) {
                continue;
            }
            let of = Arc::clone(&before);
            let read = spawn_blocking(move || InForce::reread(&of.settings, Some(&of)));
            match read.await {
                Ok(Ok(fresh)) => {
                    let said = fresh.describe();
                    if self.succeed(&before, fresh) {
                        tracing::info!(
                            "the certificate files for clients have changed and are read again: {said}"
                        );
                    }
                }
                Ok(Err(error)) => {
                    tracing::error!(
                        error = %Chain(&error),
                        "the certificate files for clients have changed and cannot be used: the earlier ones stay"
                    );
                    refused = Some(stamps);
                }
                Err(_) => {}
            }
        }
    }
}

/// Kubernetes updates a mounted Secret within about a minute.
const LOOK_EVERY: Duration = Duration::from_secs(3);
