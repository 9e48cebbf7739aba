//! How a check ends early: the signals that it heeds, and what is then still out. Floor 6.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::finding::Finding;
use crate::shutdown::is_ignored;
use crate::time::Time;

/// The signals that end a check in order. SIGHUP is left alone where the process was started with it ignored, as by
/// nohup.
pub(super) struct Interrupts(Vec<Signal>);

impl Interrupts {
    pub(super) fn install() -> Self {
        let hangup = Some(SignalKind::hangup()).filter(|hangup| !is_ignored(*hangup));
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::quit()];
        Self(kinds.into_iter().chain(hangup).filter_map(|kind| signal(kind).ok()).collect())
    }

    /// Waits for the next; for ever where none can be waited for.
    pub(super) async fn next(&mut self) {
        poll_fn(|cx| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if came { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// The credentials that are out, by their route.
#[derive(Default)]
pub(super) struct Out(Mutex<BTreeMap<String, Known>>);

/// What is known of a credential that was asked for.
enum Known {
    /// No answer yet: there may be one.
    Asked,
    /// When its lease ends by what Vault said last.
    Until { username: String, ends_at: Time },
}

impl Out {
    pub(super) fn asked(&self, route: &str) {
        self.lock().insert(route.to_owned(), Known::Asked);
    }

    pub(super) fn until(&self, route: &str, username: &str, ends_at: Time) {
        self.lock().insert(route.to_owned(), Known::Until { username: username.to_owned(), ends_at });
    }

    pub(super) fn gone(&self, route: &str) {
        self.lock().remove(route);
    }

    pub(super) fn all_gone(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one who would not wait for their return.
    pub(super) fn left(&self, now: Time) -> Vec<Finding> {
        let left = self.lock();
        let finding = |(route, known): (&String, &Known)| {
            let (detail, remedy) = match known {
                Known::Asked => (
                    "a credential was asked for, and there was no answer yet".to_owned(),
                    "look for a lease below the route's path in Vault: if there is one, it ends with default_ttl"
                        .to_owned(),
                ),
                Known::Until { username, ends_at } => {
                    let rest = Duration::from_secs(ends_at.since(now).as_secs() + 1);
                    let rest = humantime::format_duration(rest);
                    (
                        format!("told twice to stop: {username} stays until its lease ends, in {rest} at most"),
                        format!("wait for {rest}, or revoke that lease in Vault"),
                    )
                }
            };
            Finding::error("interrupted", detail, remedy).of(route)
        };
        left.iter().map(finding).collect()
    }
}
