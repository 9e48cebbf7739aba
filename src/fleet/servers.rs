//! The model of Vault: the answer to a request, and its time. Floor 6.
//!
//! There are two first-come-first-served queues: the API, and behind it the database requests, which Vault handles one
//! at a time. The times are those of a real OpenBao, see `docs/fleet.md`. A queue is described by its length alone, so
//! an answer is known as soon as its request arrives. A request whose sender has given up before its turn costs
//! nothing.

use std::time::Duration;

use super::scenario::{Fault, Scenario};
use crate::time::Time;

/// The kind of a request to Vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    LogIn,
    LookUp,
    Issue,
    Renew,
    RenewToken,
    Revoke,
    RevokeToken,
    LookUpLease,
    /// Vault's own work: a lease has expired.
    Expire,
}

/// The number of kinds.
pub(super) const KINDS: usize = 9;

impl Kind {
    pub(super) const ALL: [Self; KINDS] = [
        Self::LogIn,
        Self::LookUp,
        Self::Issue,
        Self::Renew,
        Self::RenewToken,
        Self::Revoke,
        Self::RevokeToken,
        Self::LookUpLease,
        Self::Expire,
    ];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LogIn => "logins",
            Self::LookUp => "look-ups of tokens",
            Self::Issue => "credentials",
            Self::Renew => "renewals of leases",
            Self::RenewToken => "renewals of tokens",
            Self::Revoke => "revocations of leases",
            Self::RevokeToken => "revocations of tokens",
            Self::LookUpLease => "look-ups of leases",
            Self::Expire => "expired leases",
        }
    }

    /// The time in the API's queue and in the database's queue, in microseconds.
    fn cost(self) -> (u64, u64) {
        match self {
            Self::LogIn => (530, 0),
            Self::LookUp | Self::LookUpLease => (500, 0),
            Self::RenewToken => (730, 0),
            Self::Issue => (500, 4_830),
            Self::Renew => (500, 980),
            Self::Revoke => (500, 0),
            Self::Expire => (0, 910),
            Self::RevokeToken => (600, 910),
        }
    }
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) at: Time,
    pub(super) sidecar: u32,
    pub(super) task: u32,
    pub(super) kind: Kind,
    /// When the sender closes the connection.
    pub(super) until: Time,
}

/// The answer to a request, with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The request is carried out at this time. The answer arrives a little later.
    Done(Time),
    /// The request is over the quota.
    TooMany(Time),
    /// Vault answers that the database cannot be reached.
    NoDatabase(Time),
    /// The policy forbids the request.
    Forbidden(Time),
    /// Vault is sealed, or has no leader.
    Unavailable(Time, Fault),
    /// No server listens.
    Unreachable(Time),
    /// The connection was established, and then lost.
    Lost(Time),
    /// There is no answer before the sender closes the connection.
    Silence,
    /// Vault will try the revocation of an expired lease again at this time.
    Later(Time),
}

/// A queue with one server.
#[derive(Clone, Copy, Debug)]
struct Queue {
    /// The work in the queue.
    work: Duration,
    at: Time,
    waiting: u32,
    /// How long the server was idle in this window of time.
    idle: Duration,
}

impl Queue {
    fn new() -> Self {
        Self { work: Duration::ZERO, at: Time::from_nanos(0), waiting: 0, idle: Duration::ZERO }
    }

    /// Removes the work that is done by `now`. Requests of one window come in any order; the latest time counts.
    fn drain(&mut self, now: Time) {
        if now > self.at {
            self.idle += now.since(self.at).saturating_sub(self.work);
            let before = self.work;
            self.work = self.work.saturating_sub(now.since(self.at));
            self.at = now;
            let left = self.work.as_nanos().saturating_mul(u128::from(self.waiting));
            self.waiting =
                u32::try_from(left.checked_div(before.as_nanos()).unwrap_or(0)).unwrap_or(u32::MAX);
        }
    }

    /// Adds work, and returns the time until it is done. `None`: its sender gives up before it begins.
    fn enter(&mut self, now: Time, cost: Duration, patience: Duration) -> Option<Duration> {
        // The request comes out of order, and the server was idle for long enough.
        if now < self.at && self.idle >= cost {
            self.idle -= cost;
            return Some(cost);
        }
        self.drain(now);
        if self.work > patience {
            return None;
        }
        self.work += cost;
        self.waiting += 1;
        Some(self.work)
    }

    fn clear(&mut self, now: Time) {
        (self.work, self.waiting) = (Duration::ZERO, 0);
        self.at = self.at.max(now);
    }
}

