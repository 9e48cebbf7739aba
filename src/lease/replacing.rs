//! What a login comes to that a server refuses though its credential's lease lives: the credential is proved, and if that
//! fails replaced, at most once a minute, or whatever is being issued anyway is waited for. Floor 1.

use super::doubt::Answer;
use super::dynamic_role::DynamicRole;
use super::event::Action;
use super::ids::GenerationId;
use crate::time::Time;

impl DynamicRole {
    /// Logins with this generation are refused, and they wait for another one.
    pub(super) fn replace(&mut self, now: Time, number: GenerationId) {
        if !self.generations.is_current(number) || self.refused == Some(number) {
            return;
        }
        match self.doubt.ask(now, number) {
            Answer::Prove => self.actions.push(Action::Prove(number)),
            Answer::Wait => {}
            Answer::LetsIn => self.actions.push(Action::LetsIn(number)),
            Answer::Refused => self.replace_refused(now, number),
        }
    }

    /// The proof of a generation that logins are refused with has come back.
    pub(super) fn doubt_settled(&mut self, now: Time, number: GenerationId, lets_in: bool) {
        let is_ours = self.doubt.settle(now, number, lets_in);
        if !is_ours || !self.generations.is_current(number) || self.refused == Some(number) {
            return;
        }
        if lets_in {
            self.awaited = None;
            self.actions.push(Action::LetsIn(number));
        } else {
            self.replace_refused(now, number);
        }
    }

    fn replace_refused(&mut self, now: Time, number: GenerationId) {
        if self.gate.pass(now) {
            self.refused = Some(number);
        } else {
            self.awaited = Some(number);
        }
    }

    /// Tells the logins that wait, once no issuance is under way any more.
    pub(super) fn answer_waiting_logins(&mut self, now: Time) {
        let Some(number) = self.awaited else { return };
        if !self.generations.is_current(number) {
            self.awaited = None;
        } else if self.refused == Some(number) {
            // A fresh one comes as soon as it may.
        } else if !self.issuance.is_under_way(|| self.demand(now).is_ok()) && !self.doubt.is_proving(number) {
            self.awaited = None;
            self.actions.push(Action::TooEarly(number));
        }
    }
}
