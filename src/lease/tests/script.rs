//! The helpers of the scripts: `story.at(second, event).does([actions])`.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lease::{Action, DynamicRole, Event, Failure, GenerationId, Note, Settings, TokenFacts, TokenId};
use crate::lease::{Cause, Ending};
use crate::time::Time;

pub(super) const T1: TokenId = TokenId(1);
pub(super) const T2: TokenId = TokenId(2);
pub(super) const T3: TokenId = TokenId(3);

pub(super) const G1: GenerationId = GenerationId::new(1);
pub(super) const G2: GenerationId = GenerationId::new(2);
pub(super) const G3: GenerationId = GenerationId::new(3);
pub(super) const G4: GenerationId = GenerationId::new(4);
pub(super) const G7: GenerationId = GenerationId::new(7);

pub(super) fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

pub(super) fn at(seconds: f64) -> Time {
    Time::from_nanos(0) + secs(seconds)
}

/// Settings without jitter, so that times are exact.
pub(super) fn settings() -> Settings {
    Settings::new(0)
}

/// A role, and its latest actions.
pub(super) struct Story {
    pub(super) role: DynamicRole,
    pub(super) now: Time,
    /// The latest actions, without notes, notices to sessions, and snapshots.
    pub(super) done: Vec<Action>,
    notes: Vec<Note>,
    told: Vec<(GenerationId, Ending)>,
    /// The generations that must end once they are empty.
    pub(super) ends_when_empty: BTreeSet<GenerationId>,
    /// When a published generation was to be proved, and which. No answer comes by itself.
    pub(super) published_proofs: Vec<(Time, GenerationId)>,
}

impl Story {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            role: DynamicRole::new(settings),
            now: Time::from_nanos(0),
            done: Vec::new(),
            notes: Vec::new(),
            told: Vec::new(),
            ends_when_empty: BTreeSet::new(),
            published_proofs: Vec::new(),
        }
    }

    /// A route that serves generation 1 under token 1 since second 0.
    pub(super) fn serving(settings: Settings, lease: f64, token: TokenFacts) -> Self {
        let mut story = Self::new(settings);
        story.at(0.0, Event::Tick).does([LOG_IN]);
        story.issued(0.0, G1, T1, token, lease);
        story
    }

    /// The process ends at this second, and the next process continues from the snapshot.
    pub(super) fn crash(self, second: f64) -> Self {
        let mut kept = self.role.snapshot();
        kept.generations.sort_by_key(|(_, kept)| kept.serves);
        let role = DynamicRole::resume(self.role.settings().clone(), at(second), &kept);
        Self { role, now: at(second), ..Self::new(settings()) }
    }

    /// A fresh credential is issued, from the login on, at once, and is proved.
    pub(super) fn issued(
        &mut self,
        second: f64,
        number: GenerationId,
        id: TokenId,
        token: TokenFacts,
        lease: f64,
    ) {
        self.at(second, Event::LoggedIn(id, TokenFacts { sent_at: at(second), ..token }));
        assert_eq!(self.done, [Action::Issue(id)]);
        self.granted(second, number, lease);
        self.at(second, Event::Proved(number));
        assert!(self.done.contains(&Action::Publish(number)), "{:?}", self.done);
    }

    pub(super) fn granted(&mut self, second: f64, number: GenerationId, lease: f64) {
        self.at(second, granted(second, lease, true));
        assert_eq!(self.done, [Action::Prove(number)]);
    }

    /// Advances the time to this second, through each deadline before it, at which no request may be made. Then handles
    /// the event.
    pub(super) fn at(&mut self, second: f64, event: Event) -> &mut Self {
        let now = at(second);
        for _ in 0..1000 {
            let due = self.role.next_deadline();
            if due >= now || due <= self.now {
                break;
            }
            self.hear(due, Event::Tick);
            assert!(self.done.is_empty(), "at {due:?} already: {:?}", self.done);
        }
        self.hear(now, event);
        self
    }

    /// Advances the time to this second, whatever actions are due before it.
    pub(super) fn pass(&mut self, second: f64) -> Vec<(Time, Action)> {
        let mut all = Vec::new();
        for _ in 0..10_000 {
            let due = self.role.next_deadline();
            if due > at(second) {
                break;
            }
            self.hear(due, Event::Tick);
            all.extend(self.done.iter().map(|action| (due, *action)));
        }
        all
    }

    fn hear(&mut self, now: Time, event: Event) {
        assert!(now >= self.now, "time runs forward");
        self.now = now;
        (self.done, self.notes) = (Vec::new(), Vec::new());
        for action in self.role.handle(now, event) {
            match action {
                Action::Note(note) => self.notes.push(note),
                Action::Store(_) => {}
                Action::ProvePublished(number) => self.published_proofs.push((now, number)),
                Action::EndWhenEmpty(number) => assert!(self.ends_when_empty.insert(number)),
                Action::KeepWhenEmpty(number) => assert!(self.ends_when_empty.remove(&number)),
                Action::NotifySessions(number, ending) => self.told.push((number, ending)),
                action => self.done.push(action),
            }
        }
        assert!(self.role.next_deadline() > now, "a deadline that has passed");
        assert_eq!(self.role.handle(now, Event::Tick), [], "a second look does more");
    }

    pub(super) fn does<const N: usize>(&mut self, actions: [Action; N]) -> &mut Self {
        assert_eq!(self.done, actions, "at {:?}", self.now);
        self
    }

    pub(super) fn notes(&mut self, note: Note) -> &mut Self {
        assert!(self.notes.contains(&note), "{note:?} is not in {:?}", self.notes);
        self
    }

    pub(super) fn does_not_note(&mut self, note: Note) -> &mut Self {
        assert!(!self.notes.contains(&note), "{note:?} is in {:?}", self.notes);
        self
    }

    /// The latest notice to the sessions of a generation.
    pub(super) fn told(&self, number: GenerationId) -> Ending {
        let word = self.told.iter().rev().find(|(n, _)| *n == number);
        word.unwrap_or_else(|| panic!("nothing told to {number}: {:?}", self.told)).1
    }

    pub(super) fn is_closing(&mut self, number: GenerationId, cause: Cause) -> &mut Self {
        assert_eq!(self.told(number).closing.map(|closing| closing.cause), Some(cause));
        self
    }

    pub(super) fn hard_close_at(&self, number: GenerationId) -> Time {
        let generation = self.role.generations().find(|(n, _)| *n == number).expect("a generation").1;
        self.role.hard_close_at(generation)
    }

    pub(super) fn drain_at(&self, number: GenerationId) -> Option<Time> {
        let generation = self.role.generations().find(|(n, _)| *n == number).expect("a generation").1;
        self.role.drain_at(generation)
    }
}

