//! Looks all the time for what must never be, from three sides: `/status`, `pg_stat_activity`, `pg_roles`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Tally;
use super::session::{End, wall};
use crate::harness::{Database, Leasehold, Session};

/// The sessions that leasehold closed, and how far apart things were.
#[derive(Default)]
pub(crate) struct Watch {
    closes: Mutex<Vec<(String, SystemTime)>>,
    figures: Mutex<Figures>,
}

/// What was seen on the way.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) looks: u64,
    pub(crate) most_generations: usize,
    pub(crate) most_roles: usize,
    /// Closes that could be compared with what `/status` said before and after.
    pub(crate) closes: u64,
    /// The least time between a close and the end of its lease.
    pub(crate) latest_close: Option<Duration>,
}

/// A generation as `/status` showed it.
#[derive(Clone, Copy, Debug)]
struct Sighting {
    retired: bool,
    drain_at: Option<SystemTime>,
    ends_at: SystemTime,
    renewals: u64,
}

impl Watch {
    /// A session that this side did not end.
    pub(crate) fn closed(&self, end: &End) {
        if let Some(word) = &end.word {
            self.closes.lock().unwrap().push((end.role.clone(), word.at));
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        *self.figures.lock().unwrap()
    }

    /// Looks until stopped.
    pub(crate) async fn run(
        self: Arc<Self>,
        db: Arc<Database>,
        leasehold: Arc<Leasehold>,
        tally: Arc<Tally>,
        stop: CancellationToken,
    ) {
        let session = db.server.superuser(db.name()).await;
        let mut known = Known::default();
        while !stop.is_cancelled() {
            // First the closes, then the status: what is still current then had no successor at the close.
            let closes = std::mem::take(&mut *self.closes.lock().unwrap());
            let roles = db.roles().await;
            let now = sightings(&leasehold.status().await);
            for (role, at) in closes {
                match known.judge(&role, at, &now) {
                    Ok(before_end) => self.count(before_end),
                    Err(why) => tally.fault(format!("a session of {role} was closed {why}")),
                }
            }
            {
                let mut figures = self.figures.lock().unwrap();
                figures.looks += 1;
                figures.most_generations = figures.most_generations.max(now.len());
                figures.most_roles = figures.most_roles.max(roles.len());
            }
            known.see(now);
            for role in known.left_behind(&roles) {
                tally.fault(format!("the role {role} is there, and no generation has it"));
            }
            for _ in 0..8 {
                for orphan in orphans(&session).await {
                    tally.fault(format!("{orphan} outlived its role"));
                }
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
    }

    fn count(&self, before_end: Option<Duration>) {
        let mut figures = self.figures.lock().unwrap();
        if let Some(left) = before_end {
            figures.closes += 1;
            figures.latest_close = Some(figures.latest_close.map_or(left, |least| least.min(left)));
        }
    }
}

/// What earlier looks have shown.
#[derive(Default)]
struct Known {
    latest: BTreeMap<String, Sighting>,
    /// Roles that no generation had at the latest look, and since when.
    without: BTreeMap<String, Instant>,
}

impl Known {
    /// Whether a session of this role may have been closed at that time; how long before its lease's end, where that
    /// is known.
    fn judge(
        &self,
        role: &str,
        at: SystemTime,
        now: &BTreeMap<String, Sighting>,
    ) -> Result<Option<Duration>, String> {
        let (before, after) = (self.latest.get(role), now.get(role));
        let Some(last) = after.or(before) else { return Ok(None) };
        if after.is_some_and(|after| !after.retired && at + SLACK < after.ends_at) {
            return Err(format!("though it had no successor: {last:?}"));
        }
        // A renewal in between has moved the window: then the earlier one is that of the close.
        let windows = [before, after]
            .into_iter()
            .flatten()
            .filter_map(|seen| seen.drain_at.map(|at| at.min(seen.ends_at)));
        let renewed = before.zip(after).is_some_and(|(before, after)| before.renewals != after.renewals);
        match windows.min() {
            Some(window) if at + SLACK < window && !renewed => {
                Err(format!("before its drain window, at {at:?}: {before:?}, {after:?}"))
            }
            Some(_) => Ok((last.ends_at + HARD_CLOSE_LEAD).duration_since(at).ok().or(Some(Duration::ZERO))),
            None => Ok(None),
        }
    }

    fn see(&mut self, now: BTreeMap<String, Sighting>) {
        self.latest = now;
    }

    /// Roles that have been without a generation for longer than Vault takes to make or to drop them.
    fn left_behind(&mut self, roles: &[String]) -> Vec<String> {
        let without: BTreeSet<&String> =
            roles.iter().filter(|role| !self.latest.contains_key(*role)).collect();
        self.without.retain(|role, _| without.contains(role));
        for role in without {
            self.without.entry(role.clone()).or_insert_with(Instant::now);
        }
        let old = self.without.iter().filter(|(_, since)| since.elapsed() > VAULT_TAKES);
        let left: Vec<_> = old.map(|(role, _)| role.clone()).collect();
        self.without.retain(|role, _| !left.contains(role));
        left
    }
}

fn sightings(status: &Value) -> BTreeMap<String, Sighting> {
    let generations = status["routes"][0]["generations"].as_array().cloned().unwrap_or_default();
    let time = |value: &Value| value.as_str().map(|text| humantime::parse_rfc3339(text).unwrap());
    let sighting = |generation: &Value| Sighting {
        retired: generation["state"] == "retiring",
        drain_at: time(&generation["drain_at"]),
        ends_at: time(&generation["ends_at"]).unwrap_or_else(wall),
        renewals: generation["renewals"].as_u64().unwrap(),
    };
    let named = |generation: &Value| generation["username"].as_str().unwrap().to_owned();
    generations.iter().map(|generation| (named(generation), sighting(generation))).collect()
}

/// Sessions whose role has been dropped.
async fn orphans(session: &Session) -> Vec<String> {
    let mut found = Vec::new();
    for suspect in session.query(WITHOUT_A_ROLE, &[]).await.unwrap() {
        let (pid, role): (i32, u32) = (suspect.get(0), suspect.get(1));
        // Sessions are listed as they are, roles as they were when the statement began: a role may only just have been
        // made. The ids of roles that were dropped do not come back.
        let made = "SELECT FROM pg_roles WHERE oid = $1";
        if session.query_opt(made, &[&role]).await.unwrap().is_none() {
            found.push(format!("backend {pid} of role {role}"));
        }
    }
    found
}

const WITHOUT_A_ROLE: &str = "SELECT a.pid, a.usesysid FROM pg_stat_activity a
                               WHERE a.datname = current_database() AND a.backend_type = 'client backend'
                                 AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.oid = a.usesysid)";

/// `/status` is in milliseconds, and counts each time from a reading of the wall clock of its own.
const SLACK: Duration = Duration::from_millis(100);
/// From the hard close, which `/status` shows, to the end of a lease shorter than 40 s.
const HARD_CLOSE_LEAD: Duration = Duration::from_secs(3);
/// Longer than Vault takes to make a role or to drop it, on a machine that stands still for a moment.
const VAULT_TAKES: Duration = Duration::from_secs(15);
