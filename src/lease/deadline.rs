//! When a role has to be looked at again, and what for. Floor 1.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// The reasons why a role is reviewed at a later time, in the order of precedence for equal times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    #[cfg(test)]
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

/// The earliest of a role's deadlines, and of those whose action has a name in the status.
///
/// Each review of a role begins without any, and enters all that is planned.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Deadlines {
    now: Time,
    next: Time,
    /// The next action with a name. What is under way has the present time.
    next_action: Option<(Time, Deadline)>,
}

impl Deadlines {
    /// Nothing is planned yet, as of `now`.
    pub(super) fn new(now: Time) -> Self {
        Self { now, next: Time::NEVER, next_action: None }
    }

    /// Enters this time, if it is in the future.
    pub(super) fn wake(&mut self, deadline: Deadline, at: Time) {
        if at > self.now && at < Time::NEVER {
            self.next = at.min(self.next);
            self.act(at, deadline);
        }
    }

    /// The action of this deadline is under way.
    pub(super) fn is_under_way(&mut self, deadline: Deadline) {
        self.act(self.now, deadline);
    }

    fn act(&mut self, at: Time, deadline: Deadline) {
        if deadline.action().is_some() && self.next_action.is_none_or(|next| (at, deadline) < next) {
            self.next_action = Some((at, deadline));
        }
    }

    /// The earliest; [`Time::NEVER`] if there is none.
    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// The next action and its time. An action that is under way has the present time.
    pub(super) fn next_action(&self) -> (NextAction, Time) {
        let next = self.next_action.and_then(|(at, deadline)| Some((deadline.action()?, at)));
        next.unwrap_or((NextAction::None, Time::NEVER))
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
    fn of_equal_times_the_first_in_order_is_next() {
        for order in [[Deadline::Rotate, Deadline::RenewToken], [Deadline::RenewToken, Deadline::Rotate]] {
            let mut deadlines = Deadlines::new(at(10));
            for deadline in order {
                deadlines.wake(deadline, at(20));
            }
            assert_eq!(deadlines.next_action(), (NextAction::Rotate, at(20)));
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
