//! The results of renewals: extended, failed, lost. Floor 1.

use std::time::Duration;

use super::DynamicRole;
use crate::lease::event::{Action, Failure, Verdict};
use crate::lease::generation::State;
use crate::lease::ids::{GenerationId, TokenId};
use crate::lease::lease_term::Checked;
use crate::lease::note::Note;
use crate::lease::renewal;
use crate::lease::schedule::Jitter;
use crate::time::Time;

impl DynamicRole {
    /// Renews the leases and tokens that are due. A token is renewed while a living generation or an issuance needs it.
    pub(super) fn renew(&mut self, now: Time) {
        let Self { settings, tokens, generations, issuance, deadlines, actions, .. } = self;
        renewal::renew(now, generations, settings.max_age, deadlines, actions);
        let is_needed = |id| {
            let mut all = generations.iter().filter(|(_, generation)| generation.token() == id);
            issuance.needs(id) || all.any(|(_, it)| it.is_renewed() || it.state() == State::Candidate)
        };
        tokens.renew(now, is_needed, deadlines, actions);
    }

    pub(super) fn lease_renewed(
        &mut self,
        now: Time,
        number: GenerationId,
        sent_at: Time,
        lease: Duration,
        renewable: bool,
    ) {
        let Some(generation) = self.generations.get(number) else { return };
        let has_waited = generation.term().is_failing() && generation.state() != State::Standby;
        let jitter = self.term_jitter(has_waited, renewable);
        let Some(generation) = self.generations.get_mut(number) else { return };
        let renewed = generation.lease().renewed(now, sent_at, lease, renewable, jitter);
        self.note(Note::Renewed { number, lease, capped: renewed.capped });
        self.answer(number, renewed.is_awaited, Verdict::Alive);
    }

    pub(super) fn lease_renew_failed(&mut self, now: Time, number: GenerationId, failure: Failure) {
        let jitter = self.jitter();
        let Some(generation) = self.generations.get_mut(number) else { return };
        let owner = generation.token();
        let is_awaited = generation.lease().failed(now, failure, jitter);
        match failure {
            Failure::TokenDead => self.token_dead(now, owner),
            Failure::Gone => self.lose(now, number),
            _ => {}
        }
        let verdict = match failure {
            Failure::Gone | Failure::TokenDead => Verdict::Lost,
            Failure::CannotExtend => Verdict::Alive,
            Failure::Transient
            | Failure::TimedOut
            | Failure::Forbidden
            | Failure::Refused
            | Failure::Unusable => Verdict::Silent,
        };
        self.answer(number, is_awaited, verdict);
    }

    /// A lease may be gone. If the check `is_awaited`, a login waits for the answer.
    pub(super) fn check(&mut self, now: Time, number: GenerationId, every: Duration, is_awaited: bool) {
        let max_age = self.settings.max_age;
        let Some(generation) = self.generations.get_mut(number).filter(|it| it.is_renewed()) else {
            return self.answer(number, is_awaited, Verdict::Lost);
        };
        let (owner, would_pass) = (generation.token(), generation.would_pass(now, max_age));
        match generation.lease().check(now, every, would_pass, is_awaited) {
            Checked::Asked(within) => self.actions.push(Action::RenewLease(number, owner, within)),
            Checked::InFlight => {}
            Checked::TooEarly => self.answer(number, is_awaited, Verdict::Silent),
        }
    }

    fn answer(&mut self, number: GenerationId, is_awaited: bool, verdict: Verdict) {
        if is_awaited {
            self.actions.push(Action::Answer(number, verdict));
        }
    }

    /// The jitter of a token that was renewed. After failures others may have waited for Vault, too; a standby is
    /// renewed half a period from the current generation in any case.
    pub(super) fn token_renewal_jitter(&mut self, token: TokenId, renewable: bool) -> Jitter {
        let is_of_standby = self.generations.standby().is_some_and(|(_, standby)| standby.token() == token);
        self.term_jitter(self.tokens.is_failing(token) && !is_of_standby, renewable)
    }

    pub(super) fn token_renew_failed(&mut self, now: Time, token: TokenId, failure: Failure) {
        let jitter = self.jitter();
        match failure {
            Failure::TokenDead | Failure::Gone => self.token_dead(now, token),
            failure => {
                if self.tokens.renew_failed(now, token, failure, jitter) {
                    self.note(Note::TokenEnding(token));
                }
            }
        }
    }
}
