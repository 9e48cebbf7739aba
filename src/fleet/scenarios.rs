//! The scenarios of `docs/fleet.md`. Floor 6.

use std::time::Duration;

use super::scenario::{Capacity, Fault, Lazy, Roles, Scenario, Starts, Window};

/// The size of the fleet, and the simulated time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) sidecars: u32,
    pub(crate) span: Duration,
    pub(crate) seed: u64,
}

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
/// The time for the fleet to grow and settle before any event.
const SETTLED: Duration = Duration::from_hours(12);

/// All scenarios.
#[must_use]
pub(crate) fn all(size: Size) -> Vec<Scenario> {
    let mut all = vec![plain(size)];
    all.extend(starts(size));
    all.extend(faults(size));
    all.extend(settings(size));
    all
}

/// The scenario of `benches/fleet_processes.py`, which uses real processes: leases of a minute, a common start, a seal,
/// a rotation.
#[must_use]
pub(crate) fn processes(size: Size) -> Scenario {
    Scenario {
        name: "processes",
        about: "A few processes with leases of a minute: their start, a seal, a rotation.",
        span: 6 * MINUTE,
        roles: Roles { connection: Duration::from_secs(1), ..roles(MINUTE, 10 * MINUTE) },
        starts: Starts::Within(Duration::from_secs(1)),
        faults: vec![(Window { from: 2 * MINUTE, lasts: MINUTE / 3 }, Fault::Sealed)],
        rotation: Some(4 * MINUTE),
        bin: Duration::from_secs(5),
        settled_after: Duration::ZERO,
        ..plain(size)
    }
}

fn starts(size: Size) -> [Scenario; 3] {
    let restart = Scenario {
        name: "restart",
        about: "All pods start within a minute.",
        starts: Starts::Within(MINUTE),
        settled_after: 2 * HOUR,
        ..plain(size)
    };
    let quota = Scenario {
        name: "quota",
        about: "All pods start within a minute, and Vault grants less than they ask for, at most 50 credentials a second.",
        vault: Capacity {
            // A small fleet, too, asks for more.
            quota: Some((size.sidecars / 80).clamp(1, 50)),
            retry_after: Some(Duration::from_secs(1)),
            ..restart.vault.clone()
        },
        ..restart.clone()
    };
    let deploy = Scenario {
        name: "deploy",
        about: "A tenth of the pods is replaced within ten minutes.",
        deploy: Some((Window { from: SETTLED, lasts: 10 * MINUTE }, 100)),
        ..plain(size)
    };
    [restart, quota, deploy]
}

fn faults(size: Size) -> [Scenario; 7] {
    let hit = |name, about, fault, lasts| Scenario {
        name,
        about,
        faults: vec![(Window { from: SETTLED, lasts }, fault)],
        ..plain(size)
    };
    [
        hit("away-10m", "Nobody listens at Vault's address for 10 minutes.", Fault::Away, 10 * MINUTE),
        hit("away-1h", "Nobody listens at Vault's address for an hour.", Fault::Away, HOUR),
        hit(
            "away-3h",
            "Nobody listens at Vault's address for three TTLs of the leases.",
            Fault::Away,
            3 * HOUR,
        ),
        hit("sealed", "Vault is sealed for 10 minutes.", Fault::Sealed, 10 * MINUTE),
        hit("failover", "Vault's cluster changes its leader, in 15 seconds.", Fault::FailingOver, MINUTE / 4),
        hit("postgres", "PostgreSQL is away for an hour.", Fault::PostgresAway, HOUR),
        hit(
            "policy",
            "A policy that allows neither creds nor renewals is in force for 20 minutes.",
            Fault::WrongPolicy,
            20 * MINUTE,
        ),
    ]
}

fn settings(size: Size) -> [Scenario; 5] {
    let plain = plain(size);
    [
        Scenario {
            name: "ttl-5m",
            about: "Leases of 5 minutes.",
            roles: roles(5 * MINUTE, HOUR),
            ..plain.clone()
        },
        Scenario {
            name: "ttl-24h",
            about: "Leases of 24 hours.",
            roles: roles(24 * HOUR, 7 * 24 * HOUR),
            ..plain.clone()
        },
        Scenario { name: "standby", about: "A second credential stands by.", standby: true, ..plain.clone() },
        Scenario {
            name: "standby-away",
            about: "A second credential stands by, and Vault is away for half an hour.",
            standby: true,
            faults: vec![(Window { from: SETTLED, lasts: HOUR / 2 }, Fault::Away)],
            ..plain.clone()
        },
        Scenario {
            name: "lazy",
            about: "Lazy routes, used for 5 minutes every 4 hours.",
            lazy: Some(Lazy { every: 4 * HOUR, use_for: 5 * MINUTE, idle_after: 5 * MINUTE }),
            ..plain
        },
    ]
}

fn roles(lease: Duration, max_lease: Duration) -> Roles {
    Roles { lease, max_lease, token: lease, connection: Duration::from_mins(20).min(lease / 3) }
}

/// A fleet that has grown over a day, with the TTLs of `docs/vault.md`.
fn plain(size: Size) -> Scenario {
    Scenario {
        name: "steady",
        about: "A fleet that has grown, and nothing happens.",
        sidecars: size.sidecars,
        span: size.span,
        seed: size.seed,
        roles: roles(HOUR, 24 * HOUR),
        starts: Starts::Grown(SETTLED - 2 * HOUR),
        deploy: None,
        rotation: None,
        standby: false,
        lazy: None,
        vault: Capacity { quota: None, retry_after: None, slower: 1000 },
        faults: Vec::new(),
        bin: MINUTE,
        settled_after: SETTLED,
    }
}
