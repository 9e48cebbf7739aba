//! A route that needs a credential and has none: said when it begins, and again while it lasts. Floor 3.

use std::time::Duration;

use super::Driver;
use crate::time::Time;

/// How long no credential has been usable, and when that was said last.
#[derive(Default)]
pub(super) struct Unserved {
    has_served: bool,
    since: Option<Time>,
    said_at: Option<Time>,
}

/// A fresh credential mostly comes by then, and a login waits as long.
const SAID_AFTER: Duration = Duration::from_secs(10);
const SAID_EVERY: Duration = Duration::from_mins(1);

impl Driver {
    pub(super) fn tell_of_no_service(&mut self, now: Time) {
        let serves = self.publish.borrow().is_some();
        if serves || self.closing || !self.machine.is_wanted() {
            self.unserved = Unserved { has_served: serves, ..Unserved::default() };
            return;
        }
        if self.unserved.since.is_none() && self.unserved.has_served {
            tracing::warn!("the last usable credential is gone: new sessions wait for a fresh one");
        }
        let since = *self.unserved.since.get_or_insert(now);
        let due = self.unserved.said_at.map_or(since + SAID_AFTER, |at| at + SAID_EVERY);
        if now >= due {
            self.unserved.said_at = Some(now);
            let last_error = self
                .shared
                .view
                .lock()
                .ok()
                .and_then(|view| view.last_error.as_ref().map(|error| error.kind.clone()))
                .unwrap_or_default();
            tracing::error!(
                for_s = now.since(since).as_secs(),
                last_error,
                "no usable credential: new sessions are refused"
            );
        }
    }
}
