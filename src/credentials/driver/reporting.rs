//! What others see of a route: its log, its metrics, its status. Floor 3.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Driver;
use super::repetitions::{Line, say};
use crate::clock;
use crate::credentials::requests::meaning;
use crate::credentials::status::LastError;
use crate::credentials::view::{self, GenerationView};
use crate::lease::{Failure, GenerationId, Note, Reason, TokenId};
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
    // What was asked, what it means, and the database's SQLSTATE if there is one.
    let mut parts = kind.split(": ");
    let what = parts.next();
    let replaced = parts.next().is_some_and(|kind| ["cannot_extend", "gone", "token_dead"].contains(&kind));
    match what {
        Some("renew" | "renew the token") if replaced => Area::Credential,
        Some("renew") => Area::Renewal,
        Some("renew the token") => Area::TokenRenewal,
        Some("revoke" | "revoke the token") => Area::Revocation,
        _ => Area::Credential,
    }
}

impl Driver {
    pub(super) fn note(&mut self, note: Note) {
        // A closing was remembered before its sessions were notified.
        if !matches!(note, Note::Closing(..)) {
            self.remember_note(note);
        }
        match note {
            Note::Issuing(reason) => {
                let line = self.line("need", None, reason.as_str());
                say!(line, info, "a fresh credential is needed", reason = reason.as_str());
                self.spans.issuing(reason, self.publish.borrow().is_some());
            }
            Note::Published { number, reason, proved, successor } => {
                self.published(number, reason, proved, successor);
            }
            Note::StandsBy(number) => {
                self.requests.grant_was_of_use(true);
                self.spans.stands_by(number);
                self.works_again(Area::Credential);
                tracing::info!(lease.generation = number.get(), db.user = self.user_of(number), "stands by");
            }
            Note::Renewed { number, lease, capped } => self.renewed(number, lease, capped),
            Note::TokenEnding(_) => {
                tracing::info!("the token is not renewed again; what it owns ends with it")
            }
            Note::Lost(number) => {
                tracing::warn!(
                    lease.generation = number.get(),
                    db.user = self.user_of(number),
                    "the lease is gone before its end"
                );
                self.remember("lease lost");
            }
            Note::TokenOfNoUse(token) => self.token_of_no_use(token),
            Note::TooShort(number) => self.too_short(number),
            Note::CandidateRefused(number) => self.candidate_refused(number),
            Note::NotTakenUp(number) => {
                tracing::warn!(
                    lease.generation = number.get(),
                    db.user = self.user_of(number),
                    "no server accepts the credential of the process before this one; a fresh one is issued"
                );
            }
            Note::Closing(number, cause) => {
                let sessions = self.generations.get(&number).map_or(0, |g| g.sessions());
                tracing::info!(
                    lease.generation = number.get(),
                    db.user = self.user_of(number),
                    cause = Closed::from(cause).as_str(),
                    sessions,
                    "ends: its sessions are closed"
                );
            }
            Note::Returned(number, outcome) => self.returned(number, outcome),
            Note::Recalled(number) => {
                tracing::warn!(
                    lease.generation = number.get(),
                    db.user = self.user_of(number),
                    "serves new sessions again: its successor is gone"
                );
            }
            Note::WantedAgain(number) => {
                tracing::debug!(
                    lease.generation = number.get(),
                    db.user = self.user_of(number),
                    "serves new sessions again: a session has come"
                );
            }
        }
    }

    fn published(&mut self, number: GenerationId, reason: Reason, proved: bool, successor: bool) {
        if proved {
            self.requests.grant_was_of_use(true);
        }
        if successor {
            self.metrics.rotated(reason.as_str());
        }
        let user = self.user_of(number);
        if proved {
            tracing::info!(
                lease.generation = number.get(),
                db.user = user,
                reason = reason.as_str(),
                "published"
            );
        } else {
            tracing::warn!(
                lease.generation = number.get(),
                db.user = user,
                reason = reason.as_str(),
                "published unproved: no server could be asked, and it cannot wait"
            );
        }
        self.spans.published(number, reason, proved, successor);
        self.works_again(Area::Credential);
        self.replaces.clear();
        // A credential that was taken up or stood by answers no `rotate` of an operator.
        if !matches!(reason, Reason::TakenUp | Reason::Standby) {
            self.rotated(number);
        }
    }

    fn renewed(&mut self, number: GenerationId, lease: Duration, capped: bool) {
        self.metrics.renewal(if capped { metrics::Renewal::Capped } else { metrics::Renewal::Ok });
        self.works_again(Area::Renewal);
        let user = self.user_of(number);
        tracing::info!(
            lease.generation = number.get(),
            db.user = user,
            lease.ttl_s = lease.as_secs(),
            capped,
            "renewed"
        );
        if capped {
            tracing::info!(
                lease.generation = number.get(),
                db.user = user,
                "the lease nears its max TTL and is not renewed again"
            );
        }
    }

    fn too_short(&mut self, number: GenerationId) {
        say!(
            self.line("grant", None, "too short"),
            error,
            "the lease, or its token, is too short to be of use and is given back: raise its TTL",
            lease.generation = number.get(),
            db.user = self.user_of(number)
        );
        self.requests.grant_was_of_use(false);
        self.attempt_fails("issue: the lease is too short to be of use");
    }

