//! Counters for each minute. Floor 6.

use std::time::Duration;

use super::scenario::BEGIN;
use super::servers::{KINDS, Kind};
use crate::time::Time;

/// The counters of one minute, or of a bin of another length.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Minute {
    /// Requests sent, by kind.
    pub(super) sent: [u32; KINDS],
    /// Of these, requests that failed.
    pub(super) failed: u32,
    /// Of these, requests over the quota.
    pub(super) too_many: u32,
    /// Logins at PostgreSQL to prove a credential.
    pub(super) proofs: u32,
    /// Roles created, less roles dropped.
    pub(super) roles: i32,
    /// Sidecars that lost their last usable credential, less those that got one.
    pub(super) unserved: i32,
    /// Generations whose sessions were closed by the end of their lease.
    pub(super) cut: u32,
}

/// The counters of a simulation.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    /// The length of a bin.
    bin: Duration,
    pub(super) minutes: Vec<Minute>,
    /// The time from the start of each sidecar to its first credential, in milliseconds.
    pub(super) ready_after: Vec<u32>,
    /// The most roles that one sidecar has had at once.
    pub(super) most_roles: u32,
    /// The number of broken promises, and the first few.
    pub(super) broken: u64,
    pub(super) first_broken: Vec<String>,
    /// The number of events that machines have handled.
    pub(super) events: u64,
}

impl Tally {
    pub(super) fn new(span: Duration, bin: Duration) -> Self {
        let minutes = usize::try_from(span.as_nanos() / bin.as_nanos().max(1)).unwrap_or(0) + 1;
        Self {
            bin,
            minutes: vec![Minute::default(); minutes],
            ready_after: Vec::new(),
            most_roles: 0,
            broken: 0,
            first_broken: Vec::new(),
            events: 0,
        }
    }

    /// The bin of this time. A time beyond the end belongs to the last bin.
    pub(super) fn at(&mut self, at: Time) -> &mut Minute {
        let index =
            usize::try_from(at.since(BEGIN).as_nanos() / self.bin.as_nanos().max(1)).unwrap_or(usize::MAX);
        let last = self.minutes.len().saturating_sub(1);
        #[expect(
            clippy::indexing_slicing,
            reason = "there is always one minute, and the index is bounded by the last"
        )]
        &mut self.minutes[index.min(last)]
    }

    pub(super) fn sent(&mut self, at: Time, kind: Kind) {
        if let Some(count) = self.at(at).sent.get_mut(kind as usize) {
            *count += 1;
        }
    }

    pub(super) fn broke(&mut self, at: Time, sidecar: u32, what: &str) {
        self.broken += 1;
        if self.first_broken.len() < 5 {
            self.first_broken
                .push(format!("{:?} after the beginning, sidecar {sidecar}: {what}", at.since(BEGIN)));
        }
    }

    /// Adds the counters of another tally.
    pub(super) fn add(&mut self, other: &Self) {
        for (minute, more) in self.minutes.iter_mut().zip(&other.minutes) {
            for (sent, more) in minute.sent.iter_mut().zip(&more.sent) {
                *sent += more;
            }
            minute.failed += more.failed;
            minute.too_many += more.too_many;
            minute.proofs += more.proofs;
            minute.roles += more.roles;
            minute.unserved += more.unserved;
            minute.cut += more.cut;
        }
        self.ready_after.extend(&other.ready_after);
        self.most_roles = self.most_roles.max(other.most_roles);
        self.broken += other.broken;
        self.first_broken.extend(other.first_broken.iter().cloned());
        self.first_broken.truncate(5);
        self.events += other.events;
    }
}
