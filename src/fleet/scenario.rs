//! The input of a simulation: the sidecars, Vault, PostgreSQL, and the faults. Floor 6.

use std::time::Duration;

use crate::time::Time;

/// When a simulation begins. It is not zero, since the machines use zero as "not yet" in some places.
pub(super) const BEGIN: Time = Time::from_nanos(3_600_000_000_000);

/// The input of a simulation.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(super) name: &'static str,
    /// A description in one sentence.
    pub(super) about: &'static str,
    pub(super) sidecars: u32,
    pub(super) span: Duration,
    pub(super) seed: u64,
    pub(super) roles: Roles,
    pub(super) starts: Starts,
    /// The time of restarts, and the share of the fleet that restarts, in thousandths.
    pub(super) deploy: Option<(Window, u64)>,
    /// When all sidecars get the command to rotate.
    pub(super) rotation: Option<Duration>,
    pub(super) standby: bool,
    pub(super) lazy: Option<Lazy>,
    pub(super) vault: Capacity,
    pub(super) faults: Vec<(Window, Fault)>,
    /// The length of a bin in which events are counted.
    pub(super) bin: Duration,
    /// The figures of the calm begin after this time.
    pub(super) settled_after: Duration,
}

/// The settings of Vault's and PostgreSQL's administrators.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub(super) lease: Duration,
    pub(super) max_lease: Duration,
    /// The token's TTL. The token can be renewed without limit (`token_period`).
    pub(super) token: Duration,
    /// The maximum lifetime of a pooled connection, and so of a session.
    pub(super) connection: Duration,
}

/// When the sidecars start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Starts {
    /// Evenly over this span, as in a fleet that has grown.
    Grown(Duration),
    /// All start within this span.
    Within(Duration),
}

/// How pods use lazy routes: how often, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lazy {
    pub(super) every: Duration,
    pub(super) use_for: Duration,
    pub(super) idle_after: Duration,
}

/// The capacity of Vault.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// The quota of creds requests a second, beyond which Vault answers 429.
    pub(super) quota: Option<u32>,
    /// The `Retry-After` of a 429; there is none by default.
    pub(super) retry_after: Option<Duration>,
    /// How much longer each request takes than on the measured machine, in thousandths.
    pub(super) slower: u64,
}

/// A span of time, relative to the beginning of the simulation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Duration,
    pub(super) lasts: Duration,
}

impl Window {
    pub(super) fn begins_at(self) -> Time {
        BEGIN + self.from
    }

    pub(super) fn ends_at(self) -> Time {
        BEGIN + self.from + self.lasts
    }

    pub(super) fn holds(self, at: Time) -> bool {
        at >= self.begins_at() && at < self.ends_at()
    }
}

/// A fault of Vault or PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No server listens on Vault's address.
    Away,
    /// Vault answers each request that it is sealed.
    Sealed,
    /// A Vault cluster changes its leader.
    FailingOver,
    /// PostgreSQL cannot be reached by clients, proofs or Vault.
    PostgresAway,
    /// The policy allows neither creds requests nor renewals.
    WrongPolicy,
}

impl Scenario {
    /// The name on the command line.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    /// Whether this fault is present at this time.
    pub(super) fn has(&self, fault: Fault, at: Time) -> bool {
        self.faults.iter().any(|(window, f)| *f == fault && window.holds(at))
    }

    /// The first time, at or after `at`, without this fault.
    pub(super) fn without(&self, fault: Fault, at: Time) -> Time {
        let windows = self.faults.iter().filter(|(_, f)| *f == fault);
        windows.filter(|(window, _)| window.holds(at)).map(|(window, _)| window.ends_at()).fold(at, Time::max)
    }

    /// The beginning of the next fault after this time that keeps Vault from answering.
    pub(super) fn next_absence(&self, at: Time) -> Time {
        let absences = self.faults.iter().filter(|(_, fault)| is_absence(*fault));
        absences.map(|(window, _)| window.begins_at()).filter(|from| *from > at).min().unwrap_or(Time::NEVER)
    }

    /// The fault that keeps Vault from useful answers at this time, if there is one.
    pub(super) fn is_absent(&self, at: Time) -> Option<Fault> {
        self.faults
            .iter()
            .find(|(window, fault)| is_absence(*fault) && window.holds(at))
            .map(|(_, fault)| *fault)
    }

    /// The beginnings and ends of all faults and events.
    pub(super) fn turning_points(&self) -> Vec<Time> {
        let deploy = self.deploy.map(|(window, _)| window);
        let all = self.faults.iter().map(|(window, _)| *window).chain(deploy);
        all.flat_map(|window| [window.begins_at(), window.ends_at()]).collect()
    }

    pub(super) fn ends_at(&self) -> Time {
        BEGIN + self.span
    }
}

fn is_absence(fault: Fault) -> bool {
    matches!(fault, Fault::Away | Fault::Sealed | Fault::FailingOver)
}
