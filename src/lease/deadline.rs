//! When a role has to be looked at again, and what for. Floor 1.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The reasons why a role is reviewed at a later time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// The back-off after a failed issuance ends, and a credential is requested again.
    Issue,
    /// The limit of grants out of turn allows the next grant.
    IssueLimit,
    /// A standby credential is requested.
    IssueStandby,
    /// The back-off after a failed issuance ends, and no credential is needed yet.
    BackOff,
    /// A credential is proved again.
    Proof,
    /// A published credential that no server has let in is proved.
    ProvePublished,
    /// A candidate that no server could judge is published without a proof.
    PublishUnproved,
    /// A successor is requested.
    Rotate,
    /// A lease is renewed.
    RenewLease,
    /// A token is renewed.
    RenewToken,
    /// A static role's password is read.
    Read,
    /// The drain of a retired generation begins.
    Drain,
    /// The hard close of a published generation begins.
    HardClose,
    /// A lazy route has had no session for its idle time.
    Idle,
    /// A credential that was never published ends.
    UnusedEnd,
    /// No server lags behind a publication any more.
    ReplicaGrace,
    /// The revocation of a lease is tried again.
    RevokeLease,
    /// A lease that is being given back expires.
    Lapse,
    /// The revocation of a token is tried again.
    RevokeToken,
    /// A lease that was revoked with its token is looked up.
    LookUpLease,
}

impl Deadline {
    /// The order of precedence for equal times.
    const ALL: [Self; 20] = [
        Self::Issue,
        Self::IssueLimit,
        Self::IssueStandby,
        Self::BackOff,
        Self::Proof,
        Self::ProvePublished,
        Self::PublishUnproved,
        Self::Rotate,
        Self::RenewLease,
        Self::RenewToken,
        Self::Read,
        Self::Drain,
        Self::HardClose,
        Self::Idle,
        Self::UnusedEnd,
        Self::ReplicaGrace,
        Self::RevokeLease,
        Self::Lapse,
        Self::RevokeToken,
        Self::LookUpLease,
    ];

    /// The name in the status. `None` for an action on a credential that serves no session any more, or without effect
    /// on sessions.
    fn action(self) -> Option<NextAction> {
        match self {
            Self::Issue | Self::IssueLimit | Self::IssueStandby => Some(NextAction::Issue),
            Self::Proof => Some(NextAction::Prove),
            Self::PublishUnproved | Self::Rotate => Some(NextAction::Rotate),
            Self::RenewLease | Self::RenewToken => Some(NextAction::Renew),
            Self::Read => Some(NextAction::Read),
            Self::Drain => Some(NextAction::Drain),
            Self::HardClose | Self::Idle => Some(NextAction::End),
            Self::BackOff
            | Self::ProvePublished
            | Self::UnusedEnd
            | Self::ReplicaGrace
            | Self::RevokeLease
            | Self::Lapse
            | Self::RevokeToken
            | Self::LookUpLease => None,
        }
    }
}

/// The next action of a route by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NextAction {
    /// A lease or a token is renewed.
    Renew,
    /// A successor of the current credential is requested, or published.
    Rotate,
    /// A credential is requested.
    Issue,
    /// A credential is proved.
    Prove,
    /// A static role's password is read.
    Read,
    /// The sessions of a retired generation begin to be closed between transactions.
    Drain,
    /// The sessions of a generation are closed, even within a transaction; or a lazy route gives its credential back.
    End,
    /// Nothing is planned.
    #[default]
    None,
}

impl NextAction {
    /// The name in the status.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Rotate => "rotate",
            Self::Issue => "issue",
            Self::Prove => "prove",
            Self::Read => "read",
            Self::Drain => "drain",
            Self::End => "end",
            Self::None => "none",
        }
    }
}

/// A table of deadlines: the earliest time for each, and whether its action is under way.
///
/// Each review of a role begins with an empty table, and enters all that is planned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Deadlines {
    now: Time,
    entries: [Entry; Deadline::ALL.len()],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    at: Time,
    is_under_way: bool,
}

impl Deadlines {
    /// An empty table, as of `now`.
    pub(super) fn new(now: Time) -> Self {
        Self { now, entries: [Entry { at: Time::NEVER, is_under_way: false }; Deadline::ALL.len()] }
    }

    /// Enters this time, if it is in the future.
    pub(super) fn wake(&mut self, deadline: Deadline, at: Time) {
        if at > self.now
            && let Some(entry) = self.entries.get_mut(deadline as usize)
        {
            entry.at = entry.at.min(at);
        }
    }

    /// The action of this deadline is under way.
    pub(super) fn is_under_way(&mut self, deadline: Deadline) {
        if let Some(entry) = self.entries.get_mut(deadline as usize) {
            entry.is_under_way = true;
        }
    }

    /// The earliest; [`Time::NEVER`] in an empty table.
    pub(super) fn next(&self) -> Time {
        self.entries.iter().map(|entry| entry.at).min().unwrap_or(Time::NEVER)
    }

    /// The next action and its time. An action that is under way has the present time.
    pub(super) fn next_action(&self) -> (NextAction, Time) {
        let all = Deadline::ALL.iter().zip(&self.entries);
        let times = all.filter_map(|(deadline, entry)| {
            let at = if entry.is_under_way { self.now } else { entry.at };
            Some((deadline.action()?, at))
        });
        let first = times.filter(|(_, at)| *at != Time::NEVER).min_by_key(|(_, at)| *at);
        first.unwrap_or((NextAction::None, Time::NEVER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn the_earliest_time_of_each_is_kept() {
        let mut deadlines = Deadlines::new(at(10));
        assert_eq!(deadlines.next(), Time::NEVER);
        assert_eq!(deadlines.next_action(), (NextAction::None, Time::NEVER));
        for second in [40, 30, 50, 10, 5] {
            deadlines.wake(Deadline::RenewLease, at(second));
        }
        deadlines.wake(Deadline::HardClose, at(35));
        assert_eq!(deadlines.next(), at(30));
        assert_eq!(deadlines.next_action(), (NextAction::Renew, at(30)));
    }

    #[test]
    fn what_is_under_way_is_done_now_and_wakes_nobody() {
        let mut deadlines = Deadlines::new(at(10));
        deadlines.wake(Deadline::RenewLease, at(30));
        deadlines.is_under_way(Deadline::Issue);
        assert_eq!(deadlines.next(), at(30));
        assert_eq!(deadlines.next_action(), (NextAction::Issue, at(10)));
    }

    #[test]
    fn what_is_done_with_credentials_that_serve_nobody_is_no_next_action() {
        let mut deadlines = Deadlines::new(at(10));
        for deadline in Deadline::ALL.into_iter().filter(|deadline| deadline.action().is_none()) {
            deadlines.wake(deadline, at(20));
        }
        assert_eq!(deadlines.next(), at(20));
        assert_eq!(deadlines.next_action(), (NextAction::None, Time::NEVER));
    }

    #[test]
    fn each_has_a_place_of_its_own() {
        for (place, deadline) in Deadline::ALL.into_iter().enumerate() {
            assert_eq!(deadline as usize, place, "{deadline:?}");
        }
    }

    #[test]
    fn the_word_in_the_status_is_the_one_that_is_serialized() {
        for deadline in Deadline::ALL {
            let action = deadline.action().unwrap_or_default();
            assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
        }
    }
}
