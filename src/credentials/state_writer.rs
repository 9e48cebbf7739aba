//! What a driver writes into the state file, and begins with after a crash. Floor 3.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::machine::Machine;
use super::state::{Origin, Saved, SavedGeneration, SavedToken, Slot};
use super::{Generation, Lease};
use crate::clock;
use crate::lease::{GenerationId, Settings, Snapshot, TokenId};
use crate::secret::Secret;
use crate::time::Time;
use crate::vault::RoleKind;

/// A driver's side of its slot. Without one nothing is kept.
pub(super) struct StateWriter {
    slot: Option<Slot>,
    /// `None`: nothing is granted any more.
    origin: Option<Arc<Origin>>,
    /// Where each generation came from: a reload may change it for the next one.
    origins: HashMap<GenerationId, Arc<Origin>>,
    /// What was written last.
    written: Snapshot,
}

/// What a driver begins with.
pub(super) struct Beginning {
    pub(super) machine: Machine,
    pub(super) tokens: HashMap<TokenId, Secret>,
    pub(super) next_token: u64,
    pub(super) generations: HashMap<GenerationId, Arc<Generation>>,
    pub(super) state_writer: StateWriter,
}

impl Beginning {
    /// From what is in the slot, or from nothing. A credential of another origin serves nobody; without an origin none does.
    /// `left` is woken when a generation's last session leaves.
    pub(super) fn of(
        slot: Option<Slot>,
        kind: RoleKind,
        settings: Settings,
        origin: Option<Origin>,
        left: &Arc<Notify>,
    ) -> Self {
        let state_writer = StateWriter {
            slot,
            origin: origin.map(Arc::new),
            origins: HashMap::new(),
            written: Snapshot::default(),
        };
        match state_writer.slot.as_ref().map(Slot::left).filter(|found| !found.is_empty()) {
            Some(found) => Self::resumed(state_writer, found, settings, left),
            None => Self {
                machine: Machine::new(kind, settings),
                tokens: HashMap::new(),
                next_token: 1,
                generations: HashMap::new(),
                state_writer,
            },
        }
    }

    fn resumed(
        mut state_writer: StateWriter,
        mut found: Saved,
        settings: Settings,
        left: &Arc<Notify>,
    ) -> Self {
        for generation in &mut found.generations {
            generation.life.serves &= Some(&generation.origin) == state_writer.origin.as_deref();
        }
        // The generation that serves has the highest number.
        found.generations.sort_by_key(|generation| generation.life.serves);
        let numbered = || GenerationId::all().zip(&found.generations);
        let kept = Snapshot {
            tokens: found.tokens.iter().map(|token| (token.id, token.life)).collect(),
            generations: numbered().map(|(number, generation)| (number, generation.life)).collect(),
        };
        let machine = Machine::resume(settings, clock::now(), &kept);
        let route = found.route.as_str();
        let generations = numbered().map(|(number, found)| {
            let lease = Lease::new(found.lease_id.clone(), &found.origin.vault_path);
            tracing::info!(
                route,
                lease.generation = number.get(),
                lease.id = lease.tail(),
                db.user = found.username,
                serves = found.life.serves,
                "left by an earlier process"
            );
            let (username, password) = (found.username.clone(), found.password.clone());
            let left = Arc::clone(left);
            let generation = Generation::new(number, username, password, lease, Time::NEVER, left);
            (number, generation)
        });
        let generations: HashMap<GenerationId, Arc<Generation>> = generations.collect();
        state_writer.origins = numbered().map(|(n, found)| (n, Arc::new(found.origin.clone()))).collect();
        state_writer.written = kept;
        Self {
            machine,
            next_token: found.tokens.iter().map(|token| token.id.0 + 1).max().unwrap_or(1),
            tokens: found.tokens.into_iter().map(|token| (token.id, token.token)).collect(),
            generations,
            state_writer,
        }
    }
}

impl StateWriter {
    /// What is granted from now on comes from here.
    pub(super) fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(Arc::new(origin));
    }

    /// A credential has come. A grant that was asked for before a reload came from where that was; it is given back.
    pub(super) fn granted(&mut self, number: GenerationId) {
        if let (Some(_), Some(origin)) = (&self.slot, &self.origin) {
            self.origins.insert(number, Arc::clone(origin));
        }
    }

    /// Writes what there is, if that is not what was written last. What could not be written is tried again at the next
    /// step, which is a second away at most. Whether everything is written now.
    pub(super) fn keep(
        &mut self,
        machine: &Machine,
        tokens: &HashMap<TokenId, Secret>,
        generations: &HashMap<GenerationId, Arc<Generation>>,
    ) -> bool {
        let (Some(slot), Some(kept)) = (&self.slot, machine.snapshot()) else { return true };
        if kept == self.written {
            return true;
        }
        let held_tokens = kept.tokens.iter().filter_map(|(id, life)| {
            Some(SavedToken { id: *id, token: tokens.get(id)?.clone(), life: *life })
        });
        let held = kept.generations.iter().filter_map(|(number, life)| {
            let generation = generations.get(number)?;
            Some(SavedGeneration {
                username: generation.username().to_owned(),
                password: generation.password().clone(),
                lease_id: generation.lease().id().to_owned(),
                origin: Origin::clone(self.origins.get(number)?),
                life: *life,
            })
        });
        let saved = slot.save(held_tokens.collect(), held.collect());
        self.origins.retain(|number, _| generations.contains_key(number));
        if saved {
            self.written = kept;
        }
        saved
    }
}
