//! What the role does because of the time and of what it holds, after each event. Floor 1.
//!
//! Nothing here is triggered: [`DynamicRole::review`] looks at everything it has and does what is due, so that it does not
//! matter which event brought the moment. Doing it twice does nothing more.

use std::time::Duration;

use super::dynamic_role::{DynamicRole, MOST_RETIRING};
use super::event::{Action, Failure, Note, Outcome};
use super::generation::{Cause, Closing, Ending, Generation, GenerationId, State};
use super::issuance;
use super::schedule;
use super::term::{NotRenewed, Renewal};
use super::token::{Revoking, TokenId};
use crate::time::Time;

impl DynamicRole {
    pub(super) fn review(&mut self, now: Time) {
        self.deadline = Time::NEVER;
        self.end_generations(now);
        self.publish_standby(now);
        self.choose_current(now);
        self.retry_standby(now);
        self.stagger_renewals(now);
        self.renew_leases(now);
        self.renew_tokens(now);
        self.issue(now);
        self.answer_waiting_logins(now);
        self.give_leases_back(now);
        self.give_tokens_back(now);
        self.verify_revoked(now);
        self.tell(now);
    }

    /// Come back at this time, if it is yet to come.
    pub(super) fn wake(&mut self, now: Time, at: Time) {
        if at > now {
            self.deadline = self.deadline.min(at);
        }
    }

    /// Hard closes that are due, and candidates that died unproved.
    pub(super) fn end_generations(&mut self, now: Time) {
        for number in self.numbers() {
            let Some(generation) = self.generations.get(&number) else {
                continue;
            };
            let hard_close_at = self.hard_close_at(generation);
            let cut_short = generation.cut_short.is_some_and(|cut| now >= cut.at);
            let proving =
                matches!(self.issuance.state, issuance::State::Proving { number: n, .. } if n == number);
            match generation.state {
                State::Current { .. } | State::Retiring { .. } if now >= hard_close_at => {
                    let cause = if cut_short { Cause::CutShort } else { Cause::LeaseEnd };
                    self.set_state(number, State::Closing { cause, since: now });
                    self.note(Note::Closing(number, cause));
                    if self.current == Some(number) {
                        self.current = None;
                        self.actions.push(Action::Unpublish);
                    }
                }
                State::Candidate if now >= hard_close_at => {
                    self.give_back(number);
                    if proving {
                        self.fail(now, issuance::FailureClass::Transient);
                    }
                }
                State::Standby if now >= hard_close_at => self.give_back(number),
                State::Candidate | State::Standby | State::Current { .. } | State::Retiring { .. } => {
                    self.wake(now, hard_close_at)
                }
                State::Closing { .. } | State::Revoking(_) => {}
            }
        }
    }

    /// Without a current generation the latest that is still usable serves again.
    fn choose_current(&mut self, now: Time) {
        if self.current.is_some() || self.closed || !self.wanted {
            return;
        }
        let latest = self
            .generations
            .iter()
            .rev()
            .find(|(_, g)| g.is_usable(now, self.bound(g)))
            .map(|(number, _)| *number);
        let Some(number) = latest else { return };
        if let Some(State::Retiring { published_at, successor_at }) =
            self.generations.get(&number).map(|g| g.state)
        {
            self.set_state(number, State::Current { published_at });
            self.current = Some(number);
            self.actions.push(Action::Publish(number));
            self.note(match successor_at {
                Some(_) => Note::Recalled(number),
                None => Note::WantedAgain(number),
            });
        }
    }

    fn renew_leases(&mut self, now: Time) {
        let retiring: Vec<GenerationId> = self
            .generations()
            .filter(|(_, g)| matches!(g.state, State::Retiring { .. }))
            .map(|(number, _)| number)
            .collect();
        let too_many = retiring.len().saturating_sub(MOST_RETIRING);
        for number in self.numbers() {
            let max_age = self.settings.max_age;
            let Some(generation) = self.generations.get_mut(&number).filter(|g| g.is_renewed()) else {
                continue;
            };
            let Some(at) = generation.renew_at() else { continue };
            if retiring.iter().take(too_many).any(|n| *n == number) {
                generation.term.over(NotRenewed::Unneeded, now);
            } else if now < at {
                self.wake(now, at);
            } else if generation.would_pass(now, max_age) {
                generation.term.over(NotRenewed::MaxAge, now);
            } else {
                self.ask_renewal(number);
            }
        }
    }

    fn renew_tokens(&mut self, now: Time) {
        let ids: Vec<TokenId> = self.tokens.keys().copied().collect();
        for id in ids {
            let needed = self.is_needed(id);
            let Some(token) = self.tokens.get_mut(&id).filter(|token| token.revoking.is_none()) else {
                continue;
            };
            let Some(at) = token.renew_at().filter(|_| needed) else {
                continue;
            };
            if now < at {
                self.wake(now, at);
            } else {
                token.term.asked();
                let within = schedule::patience(token.term.usable());
                self.actions.push(Action::RenewToken(id, within));
            }
        }
    }

