//! What is told of a fleet before it is simulated: the sidecars, Vault, PostgreSQL, and what befalls them. Floor 6.

use std::time::Duration;

use crate::time::Time;

/// When a simulation begins. The machines take zero for "not yet" here and there.
pub(super) const BEGIN: Time = Time::from_nanos(3_600_000_000_000);

/// Everything that a simulation is told by.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(super) name: &'static str,
    /// What it is about, in a sentence.
    pub(super) about: &'static str,
    pub(super) sidecars: u32,
    pub(super) span: Duration,
    pub(super) seed: u64,
    pub(super) roles: Roles,
    pub(super) starts: Starts,
    /// Restarts of a share of the fleet, in thousandths.
    pub(super) deploy: Option<(Window, u64)>,
    /// When everybody is told to rotate.
    pub(super) rotation: Option<Duration>,
    pub(super) standby: bool,
    pub(super) lazy: Option<Lazy>,
    pub(super) vault: Capacity,
    pub(super) faults: Vec<(Window, Fault)>,
    /// How long what is counted together lasts.
    pub(super) bin: Duration,
    /// The figures of the calm are taken from here on.
    pub(super) settled_after: Duration,
}

/// What Vault's and PostgreSQL's administrators have set.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    pub(super) lease: Duration,
    pub(super) max_lease: Duration,
    /// The token's TTL; it can be renewed for ever (`token_period`).
    pub(super) token: Duration,
    /// The longest life of a pooled connection, which a session has.
    pub(super) connection: Duration,
}

/// When the sidecars start.
#[derive(Clone, Copy, Debug)]
pub(super) enum Starts {
    /// Evenly spread over this span, as a fleet that has grown.
    Grown(Duration),
    /// All within this span.
    Within(Duration),
}

/// How the pods of lazy routes use them: once every so often, for so long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lazy {
    pub(super) every: Duration,
    pub(super) use_for: Duration,
    pub(super) idle_after: Duration,
}

/// What Vault can do.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// Creds requests a second, beyond which it answers 429.
    pub(super) quota: Option<u32>,
    /// What the 429 asks for; nothing, by default.
    pub(super) retry_after: Option<Duration>,
    /// How much longer everything takes than on the machine that was measured, in thousandths.
    pub(super) slower: u64,
}

/// From the beginning of the simulation on.
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

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody listens at Vault's address.
    Away,
    /// Every answer is that Vault is sealed.
    Sealed,
    /// A cluster changes its leader.
    FailingOver,
    /// PostgreSQL is away: for clients, for proofs, and for Vault.
    PostgresAway,
    /// The policy allows neither creds nor renewals.
    WrongPolicy,
}

impl Scenario {
    /// Its name on the command line.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.name
    }

    /// Whether this is wrong at this time.
    pub(super) fn has(&self, fault: Fault, at: Time) -> bool {
        self.faults.iter().any(|(window, f)| *f == fault && window.holds(at))
    }

    /// From when on this is right again, at or after this time.
    pub(super) fn without(&self, fault: Fault, at: Time) -> Time {
        let windows = self.faults.iter().filter(|(_, f)| *f == fault);
        windows.filter(|(window, _)| window.holds(at)).map(|(window, _)| window.ends_at()).fold(at, Time::max)
    }

    /// When the next fault begins, after this time, that keeps Vault from answering.
    pub(super) fn next_absence(&self, at: Time) -> Time {
        let absences = self.faults.iter().filter(|(_, fault)| is_absence(*fault));
        absences.map(|(window, _)| window.begins_at()).filter(|from| *from > at).min().unwrap_or(Time::NEVER)
    }

    /// Whether Vault answers nothing of use at this time.
    pub(super) fn is_absent(&self, at: Time) -> Option<Fault> {
        self.faults
            .iter()
            .find(|(window, fault)| is_absence(*fault) && window.holds(at))
            .map(|(_, fault)| *fault)
    }

    /// The beginnings and ends of all that befalls the fleet.
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
