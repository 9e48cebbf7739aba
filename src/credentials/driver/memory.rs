//! What the driver leaves for the history of its route. Nothing is decided by it. Floor 3.

use super::Driver;
use crate::clock;
use crate::credentials::Generation;
use crate::credentials::history::Look;
use crate::credentials::view::GenerationView;
use crate::lease::{GenerationId, Note};
use crate::time::Time;

impl Driver {
    pub(super) fn remember_note(&self, note: Note) {
        let generation = number_of(note).and_then(|number| self.generations.get(&number));
        if let Ok(mut history) = self.shared.history.lock() {
            history.note(clock::now(), note, generation.map(AsRef::<Generation>::as_ref));
        }
    }

    pub(super) fn remember_failed(&self, line: &str) {
        if let Ok(mut history) = self.shared.history.lock() {
            history.failed(clock::now(), line);
        }
    }

    pub(super) fn look(
        &self,
        now: Time,
        generations: &[GenerationView],
        runs_until: Option<Time>,
        is_wanted: bool,
    ) {
        let unserved = is_wanted && !self.closing && !self.lets_in(now);
        if let Ok(mut history) = self.shared.history.lock() {
            history.see(now, &Look { generations, runs_until, unserved, tally: self.metrics.tally() });
        }
    }
}

fn number_of(note: Note) -> Option<GenerationId> {
    match note {
        Note::Published { number, .. }
        | Note::StandsBy(number)
        | Note::Renewed { number, .. }
        | Note::Lost(number)
        | Note::TooShort(number)
        | Note::CandidateRefused(number)
        | Note::NotTakenUp(number)
        | Note::Closing(number, _)
        | Note::Returned(number, _)
        | Note::Recalled(number)
        | Note::WantedAgain(number) => Some(number),
        Note::Issuing(_) | Note::TokenEnding(_) | Note::TokenOfNoUse(_) => None,
    }
}
