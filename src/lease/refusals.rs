//! What follows for logins that a server refuses though the lease of their credential lives. The credential is proved.
//! If the proof fails, it is replaced, at most once a minute, or the logins wait for the issuance that is under way.
//! Floor 1.

use super::doubt::{Doubt, Remedy, ReplaceGate};
use super::ids::GenerationId;
use crate::time::Time;

/// The state of the current credential after refused logins, and the logins that wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Refusals {
    doubt: Doubt,
    gate: ReplaceGate,
    /// Logins with this generation were refused, and wait for the issuance under way.
    awaited: Option<GenerationId>,
}

impl Refusals {
    /// No login was refused.
    pub(super) fn new() -> Self {
        Self { doubt: Doubt::Unasked, gate: ReplaceGate::new(), awaited: None }
    }

    /// Whether a proof of this credential is in flight because a login was refused.
    pub(super) fn is_proving(&self, number: GenerationId) -> bool {
        self.doubt.is_proving(number)
    }

    /// Logins wait for the issuance that is under way, if there is an issuance.
    pub(super) fn wait(&mut self, number: GenerationId) {
        self.awaited = Some(number);
    }

    /// Whether logins wait for the issuance under way.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// A login with the current generation was refused, and waits for another credential.
    pub(super) fn refused(&mut self, now: Time, number: GenerationId) -> Remedy {
        match self.doubt.ask(now, number) {
            Remedy::Replace => self.replace(now, number),
            remedy => remedy,
        }
    }

    /// The proof of a generation has ended. `replaceable`: it is current, and is not being replaced already.
    pub(super) fn settle(
        &mut self,
        now: Time,
        number: GenerationId,
        lets_in: bool,
        replaceable: bool,
    ) -> Remedy {
        if !self.doubt.settle(now, number, lets_in) || !replaceable {
            return Remedy::Wait;
        }
        if lets_in {
            self.awaited = None;
            return Remedy::LetsIn;
        }
        self.replace(now, number)
    }

    fn replace(&mut self, now: Time, number: GenerationId) -> Remedy {
        if self.gate.pass(now) {
            return Remedy::Replace;
        }
        self.awaited = Some(number);
        Remedy::Wait
    }

    /// A successor is published: no login waits any more.
    pub(super) fn published(&mut self) {
        self.awaited = None;
    }

    /// The generation whose logins wait in vain: no issuance `is_under_way`, and no proof. `is_current` says whether
    /// logins can still have it.
    pub(super) fn wait_for_nothing(
        &mut self,
        is_current: impl FnOnce(GenerationId) -> bool,
        is_under_way: impl FnOnce() -> bool,
    ) -> Option<GenerationId> {
        let number = self.awaited?;
        if !is_current(number) {
            self.awaited = None;
            return None;
        }
        if is_under_way() || self.doubt.is_proving(number) {
            return None;
        }
        self.awaited = None;
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const G1: GenerationId = GenerationId::FIRST;

    fn at(second: u64) -> Time {
        Time::from_nanos(second * 1_000_000_000)
    }

    #[test]
    fn a_credential_is_proved_before_it_is_replaced() {
        let mut refusals = Refusals::new();
        assert_eq!(refusals.refused(at(0), G1), Remedy::Prove);
        assert_eq!(refusals.refused(at(0), G1), Remedy::Wait, "its proof is in flight");
        assert_eq!(refusals.settle(at(1), G1, false, true), Remedy::Replace);
    }

    #[test]
    fn a_credential_that_lets_in_is_not_replaced() {
        let mut refusals = Refusals::new();
        refusals.refused(at(0), G1);
        refusals.wait(G1);
        assert_eq!(refusals.settle(at(1), G1, true, true), Remedy::LetsIn);
        assert!(!refusals.is_awaited());
        assert_eq!(refusals.refused(at(2), G1), Remedy::LetsIn);
        assert_eq!(refusals.refused(at(6), G1), Remedy::Prove, "some time has passed");
    }

    #[test]
    fn a_second_replacement_within_a_minute_waits_for_what_is_under_way() {
        let mut refusals = Refusals::new();
        refusals.refused(at(0), G1);
        assert_eq!(refusals.settle(at(0), G1, false, true), Remedy::Replace);
        let second = G1.next();
        refusals.refused(at(30), second);
        assert_eq!(refusals.settle(at(30), second, false, true), Remedy::Wait);
        assert_eq!(refusals.wait_for_nothing(|_| true, || true), None);
        assert_eq!(refusals.wait_for_nothing(|_| true, || false), Some(second));
        assert_eq!(refusals.wait_for_nothing(|_| true, || false), None, "it was said once");
    }

    #[test]
    fn what_is_not_current_any_more_is_neither_replaced_nor_waited_for() {
        let mut refusals = Refusals::new();
        refusals.refused(at(0), G1);
        assert_eq!(refusals.settle(at(0), G1, false, false), Remedy::Wait);
        refusals.wait(G1);
        assert_eq!(refusals.wait_for_nothing(|_| false, || false), None);
        assert!(!refusals.is_awaited());
    }
}
