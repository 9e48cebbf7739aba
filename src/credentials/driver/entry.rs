//! What proofs and logins show of the servers. The machine decides what follows from it. Floor 3.

use std::collections::HashMap;

use super::Driver;
use super::input::Input;
use crate::credentials::proof::{Obstacle, Proof};
use crate::credentials::status::LastError;
use crate::credentials::view;
use crate::lease::{Barrier, Event, GenerationId};
use crate::time::Time;

/// What has been said of the servers.
#[derive(Default)]
pub(super) struct Entry {
    /// When a server has last let in each generation, as the machine knows it.
    accepted: HashMap<GenerationId, Time>,
    /// Why no session can log in, while the machine says that none can.
    barred: Option<LastError>,
}

impl Entry {
    /// Why no session can log in.
    pub(super) fn barred(&self) -> Option<LastError> {
        self.barred.clone()
    }

    /// No session can log in, for this reason: one line without secrets.
    pub(super) fn bar(&mut self, reason: Option<String>) {
        self.barred = reason.map(|kind| {
            let reason = kind.clone();
            LastError { at: view::wall_now(), kind, reason, past: false }
        });
    }

    /// Sessions can log in again.
    pub(super) fn unbar(&mut self) {
        self.barred = None;
    }

    /// The generation is forgotten.
    pub(super) fn forget(&mut self, number: GenerationId) {
        self.accepted.remove(&number);
    }
}

impl Driver {
    /// Passes on which generations servers have let in since the last time.
    pub(super) fn report_acceptances(&mut self) {
        let known = &self.entry.accepted;
        let newer: Vec<(GenerationId, Time)> = self
            .generations
            .values()
            .filter_map(|generation| Some((generation.number(), generation.accepted_at()?)))
            .filter(|(number, at)| known.get(number).is_none_or(|known| known < at))
            .collect();
        for (number, at) in newer {
            self.entry.accepted.insert(number, at);
            self.step(Event::Accepted(number));
        }
    }

    /// Passes on that a proof has found that no session can log in, if it has. Acceptances before that go first.
    pub(super) fn report_barrier(&mut self, proof: &Proof) {
        self.report_outage(proof);
        let Proof::Unprovable(obstacle) = proof else { return };
        let (barrier, reason) = match obstacle {
            Obstacle::Unsuitable(reason) => (Barrier::Unsuitable, reason),
            Obstacle::Lasting(reason) => (Barrier::Lasting, reason),
            Obstacle::Passing(reason) => (Barrier::Passing, reason),
        };
        self.report_acceptances();
        self.step(Input::failed(Event::Barred(barrier), format!("prove: {reason}")));
    }

    /// No login has been given a session for a reason that passes by itself. Acceptances before that go first.
    pub(super) fn report_away(&mut self) {
        self.report_acceptances();
        self.step(Event::Barred(Barrier::Passing));
    }

    /// Passes on that a server has let the credential in, and has no connection left, if a proof has found that.
    pub(super) fn report_full(&mut self, proof: &Proof) {
        if let Proof::Accepted { full: Some(_), .. } = proof {
            self.report_away();
        }
    }

    /// For people: whether the servers give sessions.
    fn report_outage(&self, proof: &Proof) {
        let (outage, route) = (&self.shared.outage, &self.name);
        match proof {
            Proof::Accepted { full: None, .. } => outage.end(route),
            proof => {
                if let Some(reason) = proof.no_session() {
                    outage.go_on(route, reason.to_owned());
                }
            }
        }
    }

    /// Proves the generation that is published.
    pub(super) fn prove_published(&mut self, number: GenerationId) {
        match self.generations.get(&number) {
            Some(generation) => {
                let (username, password) = (generation.username().to_owned(), generation.password().clone());
                self.requests.prove_published(number, username, password, self.spans.of_proof(number));
            }
            None => self.step(Event::PublishedProofEnded(number)),
        }
    }

    /// The proof of a published generation has ended.
    pub(super) fn published_proof(&mut self, number: GenerationId, proof: &Proof) {
        self.report_barrier(proof);
        if let (Proof::Accepted { address, .. }, Some(generation)) = (proof, self.generations.get(&number)) {
            if generation.accepted_at().is_none() {
                tracing::info!(
                    lease.generation = number.get(),
                    db.user = generation.username(),
                    "what is published is proved"
                );
            }
            generation.accepted_by(address);
            self.report_acceptances();
        }
        self.report_full(proof);
        self.step(Event::PublishedProofEnded(number));
    }
}