/// The network time from the sidecar to Vault and back.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(1);
/// Vault's first pause before it repeats a revocation that the database refused.
const REVOKED_AGAIN: Duration = Duration::from_secs(15);

/// The model of Vault.
pub(super) struct Vault {
    api: Queue,
    database: Queue,
    /// The creds requests of the latest seconds: the second, and their number.
    seconds: [(u64, u32); 64],
    cleared_at: Time,
}

impl Vault {
    pub(super) fn new() -> Self {
        Self {
            api: Queue::new(),
            database: Queue::new(),
            seconds: [(0, 0); 64],
            cleared_at: Time::from_nanos(0),
        }
    }

    /// Begins a window of time.
    pub(super) fn begin_window(&mut self) {
        (self.api.idle, self.database.idle) = (Duration::ZERO, Duration::ZERO);
    }

    /// The number of requests in the queue, and how long a new request would wait.
    pub(super) fn queue(&mut self, now: Time) -> (u32, Duration) {
        self.api.drain(now);
        self.database.drain(now);
        (self.api.waiting + self.database.waiting, self.api.work + self.database.work)
    }

    pub(super) fn answer(&mut self, world: &Scenario, call: &Call) -> Answer {
        let now = call.at;
        if call.kind == Kind::Expire {
            return self.expire(world, now);
        }
        let soon = now + ROUND_TRIP;
        match world.is_absent(now) {
            Some(Fault::Away) => return Answer::Unreachable(soon),
            Some(fault) => return Answer::Unavailable(soon, fault),
            None => {}
        }
        self.begin_anew(world, now);
        if call.kind == Kind::Issue && self.is_over_quota(world, now) {
            return Answer::TooMany(soon);
        }
        let patience = call.until.since(now);
        let (api, database) = call.kind.cost();
        let Some(through) = self.api.enter(now, slowed(world, api), patience) else { return Answer::Silence };
        // In the setup of deploy/vault/setup.sh the policy forbids to revoke a lease. Its token is revoked instead.
        let forbidden = call.kind == Kind::Revoke
            || (matches!(call.kind, Kind::Issue | Kind::Renew) && world.has(Fault::WrongPolicy, now));
        let no_database =
            matches!(call.kind, Kind::Issue | Kind::Renew) && world.has(Fault::PostgresAway, now + through);
        let behind = if database == 0 || forbidden || no_database {
            Some(Duration::ZERO)
        } else {
            self.database.enter(now, slowed(world, database), patience.saturating_sub(through))
        };
        let Some(behind) = behind else { return Answer::Silence };
        let done_at = now + through + behind;
        if done_at > world.next_absence(now) {
            return Answer::Lost(world.next_absence(now));
        }
        match (forbidden, no_database) {
            (true, _) => Answer::Forbidden(done_at + ROUND_TRIP),
            (_, true) => Answer::NoDatabase(done_at + ROUND_TRIP),
            _ => Answer::Done(done_at),
        }
    }

    /// Vault revokes an expired lease by itself, as soon as it and the database are available.
    fn expire(&mut self, world: &Scenario, at: Time) -> Answer {
        let mut from = at;
        for fault in [Fault::Away, Fault::Sealed, Fault::FailingOver] {
            from = world.without(fault, from);
        }
        let again = world.without(Fault::PostgresAway, from);
        if again > from {
            from = again + REVOKED_AGAIN;
        }
        if from > at {
            return Answer::Later(from);
        }
        let span = self.database.enter(at, slowed(world, Kind::Expire.cost().1), Duration::MAX);
        Answer::Done(at + span.unwrap_or_default())
    }

    /// A Vault that starts again has empty queues.
    fn begin_anew(&mut self, world: &Scenario, now: Time) {
        let ends = world.faults.iter().map(|(window, _)| window.ends_at()).filter(|end| *end <= now);
        if let Some(end) = ends.max().filter(|end| *end > self.cleared_at) {
            self.cleared_at = end;
            self.api.clear(end);
            self.database.clear(end);
        }
    }

    fn is_over_quota(&mut self, world: &Scenario, now: Time) -> bool {
        let Some(quota) = world.vault.quota else { return false };
        let second = now.as_nanos() / 1_000_000_000;
        let place = usize::try_from(second % 64).unwrap_or(0);
        let Some(entry) = self.seconds.get_mut(place) else { return false };
        if entry.0 != second {
            *entry = (second, 0);
        }
        entry.1 += 1;
        entry.1 > quota
    }
}

fn slowed(world: &Scenario, micros: u64) -> Duration {
    Duration::from_nanos(micros * world.vault.slower)
}
