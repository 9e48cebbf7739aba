//! How a static role reads its password: the token for it, the answer, and who waits for it. Floor 1.

use std::time::Duration;

use super::StaticRole;
use crate::lease::event::{Action, Failure, NotRotated, TokenFacts, Verdict};
use crate::lease::ids::TokenId;
use crate::lease::tokens::Tokens;
use crate::time::Time;

impl StaticRole {
    pub(super) fn begin(&mut self, now: Time) {
        let living = self.token.filter(|id| self.tokens.has(*id) && now < self.tokens.ending_at(*id));
        if let Some(token) = living {
            self.read(token);
        } else {
            self.reads.log_in();
            self.actions.push(Action::LogIn { within: None });
        }
    }

    fn read(&mut self, token: TokenId) {
        self.reads.read(token);
        self.actions.push(Action::Issue(token));
    }

    pub(super) fn logged_in(&mut self, token: TokenId, facts: TokenFacts) {
        if !self.reads.is_logging_in() {
            return;
        }
        // Many processes may have started together, or waited for Vault together.
        let jitter = if facts.renewable { self.jitter().wide() } else { self.jitter() };
        self.tokens.logged_in(token, facts, jitter);
        self.token = Some(token);
        if self.closed {
            self.reads.end();
            self.disappoint(NotRotated::Closed);
        } else {
            self.read(token);
        }
    }

    pub(super) fn log_in_failed(&mut self, now: Time, failure: Failure) {
        if !self.reads.is_logging_in() {
            return;
        }
        // A login that is refused does not matter while the last token lives.
        match self.token.filter(|id| self.tokens.ends_at(*id).is_some_and(|ends_at| now < ends_at)) {
            Some(token) if !self.closed => self.read(token),
            _ => self.fail(now, true, NotRotated::LogIn(failure)),
        }
    }

    pub(super) fn read_failed(&mut self, now: Time, failure: Failure) {
        let Some(token) = self.reads.token() else { return };
        match failure {
            Failure::TokenDead => self.forget_token(token),
            // A policy that is put right in the login's role counts for tokens made since.
            Failure::Forbidden => self.token = None,
            _ => {}
        }
        let away = matches!(failure, Failure::Transient | Failure::TimedOut | Failure::TokenDead);
        self.fail(now, away, NotRotated::Issue(failure));
    }

    pub(super) fn was_read(&mut self, now: Time, sent_at: Time, ttl: Duration, is_new: bool) {
        if self.reads.token().is_none() {
            return;
        }
        let jitter = self.jitter();
        self.reads.answered(now, sent_at, ttl, is_new, jitter);
        if is_new {
            self.publish(now, sent_at);
        } else if let Some((number, _)) = self.generations.last_key_value().filter(|_| self.commanded) {
            self.actions.push(Action::RotateDone(*number));
        }
        self.commanded = false;
        self.answer(if is_new { Verdict::Lost } else { Verdict::Alive });
    }

    /// `away`: it may work at any moment, as Vault did not say no.
    fn fail(&mut self, now: Time, away: bool, why: NotRotated) {
        let (is_served, jitter) = (self.current().is_some(), self.jitter());
        let counts = self.reads.failed(now, away, is_served, jitter);
        if self.closed {
            self.reads.end();
        }
        if counts {
            self.disappoint(why);
        }
    }

    /// No read comes for those who wait.
    pub(super) fn disappoint(&mut self, why: NotRotated) {
        self.answer(Verdict::Silent);
        if std::mem::take(&mut self.commanded) {
            self.actions.push(Action::RotateFailed(why));
        }
    }

    fn answer(&mut self, verdict: Verdict) {
        let awaited = std::mem::take(&mut self.awaited);
        self.actions.extend(awaited.into_iter().map(|number| Action::Answer(number, verdict)));
    }

    /// Something does not fit: the password is read soon, and often.
    pub(super) fn retry_now(&mut self, now: Time) {
        if self.closed {
            self.disappoint(NotRotated::Closed);
        } else {
            self.reads.retry_now(now);
        }
    }

    /// It is asked for by hand, or by another configuration.
    pub(super) fn read_now(&mut self, now: Time) {
        self.retry_now(now);
        if !self.closed {
            self.reads.end_back_off(now);
        }
    }

    pub(super) fn keep_tokens(&mut self, now: Time) {
        let held = self.token.filter(|_| !self.closed);
        let in_flight = self.reads.token();
        let is_needed = |id| in_flight == Some(id) || held == Some(id);
        self.tokens.renew(now, is_needed, &mut self.deadlines, &mut self.actions);
        let lives = |tokens: &Tokens, id| tokens.ends_at(id).is_some_and(|ends_at| now < ends_at);
        let all = in_flight.into_iter().chain(held);
        let living: Vec<TokenId> = all.filter(|id| lives(&self.tokens, *id)).collect();
        let stands = |id| living.contains(&id);
        for id in self.tokens.revoke(now, stands, &mut self.deadlines, &mut self.actions) {
            self.forget_token(id);
        }
    }

    pub(super) fn forget_token(&mut self, token: TokenId) {
        if self.tokens.remove(token) {
            self.actions.push(Action::ForgetToken(token));
        }
        if self.token == Some(token) {
            self.token = None;
        }
    }
}