    /// Whether a token is renewed: a living generation, or an issuance, stands on it.
    fn is_needed(&self, id: TokenId) -> bool {
        self.spare == Some(id)
            || matches!(self.issuance.state, issuance::State::Requesting { token, .. } if token == id)
            || self
                .generations
                .values()
                .any(|g| g.token == id && (g.is_renewed() || g.state == State::Candidate))
    }

    /// A generation is not served any more, and nobody is in it: its lease goes back.
    pub(super) fn give_back(&mut self, number: GenerationId) {
        let Some(generation) = self.generations.get_mut(&number) else {
            return;
        };
        generation.state = State::Revoking(Revoking { tries: 0, again_at: None });
        self.actions.push(Action::RevokeLease(number, generation.token));
    }

    /// A lease came without a credential that could be used.
    pub(super) fn lease_left(&mut self, token: TokenId, sent_at: Time, lease: Duration) {
        let number = self.next_number;
        self.next_number = number.next();
        let jitter = self.jitter();
        self.generations.insert(number, Generation::new(token, sent_at, lease, false, jitter));
        self.actions.push(Action::Store(number));
        self.give_back(number);
    }

    /// Revocations to be tried again, and leases that have lapsed.
    fn give_leases_back(&mut self, now: Time) {
        for number in self.numbers() {
            let Some(generation) = self.generations.get(&number) else {
                continue;
            };
            let state = generation.state;
            let owner = generation.token;
            let lapses_at = generation.lease_ends_at().min(self.bound(generation).ends_at);
            if let State::Retiring { successor_at: Some(at), .. } = state {
                // The driver is asked again whether it is empty.
                self.wake(now, at + self.settings.replica_grace);
            }
            let State::Revoking(Revoking { tries, again_at }) = state else { continue };
            if now >= lapses_at && again_at.is_some() {
                if again_at != Some(Time::NEVER) {
                    self.note(Note::Returned(number, Outcome::Failed));
                }
                self.forget(number);
                continue;
            }
            self.wake(now, lapses_at);
            let Some(at) = again_at.filter(|at| *at != Time::NEVER) else {
                continue;
            };
            if now < at {
                self.wake(now, at);
            } else {
                self.set_state(number, State::Revoking(Revoking { tries, again_at: None }));
                self.actions.push(Action::RevokeLease(number, owner));
            }
        }
    }

    pub(super) fn returned(&mut self, number: GenerationId, outcome: Outcome) {
        if self.generations.get(&number).is_some_and(|g| matches!(g.state, State::Revoking(_))) {
            self.note(Note::Returned(number, outcome));
            self.forget(number);
        }
    }

    pub(super) fn lease_revoke_failed(&mut self, now: Time, number: GenerationId, failure: Failure) {
        let jitter = self.jitter();
        let Some(generation) = self.generations.get_mut(&number) else {
            return;
        };
        let State::Revoking(revoking) = generation.state else {
            return;
        };
        match failure {
            // Dead tokens take their leases along.
            Failure::TokenDead | Failure::Gone => {
                self.forget(number);
                self.revoked_with_token(now, number);
            }
            Failure::Forbidden => {
                let owner = generation.token;
                match self.tokens.get_mut(&owner).filter(|token| token.owned) {
                    Some(token) => {
                        token.owed.push(number);
                        self.forget(number);
                    }
                    None => self.returned(number, Outcome::Forbidden),
                }
            }
            Failure::Transient
            | Failure::TimedOut
            | Failure::CannotExtend
            | Failure::Refused
            | Failure::Unusable => {
                generation.state = State::Revoking(revoking.again(now, jitter));
            }
        }
    }

    /// Tokens that nothing stands on any more.
    fn give_tokens_back(&mut self, now: Time) {
        let ids: Vec<TokenId> = self.tokens.keys().copied().collect();
        for id in ids {
            let stands = self.is_needed(id) || self.generations.values().any(|g| g.token == id);
            let Some(token) = self.tokens.get_mut(&id) else {
                continue;
            };
            if stands || token.late > 0 {
                continue;
            }
            match token.revoking {
                _ if !token.owned || now >= token.ends_at() => self.token_gone(now, id, Outcome::Failed),
                None => {
                    token.revoking = Some(Revoking { tries: 0, again_at: None });
                    self.actions.push(Action::RevokeToken(id));
                }
                Some(Revoking { again_at: None, .. }) => {}
                Some(Revoking { tries, again_at: Some(at) }) => {
                    if now < at {
                        let at = at.min(token.ends_at());
                        self.wake(now, at);
                    } else {
                        token.revoking = Some(Revoking { tries, again_at: None });
                        self.actions.push(Action::RevokeToken(id));
                    }
                }
            }
        }
    }

