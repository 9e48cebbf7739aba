//! What follows when logins with the current credential are refused. Floor 1.

use super::DynamicRole;
use crate::lease::doubt::Remedy;
use crate::lease::event::Action;
use crate::lease::ids::GenerationId;
use crate::time::Time;

impl DynamicRole {
    /// Whether a login with this generation can start an issuance: it is current, and is not being replaced already.
    pub(super) fn is_replaceable(&self, number: GenerationId) -> bool {
        self.generations.is_current(number) && !self.rotation.is_refused(number)
    }

    pub(super) fn remedy(&mut self, number: GenerationId, remedy: Remedy) {
        match remedy {
            Remedy::Prove => self.actions.push(Action::Prove(number)),
            Remedy::Wait => {}
            Remedy::LetsIn => self.actions.push(Action::LetsIn(number)),
            Remedy::Replace => self.rotation.refuse(number),
        }
    }

    /// Answers the logins that wait, once no issuance is under way any more.
    pub(super) fn answer_waiting_logins(&mut self, now: Time) {
        let (generations, rotation, issuance) = (&self.generations, &self.rotation, &self.issuance);
        let current = generations.current().map(|(number, _)| number);
        // A refused credential is replaced as soon as the limit allows.
        let is_under_way = current.is_some_and(|number| rotation.is_refused(number))
            || issuance.is_under_way(|| rotation.demand(self.holdings(now)).is_ok());
        let waits = self.refusals.wait_for_nothing(|number| current == Some(number), || is_under_way);
        if let Some(number) = waits {
            self.actions.push(Action::TooEarly(number));
        }
    }
}