    fn candidate_refused(&mut self, number: GenerationId) {
        say!(
            self.line("grant", None, "refused"),
            error,
            "no server accepts the new credential; it is given back: check the role's creation_statements, and \
             the clocks; once that is mended, `leasehold rotate` tries at once",
            lease.generation = number.get(),
            db.user = self.user_of(number)
        );
        self.requests.grant_was_of_use(false);
        self.attempt_fails("prove: the server refuses the new credential");
    }

    fn token_of_no_use(&mut self, token: TokenId) {
        say!(
            self.line("token", None, "ends too soon"),
            warn,
            "no fresh credential: the token at hand ends too soon for one; hand over one that lives longer"
        );
        // Another token may be handed over at any moment until the present credential ends. The machine's
        // back-off knows that end, the pace of logins does not.
        if !self.handed.contains(&token) {
            self.requests.vault.login_was_of_use(false);
        }
        self.attempt_fails("issue: the token ends too soon");
    }

    /// `number`: the generation that it is about.
    pub(super) fn failed(
        &mut self,
        what: &'static str,
        number: Option<GenerationId>,
        failure: &vault::Failure,
    ) {
        let (error, reason) = (failure.to_string(), failure.reason());
        let line = self.line(what, number, &reason);
        let (lease, user) = number.map(|number| self.lease_of(number)).unzip();
        say!(
            line,
            warn,
            "could not {what}",
            lease.generation = number.map(GenerationId::get),
            lease.id = lease,
            db.user = user,
            reason = reason,
            error = error,
            error.blame = failure.blame().as_str()
        );
        // Its words are those of the log.
        self.remember_failed(&error);
        let kind = format!("{what}: {}", failure.summary());
        // What grows shorter from try to try is for the status alone: a line or an event of its own would be one a try.
        let outlook = failure.outlook().map(|outlook| format!("; {outlook}")).unwrap_or_default();
        self.remember_in_words(&kind, &format!("{what}: {reason}{outlook}"));
        if let Ok(mut view) = self.shared.view.lock() {
            view.login_waits_until = failure.again_in().map(|wait| clock::now() + wait);
        }
    }

    /// How the line is written that this try has failed for this reason.
    pub(super) fn line(&mut self, what: &'static str, number: Option<GenerationId>, reason: &str) -> Line {
        self.repetitions.line(clock::now(), what, number, reason)
    }

    /// A refusal that is not transient lets the process count as started.
    pub(super) fn refused(&self, failure: &vault::Failure) {
        if !matches!(meaning(failure), Failure::Transient | Failure::TimedOut) {
            self.shared.was_refused.store(true, Ordering::Release);
        }
    }

    fn attempt_fails(&mut self, kind: &str) {
        self.spans.failed(kind);
        // What a server has said of it just before is kept.
        let reason = self.shared.view.lock().ok().and_then(|view| {
            let error = view.last_error.as_ref().filter(|error| error.kind == kind && !error.past)?;
            Some(error.reason.clone())
        });
        self.remember_in_words(kind, reason.as_deref().unwrap_or(kind));
    }

    pub(super) fn remember(&self, kind: &str) {
        self.remember_in_words(kind, kind);
    }

    /// `reason`: the phrase with its cause.
    pub(super) fn remember_in_words(&self, kind: &str, reason: &str) {
        let (at, reason) = (view::wall_now(), reason.to_owned());
        let error = LastError { at, kind: kind.to_owned(), reason, past: false };
        if let Ok(mut view) = self.shared.view.lock() {
            if area_of(kind) == Area::Credential {
                view.credential_error = Some(error.clone());
            }
            view.last_error = Some(error);
        }
    }

    /// Something has worked: an earlier error of that area is past, and the next one is news.
    pub(super) fn works_again(&mut self, area: Area) {
        self.repetitions.forget(|what| area_of(what) == area);
        let Ok(mut view) = self.shared.view.lock() else { return };
        if area == Area::Credential {
            view.credential_error = None;
            view.login_waits_until = None;
        }
        if let Some(error) = view.last_error.as_mut().filter(|error| area_of(&error.kind) == area) {
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
        let (mut ends, mut lease_for) = (0.0, None);
        let generations: Vec<GenerationView> = self
            .machine
            .rows()
            .into_iter()
            .filter_map(|row| {
                counts.iter_mut().filter(|(state, _)| *state == row.state).for_each(|(_, count)| *count += 1);
                if row.state == "current" {
                    ends = view::unix_seconds(now, row.lease_ends_at);
                    lease_for = row.lease_for;
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
        if !is_wanted {
            // Nothing looks at the servers any more.
            self.shared.outage.forget();
        }
        self.look(now, &generations, runs_until, is_wanted);
        self.metrics.lease_runway(is_wanted.then_some(runway));
        self.metrics.lease_ends(is_wanted.then_some(ends));
        self.metrics.lease_duration(lease_for.filter(|_| is_wanted));
        self.metrics.ready(is_wanted.then(|| self.lets_in(now)));
        if let Ok(mut view) = self.shared.view.lock() {
            view.runs_until = runs_until;
            view.is_wanted = is_wanted;
            view.barred = self.entry.barred();
            view.next_action = (next_action, (at != Time::NEVER).then_some(at));
            view.generations = generations;
        }
    }
    /// Whether sessions can log in, as far as is known.
    pub(super) fn lets_in(&self, now: Time) -> bool {
        !self.machine.is_refused()
            && self.entry.barred().is_none()
            && self.publish.borrow().as_ref().is_some_and(|generation| generation.is_usable(now))
    }
}
