//! Checks the promises P2 to P7 of `docs/guarantees.md` at each step of each sidecar. Floor 6.
//!
//! The checks are those of the random worlds of `lease::tests`, applied to the leases of this simulation.

use std::time::Duration;

use super::{Context, Sidecar};
use crate::fleet::scenario::Fault;
use crate::lease::{Action, Cause, Ending, GenerationId};
use crate::time::Time;

/// A hard close begins at least this long before the end of the lease.
const LEAD: Duration = Duration::from_millis(1_900);
/// Vault's whole seconds, and a little network time.
const ROUNDING: Duration = Duration::from_millis(1_050);
/// The window in which requests without a good answer are counted, besides those that were in flight.
const FAILURES_WITHIN: Duration = Duration::from_secs(1);

impl Sidecar {
    /// Checks that an action of the machine keeps the promises.
    pub(super) fn watch(&self, context: &mut Context<'_>, action: Action) {
        let now = context.now;
        let broken = match action {
            Action::Publish(number) if self.truth.ends_at(number) <= now => {
                "P2: a credential is published whose lease has ended"
            }
            Action::RevokeLease(number, _) if self.published == Some(number) => {
                "P2: a credential is revoked and published"
            }
            Action::RevokeLease(number, _) if self.has_sessions(number) => {
                "P4: a lease is revoked under its sessions"
            }
            Action::RevokeToken(id) if self.owns_sessions(id) => "P4: a token is revoked under its sessions",
            Action::Forget(number) if self.is_left_behind(number, now) => {
                "P6: a lease is forgotten that lives and is not given back"
            }
            _ => return,
        };
        context.tally.broke(now, self.number, broken);
    }

    fn owns_sessions(&self, token: crate::lease::TokenId) -> bool {
        self.role.generations().any(|(number, g)| g.token() == token && self.has_sessions(number))
    }

    fn is_left_behind(&self, number: GenerationId, now: Time) -> bool {
        self.truth.is_left(number, now + ROUNDING)
    }

    /// Checks that a notice to sessions is allowed.
    pub(super) fn watch_ending(&self, context: &mut Context<'_>, number: GenerationId, ending: Ending) {
        let now = context.now;
        let true_end = self.truth.ends_at(number);
        let was_closing = self.held.iter().any(|held| held.number == number && held.is_closing);
        let has_successor = self.held.iter().any(|held| held.number > number && held.was_published)
            || self.role.current().is_some_and(|current| current > number);
        let broken = match (ending.drain_from, ending.closing) {
            (Some(_), _) if self.role.current() == Some(number) => "P3: the current credential is drained",
            (Some(_), _) if !has_successor => "P3: sessions are drained without a successor",
            (_, Some(closing)) if was_closing => {
                let _ = closing;
                return;
            }
            (_, Some(closing)) if closing.cause == Cause::LeaseEnd && now + EARLIEST < true_end => {
                "P3: sessions are closed long before the end of their lease"
            }
            (_, Some(closing)) if closing.cause == Cause::Lost && true_end > now => {
                "P3: sessions are closed as lost, and their lease lives"
            }
            (_, Some(closing)) if closing.cause == Cause::CutShort => "P3: nobody has cut it short",
            (_, Some(closing))
                if closing.cause == Cause::LeaseEnd
                    && (now + LEAD > true_end || closing.gone_by > true_end + ROUNDING) =>
            {
                "P4: sessions are closed too late"
            }
            _ => return,
        };
        context.tally.broke(now, self.number, broken);
    }

    /// Checks the state at the end of each step.
    pub(super) fn look(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        if self.published.is_some_and(|number| self.truth.ends_at(number) <= now) {
            context.tally.broke(now, self.number, "P2: what is published has ended");
        }
        if self.published.is_none() && self.role.runs_until(now).is_some() && !self.is_closing {
            let stands_in = self.role.generations().any(|(_, generation)| generation.may_stand_in());
            if stands_in {
                context.tally.broke(
                    now,
                    self.number,
                    "P7: there is a usable credential, and none is published",
                );
            }
        }
        let is_unserved =
            self.is_running && !self.is_closing && self.role.is_wanted() && self.published.is_none();
        match (self.unserved_since, is_unserved) {
            (None, true) => {
                self.unserved_since = Some(now);
                context.tally.at(now).unserved += 1;
            }
            (Some(_), false) => {
                self.unserved_since = None;
                context.tally.at(now).unserved -= 1;
            }
            _ => {}
        }
        self.truth.forget(|number| self.held.iter().any(|held| held.number == number), now);
    }

    /// Records that a request that was sent at `sent_at` failed.
    pub(super) fn watch_failures(&mut self, context: &mut Context<'_>, sent_at: Time) {
        self.failed_at.rotate_left(1);
        if let Some(last) = self.failed_at.last_mut() {
            *last = sent_at;
        }
        let oldest = self.failed_at.iter().min().copied().unwrap_or(sent_at);
        let is_absent = context.scenario.is_absent(sent_at).is_some()
            && !context.scenario.has(Fault::PostgresAway, sent_at);
        if is_absent && oldest > Time::from_nanos(0) && sent_at < oldest + FAILURES_WITHIN {
            context.tally.broke(
                context.now,
                self.number,
                "P7: more than five requests a second of a Vault that fails",
            );
        }
    }
}

/// The margin of a lease, and the lead of a cancel request.
const EARLIEST: Duration = Duration::from_secs(7);
