//! What others see of a route: its log, its metrics, its status. Floor 3.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Driver;
use crate::clock;
use crate::credentials::requests::meaning;
use crate::credentials::status::LastError;
use crate::credentials::view::{self, GenerationView};
use crate::lease::{Failure, Note, Reason};
use crate::metrics::Closed;
use crate::time::Time;
use crate::{metrics, vault};

/// What an error is about; its opposite is a success of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Area {
    /// A fresh credential: login, issuance, proof. What ends by a fresh one belongs here.
    Credential,
    Renewal,
    TokenRenewal,
    Revocation,
}

fn area_of(kind: &str) -> Area {
    let replaced = ["cannot_extend", "gone", "token_dead"].iter().any(|word| kind.ends_with(word));
    match kind.split(':').next() {
        Some("renew" | "renew the token") if replaced => Area::Credential,
        Some("renew") => Area::Renewal,
        Some("renew the token") => Area::TokenRenewal,
        Some("revoke" | "revoke the token") => Area::Revocation,
        _ => Area::Credential,
    }
}

impl Driver {
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Issuing(reason) => tracing::info!(reason = reason.as_str(), "a fresh credential is needed"),
            Note::Published { number, reason, proved, successor } => {
                if proved {
                    self.requests.grant_was_of_use(true);
                }
                if successor {
                    self.metrics.rotated(reason.as_str());
                }
                if proved {
                    tracing::info!(lease.generation = number.get(), reason = reason.as_str(), "published");
                } else {
                    tracing::warn!(
                        lease.generation = number.get(),
                        reason = reason.as_str(),
                        "published unproved: no server could be asked, and it cannot wait"
                    );
                }
                self.works_again(Area::Credential);
                self.replaces.clear();
                // Neither is the fresh credential that an operator asked for.
                if !matches!(reason, Reason::TakenUp | Reason::Standby) {
                    self.rotated(number);
                }
            }
            Note::StandsBy(number) => {
                self.requests.grant_was_of_use(true);
                self.works_again(Area::Credential);
                tracing::info!(lease.generation = number.get(), "stands by");
            }
            Note::Renewed { number, lease, capped } => {
                self.metrics.renewal(if capped { metrics::Renewal::Capped } else { metrics::Renewal::Ok });
                self.works_again(Area::Renewal);
                tracing::info!(
                    lease.generation = number.get(),
                    lease.ttl_s = lease.as_secs(),
                    capped,
                    "renewed"
                );
                if capped {
                    tracing::info!(
                        lease.generation = number.get(),
                        "the lease nears its max TTL and is not renewed again"
                    );
                }
            }
            Note::TokenEnding(_) => {
                tracing::info!("the token is not renewed again; what it owns ends with it")
            }
            Note::Lost(number) => {
                tracing::warn!(lease.generation = number.get(), "the lease is gone before its end");
                self.remember("lease lost");
            }
            Note::TokenOfNoUse(_) => {
                tracing::warn!(
                    "no fresh credential: the token at hand ends too soon for one; hand over one that lives longer"
                );
                self.requests.vault.login_was_of_use(false);
                self.remember("issue: the token ends too soon");
            }
            Note::TooShort(number) => {
                tracing::error!(
                    lease.generation = number.get(),
                    "the lease, or its token, is too short to be of use and is given back: raise its TTL"
                );
                self.requests.grant_was_of_use(false);
                self.remember("issue: the lease is too short to be of use");
            }
            Note::CandidateRefused(number) => {
                tracing::error!(
                    lease.generation = number.get(),
                    "no server accepts the new credential; it is given back: check the role's creation_statements, and \
                     the clocks; once that is mended, `leasehold rotate` tries at once"
                );
                self.requests.grant_was_of_use(false);
                self.remember("prove: the server refuses the new credential");
            }
            Note::NotTakenUp(number) => {
                tracing::warn!(
                    lease.generation = number.get(),
                    "no server accepts the credential of the process before this one; a fresh one is issued"
                );
            }
            Note::Closing(number, cause) => {
                let sessions = self.generations.get(&number).map_or(0, |g| g.sessions());
                tracing::info!(
                    lease.generation = number.get(),
                    cause = Closed::from(cause).as_str(),
                    sessions,
                    "ends: its sessions are closed"
                );
            }
            Note::Returned(number, outcome) => self.returned(number, outcome),
            Note::Recalled(number) => {
                tracing::warn!(
                    lease.generation = number.get(),
                    "serves new sessions again: its successor is gone"
                );
            }
            Note::WantedAgain(number) => {
                tracing::debug!(
                    lease.generation = number.get(),
                    "serves new sessions again: a session has come"
                );
            }
        }
    }

    pub(super) fn failed(&self, what: &'static str, failure: &vault::Failure) {
        tracing::warn!(error = %failure, error.blame = failure.blame().as_str(), "could not {what}");
        self.remember_failure(what, failure);
    }

    pub(super) fn remember_failure(&self, what: &'static str, failure: &vault::Failure) {
        self.remember(&format!("{what}: {}", failure.summary()));
    }

    /// A refusal that is not transient lets the process count as started.
    pub(super) fn refused(&self, failure: &vault::Failure) {
        if !matches!(meaning(failure), Failure::Transient | Failure::TimedOut) {
            self.shared.was_refused.store(true, Ordering::Release);
        }
    }

    pub(super) fn remember(&self, kind: &str) {
        if let Ok(mut view) = self.shared.view.lock() {
            view.last_error = Some(LastError { at: view::wall_now(), kind: kind.to_owned(), past: false });
        }
    }

    /// Something has worked: an earlier error of that area is past.
    pub(super) fn works_again(&self, area: Area) {
        if let Ok(mut view) = self.shared.view.lock()
            && let Some(error) = view.last_error.as_mut().filter(|error| area_of(&error.kind) == area)
        {
            error.past = true;
        }
    }

    /// Brings the picture that others see up to date. Nothing is decided by it.
    pub(super) fn show(&self) {
        let now = clock::now();
        let runs_until = self.machine.runs_until(now);
        self.shared.is_refused.store(self.machine.is_refused(), Ordering::Release);
        let (next_action, at) = self.machine.next_action();
        let mut counts = [("candidate", 0), ("standby", 0), ("current", 0), ("retiring", 0), ("lost", 0)];
        let mut ends = 0.0;
        let generations: Vec<GenerationView> = self
            .machine
            .rows()
            .into_iter()
            .filter_map(|row| {
                counts.iter_mut().filter(|(state, _)| *state == row.state).for_each(|(_, count)| *count += 1);
                if row.state == "current" {
                    ends = view::unix_seconds(now, row.lease_ends_at);
                }
                Some(GenerationView { generation: Arc::clone(self.generations.get(&row.number)?), row })
            })
            .collect();
        for (state, count) in counts {
            self.metrics.generations(state, count);
        }
        let runway = match runs_until {
            Some(Time::NEVER) => f64::INFINITY,
            until => until.map_or(0.0, |until| until.since(now).as_secs_f64()),
        };
        // A route that is not meant to have a credential is no reason for an alarm.
        let is_wanted = self.machine.is_wanted();
        self.metrics.lease_runway(is_wanted.then_some(runway));
        self.metrics.lease_ends(is_wanted.then_some(ends));
        if let Ok(mut view) = self.shared.view.lock() {
            view.runs_until = runs_until;
            view.is_wanted = is_wanted;
            view.barred = self.entry.barred();
            view.next_action = (next_action, (at != Time::NEVER).then_some(at));
            view.generations = generations;
        }
    }
}