    pub(super) fn token_gone(&mut self, now: Time, id: TokenId, outcome: Outcome) {
        let Some(token) = self.tokens.remove(&id) else {
            return;
        };
        for number in token.owed {
            match outcome {
                Outcome::Token => self.revoked_with_token(now, number),
                outcome => self.note(Note::Returned(number, outcome)),
            }
        }
        self.actions.push(Action::ForgetToken(id));
    }

    pub(super) fn token_revoke_failed(&mut self, now: Time, id: TokenId, failure: Failure) {
        let jitter = self.jitter();
        match failure {
            Failure::TokenDead | Failure::Gone => self.token_gone(now, id, Outcome::Token),
            Failure::Forbidden | Failure::Refused | Failure::Unusable | Failure::CannotExtend => {
                self.token_gone(now, id, Outcome::Forbidden)
            }
            Failure::Transient | Failure::TimedOut => {
                let Some(token) = self.tokens.get_mut(&id) else {
                    return;
                };
                token.revoking = token.revoking.map(|revoking| revoking.again(now, jitter));
            }
        }
    }

    /// What sessions have to know, where it has changed.
    fn tell(&mut self, now: Time) {
        for number in self.numbers() {
            let Some(generation) = self.generations.get(&number) else {
                continue;
            };
            let bound = self.bound(generation);
            let hard_close_at = generation.hard_close_at(bound);
            let ending = match generation.state {
                State::Candidate | State::Standby | State::Revoking(_) => continue,
                State::Current { .. } | State::Retiring { .. } => {
                    let drain_at = generation.drain_at(bound, self.settings.drain);
                    if let Some(at) = drain_at {
                        self.wake(now, at);
                    }
                    Ending { hard_close_at, drain_from: drain_at.filter(|at| *at <= now), closing: None }
                }
                State::Closing { cause, since } => {
                    let lease_end = generation.lease_ends_at().min(bound.ends_at);
                    let gone_by = match cause {
                        Cause::LeaseEnd | Cause::CutShort => lease_end.min(since + schedule::GONE_WITHIN),
                        Cause::Lost => since + schedule::GONE_WITHIN,
                    };
                    let cut_at = (since + schedule::CANCEL_LEAD).min(gone_by);
                    Ending {
                        hard_close_at,
                        drain_from: None,
                        closing: Some(Closing { cause, cut_at, gone_by }),
                    }
                }
            };
            let last_notice = self.generations.get_mut(&number).map(|g| g.last_notice.replace(ending));
            if last_notice != Some(Some(ending)) {
                self.actions.push(Action::NotifySessions(number, ending));
            }
        }
    }

    pub(super) fn forget(&mut self, number: GenerationId) {
        if self.generations.remove(&number).is_some() {
            self.actions.push(Action::Forget(number));
        }
    }

    pub(super) fn set_state(&mut self, number: GenerationId, state: State) {
        if let Some(generation) = self.generations.get_mut(&number) {
            generation.state = state;
        }
    }

    fn numbers(&self) -> Vec<GenerationId> {
        self.generations.keys().copied().collect()
    }

    /// What the role will do next by itself, and when.
    #[must_use]
    pub(crate) fn next_action(&self, now: Time) -> (&'static str, Time) {
        match self.issuance.state {
            issuance::State::LoggingIn { .. } | issuance::State::Requesting { .. } => return ("issue", now),
            issuance::State::Proving { again_at, .. } => return ("prove", again_at.unwrap_or(now)),
            issuance::State::BackOff { until, .. }
                if self.demand(now).is_ok() || self.standby_demand(now).is_ok() =>
            {
                return ("issue", until);
            }
            issuance::State::Idle | issuance::State::BackOff { .. } => {}
        }
        let rotate = match self.demand(now) {
            Ok(_) => now,
            Err(at) => at,
        };
        let stand_by = self.standby_demand(now).err().unwrap_or(now);
        let renew = self
            .current
            .and_then(|number| self.generations.get(&number))
            .map(|generation| match generation.term.renewal() {
                Renewal::InFlight => now,
                Renewal::Scheduled(at) => at,
                Renewal::Stopped { .. } => Time::NEVER,
            })
            .unwrap_or(Time::NEVER);
        let next = [("renew", renew), ("rotate", rotate), ("issue", stand_by)];
        let first = next.into_iter().filter(|(_, at)| *at != Time::NEVER).min_by_key(|(_, at)| *at);
        first.unwrap_or(("none", Time::NEVER))
    }
}