pub(super) const LOG_IN: Action = Action::LogIn { within: None };

pub(super) fn log_in(within: f64) -> Action {
    Action::LogIn { within: Some(secs(within)) }
}

/// A token that we logged in for.
pub(super) fn own(ttl: f64) -> TokenFacts {
    TokenFacts { sent_at: at(0.0), ttl: Some(secs(ttl)), renewable: true, owned: true }
}

/// A token that does not end.
pub(super) fn endless() -> TokenFacts {
    TokenFacts { sent_at: at(0.0), ttl: None, renewable: false, owned: true }
}

pub(super) fn handed(ttl: f64) -> TokenFacts {
    TokenFacts { owned: false, ..own(ttl) }
}

pub(super) fn batch(ttl: f64) -> TokenFacts {
    TokenFacts { renewable: false, owned: false, ..own(ttl) }
}

pub(super) fn granted(sent: f64, lease: f64, renewable: bool) -> Event {
    Event::Granted { sent_at: at(sent), lease: secs(lease), renewable }
}

pub(super) fn renewed(number: GenerationId, sent: f64, lease: f64) -> Event {
    Event::LeaseRenewed { number, sent_at: at(sent), lease: secs(lease), renewable: true }
}

pub(super) fn not_renewed(number: GenerationId, failure: Failure) -> Event {
    Event::LeaseRenewFailed(number, failure)
}

pub(super) fn token_renewed(token: TokenId, sent: f64, ttl: f64) -> Event {
    Event::TokenRenewed { token, sent_at: at(sent), ttl: Some(secs(ttl)), renewable: true }
}

pub(super) fn empty(number: GenerationId) -> Event {
    Event::Empty { number, open_upstream: false }
}

pub(super) fn renew(number: GenerationId, token: TokenId, within: f64) -> Action {
    Action::RenewLease(number, token, secs(within))
}
