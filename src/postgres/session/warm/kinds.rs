//! The warm and the returned sessions for each kind of equivalent clients: how many exist, and how many are wanted.
//! Floor 4.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Alike, LoggedIn};
use crate::lease::GenerationId;
use crate::time::Time;

/// The kinds of clients of a route.
#[derive(Default)]
pub(super) struct Kinds {
    /// In the order of their latest clients; the most recent kind is last.
    kinds: Vec<Kind>,
    last_id: u64,
    /// No warm session is logged in before this time.
    paused_until: Option<Time>,
}

struct Kind {
    alike: Arc<Alike>,
    /// The number of sessions that are wanted ahead of need.
    wanted: usize,
    /// The number of sessions that are being logged in.
    coming: usize,
    /// In the order in which clients get them.
    ready: VecDeque<Ready>,
}

/// A session that waits for a client, in its own task. Dropping this makes the task close the session.
pub(super) struct Ready {
    id: u64,
    /// It was logged in ahead of need, not returned.
    ahead: bool,
    pub(super) generation: GenerationId,
    pub(super) ask: oneshot::Sender<oneshot::Sender<LoggedIn>>,
}

impl Kinds {
    /// Takes a session of this kind: the one that was returned last, or else the one that has waited longest.
    pub(super) fn pop(&mut self, alike: &Alike) -> Option<Ready> {
        self.find(alike)?.ready.pop_front()
    }

    /// Records that a client of this kind came, and whether it found a session. `most` is the limit for all kinds
    /// together.
    pub(super) fn came(&mut self, alike: &Arc<Alike>, most: usize, found: bool) {
        let kind = self.most_recent(alike);
        if !found || kind.wanted == 0 {
            kind.wanted += 1;
        }
        let mut surplus = self.kinds.iter().map(|kind| kind.wanted).sum::<usize>().saturating_sub(most);
        for kind in &mut self.kinds {
            let fewer = surplus.min(kind.wanted);
            surplus -= fewer;
            kind.wanted -= fewer;
            if fewer > 0 {
                kind.keep_ahead(kind.wanted.saturating_sub(kind.coming));
            }
        }
        self.forget_unwanted();
    }

    /// The number of sessions of this kind to log in now. They count as `coming` from then on.
    pub(super) fn begin_missing(&mut self, alike: &Alike, now: Time) -> usize {
        if self.paused_until.is_some_and(|until| now < until) {
            return 0;
        }
        let Some(kind) = self.find(alike) else { return 0 };
        let missing = kind.wanted.saturating_sub(kind.coming + kind.ready.len());
        kind.coming += missing;
        missing
    }

    /// Records that a session is logged in. Returns its id, and the channel on which a client asks for it. `None`: it
    /// is not wanted any more.
    pub(super) fn is_ready(
        &mut self,
        alike: &Alike,
        generation: GenerationId,
    ) -> Option<(u64, oneshot::Receiver<oneshot::Sender<LoggedIn>>)> {
        let id = self.next_id();
        let kind = self.find(alike)?;
        kind.coming = kind.coming.saturating_sub(1);
        if kind.ready.len() >= kind.wanted {
            self.forget_unwanted();
            return None;
        }
        let (ask, asked) = oneshot::channel();
        kind.ready.push_back(Ready { id, ahead: true, generation, ask });
        Some((id, asked))
    }

    /// Records that a session was returned, and is ready for the next client of this kind. Returns its id, and the channel
    /// on which a client asks for it. If more than `most` are ready then, a session of the kind whose last client is
    /// longest ago is not kept any more.
    pub(super) fn is_returned(
        &mut self,
        alike: &Arc<Alike>,
        most: usize,
        generation: GenerationId,
    ) -> (u64, oneshot::Receiver<oneshot::Sender<LoggedIn>>) {
        let id = self.next_id();
        let (ask, asked) = oneshot::channel();
        self.most_recent(alike).ready.push_front(Ready { id, ahead: false, generation, ask });
        if self.kinds.iter().map(|kind| kind.ready.len()).sum::<usize>() > most
            && let Some(oldest) = self.kinds.iter_mut().find(|kind| !kind.ready.is_empty())
        {
            oldest.ready.pop_back();
            self.forget_unwanted();
        }
        (id, asked)
    }

    /// The id of another session.
    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Makes this kind the most recent one.
    fn most_recent(&mut self, alike: &Arc<Alike>) -> &mut Kind {
        let at = self.kinds.iter().position(|kind| kind.alike == *alike);
        let kind = at.map_or_else(
            || Kind { alike: Arc::clone(alike), wanted: 0, coming: 0, ready: VecDeque::new() },
            |at| self.kinds.remove(at),
        );
        self.kinds.push_mut(kind)
    }

    /// Records that a login failed. No other login is tried before `again_at`.
    pub(super) fn has_failed(&mut self, alike: &Alike, again_at: Time) {
        if let Some(kind) = self.find(alike) {
            kind.coming = kind.coming.saturating_sub(1);
        }
        self.paused_until = self.paused_until.max(Some(again_at));
        self.forget_unwanted();
    }

    /// Removes a session that cannot be used any more, if it is still there. It is replaced.
    pub(super) fn has_left(&mut self, alike: &Alike, id: u64) {
        if let Some(kind) = self.find(alike) {
            kind.ready.retain(|ready| ready.id != id);
        }
        self.forget_unwanted();
    }

