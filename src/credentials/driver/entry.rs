//! Whether sessions can log in with what is published, as far as proofs and logins have shown. Floor 3.
//!
//! A credential that was published without a proof is proved again until a server has let it in: a route that nobody
//! uses learns in this way too that the credential before it is not needed any more.

use std::time::Duration;

use super::Driver;
use crate::clock;
use crate::credentials::requests::{Obstacle, Proof};
use crate::credentials::status::LastError;
use crate::credentials::view;
use crate::lease::{Event, GenerationId};
use crate::time::Time;

/// What is known of the servers' doors.
#[derive(Default)]
pub(super) struct Entry {
    /// Why no session can log in.
    barred: Option<Barred>,
    /// When a server has last let in a credential of this route, by a proof or a session.
    accepted_at: Option<Time>,
    again: Option<Again>,
}

struct Barred {
    since: Time,
    error: LastError,
}

/// The proof of a published generation.
struct Again {
    number: GenerationId,
    tries: u32,
    /// `None` while it is under way.
    at: Option<Time>,
}

impl Entry {
    /// Why no session can log in.
    pub(super) fn barred(&self) -> Option<LastError> {
        self.barred.as_ref().map(|barred| barred.error.clone())
    }

    /// Takes in what a proof has shown.
    pub(super) fn note(&mut self, now: Time, proof: &Proof) {
        let reason = match proof {
            Proof::Unprovable(Obstacle::Unsuitable(reason)) => reason,
            // What once let a credential in will do so again without a change here.
            Proof::Unprovable(Obstacle::Lasting(reason)) if self.accepted_at.is_none() => reason,
            Proof::Accepted { .. } | Proof::Refused | Proof::Lags | Proof::Unprovable(_) => return,
        };
        let error = LastError { at: view::wall_now(), kind: format!("prove: {reason}"), past: false };
        self.barred = Some(Barred { since: now, error });
    }
}

impl Driver {
    /// Takes in which generations servers have let in, and proves again what has not been.
    pub(super) fn look_for_entry(&mut self, now: Time) {
        let newly: Vec<GenerationId> = self
            .generations
            .values()
            .filter(|generation| generation.accepted_at().is_some())
            .map(|generation| generation.number())
            .filter(|number| !self.machine.is_accepted(*number))
            .collect();
        for number in newly {
            self.step(Event::Accepted(number));
        }
        let latest = self.generations.values().filter_map(|generation| generation.accepted_at()).max();
        self.entry.accepted_at = self.entry.accepted_at.max(latest);
        if self.entry.barred.as_ref().is_some_and(|barred| Some(barred.since) < self.entry.accepted_at) {
            self.entry.barred = None;
        }
        self.prove_published(now);
    }

    fn prove_published(&mut self, now: Time) {
        let is_due =
            |number: &GenerationId| self.entry.barred.is_some() || !self.machine.is_accepted(*number);
        let Some(number) = self.machine.current().filter(is_due) else {
            self.entry.again = None;
            return;
        };
        let again = match &mut self.entry.again {
            Some(again) if again.number == number => again,
            again => again.insert(Again { number, tries: 0, at: Some(now + FIRST_PAUSE) }),
        };
        if again.at.is_some_and(|at| at <= now)
            && let Some(generation) = self.generations.get(&number)
        {
            again.at = None;
            self.requests.prove_later(
                number,
                generation.username().to_owned(),
                generation.password().clone(),
            );
        }
    }

    /// The proof of a published generation has ended.
    pub(super) fn proved_later(&mut self, number: GenerationId, proof: &Proof) {
        let now = clock::now();
        self.entry.note(now, proof);
        if let Some(again) = self.entry.again.as_mut().filter(|again| again.number == number) {
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(again.tries.min(LONGEST_PAUSE_AFTER));
            again.at = Some(now + pause);
            again.tries = again.tries.saturating_add(1);
        }
        if let (Proof::Accepted { address }, Some(generation)) = (proof, self.generations.get(&number)) {
            tracing::info!(lease.generation = number.get(), "what is published is proved");
            generation.accepted_by(address);
        }
    }
}

const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Half a minute and no longer.
const LONGEST_PAUSE_AFTER: u32 = 5;