    /// Removes a session that no client took. It is not replaced.
    pub(super) fn was_not_needed(&mut self, alike: &Alike, id: u64) {
        self.has_left(alike, id);
        if let Some(kind) = self.find(alike) {
            kind.wanted = kind.wanted.saturating_sub(1);
        }
        self.forget_unwanted();
    }

    /// Removes all kinds. No session is logged in before `again_at`, and then only for new clients.
    pub(super) fn clear(&mut self, again_at: Time) {
        self.kinds.clear();
        self.paused_until = self.paused_until.max(Some(again_at));
    }

    fn find(&mut self, alike: &Alike) -> Option<&mut Kind> {
        self.kinds.iter_mut().find(|kind| *kind.alike == *alike)
    }

    fn forget_unwanted(&mut self) {
        self.kinds.retain(|kind| kind.wanted + kind.coming + kind.ready.len() > 0);
    }
}

impl Kind {
    /// Keeps this number of the sessions that were logged in ahead of need, and all that were returned.
    fn keep_ahead(&mut self, most: usize) {
        let mut kept = 0;
        self.ready.retain(|ready| {
            kept += usize::from(ready.ahead);
            !ready.ahead || kept <= most
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::postgres::protocol::startup::StartupMessage;

    const NOW: Time = Time::from_nanos(1_000_000_000);

    fn alike(user: &str) -> Arc<Alike> {
        let startup = StartupMessage::new(0).with(b"user", user.as_bytes());
        Alike::of(&startup, None, b"app").unwrap()
    }

    fn log_in(kinds: &mut Kinds, alike: &Alike) -> Vec<oneshot::Receiver<oneshot::Sender<LoggedIn>>> {
        let missing = kinds.begin_missing(alike, NOW);
        (0..missing)
            .filter_map(|_| kinds.is_ready(alike, GenerationId::FIRST))
            .map(|(_, asked)| asked)
            .collect()
    }

    #[test]
    fn the_number_follows_demand_up_to_the_most() {
        let (mut kinds, app) = (Kinds::default(), alike("app"));
        let mut waiting = Vec::new();
        for missed in 1..=5 {
            kinds.came(&app, 3, false);
            waiting.append(&mut log_in(&mut kinds, &app));
            assert_eq!(waiting.len(), missed.min(3));
        }
        assert!(kinds.pop(&app).is_some());
        kinds.came(&app, 3, true);
        assert_eq!(kinds.begin_missing(&app, NOW), 1, "one was taken");
        kinds.has_failed(&app, NOW + Duration::from_secs(1));
        assert_eq!(kinds.begin_missing(&app, NOW), 0, "it failed just now");
        assert_eq!(kinds.begin_missing(&app, NOW + Duration::from_secs(1)), 1);
    }

    #[test]
    fn what_nobody_came_for_is_not_replaced() {
        let (mut kinds, app) = (Kinds::default(), alike("app"));
        kinds.came(&app, 3, false);
        assert_eq!(kinds.begin_missing(&app, NOW), 1);
        let (id, _asked) = kinds.is_ready(&app, GenerationId::FIRST).unwrap();
        kinds.was_not_needed(&app, id);
        assert_eq!(kinds.begin_missing(&app, NOW), 0);
        assert!(kinds.kinds.is_empty());
    }

    #[test]
    fn a_new_kind_takes_the_place_of_the_one_that_nobody_came_for_longest() {
        let (mut kinds, old, new) = (Kinds::default(), alike("old"), alike("new"));
        kinds.came(&old, 1, false);
        let mut of_old = log_in(&mut kinds, &old).pop().unwrap();
        kinds.came(&new, 1, false);
        assert!(of_old.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert_eq!(log_in(&mut kinds, &new).len(), 1);
        assert!(kinds.pop(&old).is_none());
    }

    #[test]
    fn a_new_kind_leaves_what_was_returned() {
        let (mut kinds, old, new) = (Kinds::default(), alike("old"), alike("new"));
        kinds.came(&old, 1, false);
        let mut ahead = log_in(&mut kinds, &old).pop().unwrap();
        let (_, mut returned) = kinds.is_returned(&old, 64, GenerationId::FIRST);
        kinds.came(&new, 1, false);
        assert!(returned.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        assert!(ahead.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    }

    #[test]
    fn of_too_many_returned_sessions_the_oldest_kind_loses_one() {
        let (mut kinds, old, new) = (Kinds::default(), alike("old"), alike("new"));
        let (_, mut of_old) = kinds.is_returned(&old, 1, GenerationId::FIRST);
        let (_, mut of_new) = kinds.is_returned(&new, 1, GenerationId::FIRST);
        assert!(of_old.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
        assert!(of_new.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
    }

    #[test]
    fn clients_that_differ_in_a_byte_are_not_alike() {
        let (one, other) = (alike("app"), alike("apq"));
        assert!(one != other && one == alike("app"));
        let base = StartupMessage::new(0).with(b"user", b"app");
        for (name, value) in [(&b"replication"[..], &b"database"[..]), (b"_pq_.command_tag", b"1")] {
            assert!(Alike::of(&base.clone().with(name, value), None, b"app").is_none());
        }
    }
}
