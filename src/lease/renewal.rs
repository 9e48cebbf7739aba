//! Which leases are renewed, and when. The leases of two credentials are renewed at different times. Floor 1.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::deadline::{Deadline, Deadlines};
use super::event::Action;
use super::generation::{Generation, State};
use super::generations::Generations;
use super::ids::GenerationId;
use super::schedule;
use super::term::{NotRenewed, Renewal, Term};
use super::tokens::Tokens;
use crate::time::Time;

/// At most this many retired generations are renewed for their sessions.
const MOST_RETIRING: usize = 8;

/// Requests the renewals that are due. A generation is not renewed past `max_age`, nor if too many generations have
/// retired.
pub(super) fn renew(
    now: Time,
    generations: &mut Generations,
    max_age: Option<Duration>,
    deadlines: &mut Deadlines,
    actions: &mut Vec<Action>,
) {
    let retiring = generations.iter().filter(|(_, generation)| generation.is_retiring());
    let retiring: Vec<GenerationId> = retiring.map(|(number, _)| number).collect();
    let too_many = retiring.len().saturating_sub(MOST_RETIRING);
    let mut next = None;
    while let Some(number) = generations.next(next) {
        next = Some(number);
        let Some(generation) = generations.get_mut(number).filter(|generation| generation.is_renewed())
        else {
            continue;
        };
        let Some(at) = generation.renew_at() else { continue };
        if retiring.iter().take(too_many).any(|unneeded| *unneeded == number) {
            generation.lease().end_renewals(now, NotRenewed::Unneeded);
        } else if now < at {
            deadlines.wake(Deadline::RenewLease, at);
        } else if generation.would_pass(now, max_age) {
            generation.lease().end_renewals(now, NotRenewed::MaxAge);
        } else {
            let within = generation.lease().ask();
            actions.push(Action::RenewLease(number, generation.token(), within));
        }
    }
}

/// The renewals that failed or were refused are asked again by this time, before a replacement is.
///
/// What made both fail may be the same: an absence of Vault, or a wrong policy. Once that is over, a renewal is one
/// request, and a replacement is seven.
pub(super) fn ask_again_by(at: Time, generations: &mut Generations, tokens: &mut Tokens) {
    let mut next = None;
    while let Some(number) = generations.next(next) {
        next = Some(number);
        let Some(generation) = generations.get_mut(number) else { continue };
        if matches!(generation.state(), State::Current { .. } | State::Standby) {
            generation.lease().ask_again_by(at);
            tokens.ask_again_by(generation.token(), at);
        }
    }
}

/// Enters the renewals in flight.
pub(super) fn show(generations: &Generations, deadlines: &mut Deadlines) {
    let mut all = generations.iter();
    if all.any(|(_, generation)| matches!(generation.term().renewal(), Renewal::InFlight { .. })) {
        deadlines.is_under_way(Deadline::RenewLease);
    }
}

/// Plans the renewal of the standby half a period from that of the current generation, and that of each lease together
/// with its token: a generation lives only as long as the lease or token that was renewed first.
pub(super) fn stagger(now: Time, generations: &mut Generations, tokens: &mut Tokens) {
    let (Some((current, _)), Some((standby, _))) = (generations.current(), generations.standby()) else {
        return;
    };
    let phases = (phase(generations, tokens, current), phase(generations, tokens, standby));
    let (Some(of_current), Some(of_standby)) = phases else {
        return;
    };
    let period = of_standby.usable * 2 / 3;
    let (current_at, standby_at) = schedule::antiphase(of_current.at, of_standby.at, period);
    of_current.advance(current_at.max(now), generations, tokens, current);
    of_standby.advance(standby_at.max(now), generations, tokens, standby);
}

/// The time of a generation's renewal.
#[derive(Clone, Copy)]
struct RenewalPhase {
    at: Time,
    /// For how long a renewal is usable.
    usable: Duration,
    /// Whether its lease is renewed then.
    lease: bool,
    /// Whether its token is renewed then.
    token: bool,
}

/// When the lease and token of this generation are renewed; `None` while a renewal is in flight or fails, or if there
/// is none.
fn phase(generations: &Generations, tokens: &Tokens, number: GenerationId) -> Option<RenewalPhase> {
    let generation = generations.get(number)?;
    let (lease, lease_at) = (generation.term(), generation.renew_at()?);
    if lease.is_failing() {
        return None;
    }
    let by_lease = RenewalPhase { at: lease_at, usable: lease.usable(), lease: true, token: false };
    let token = tokens.term(generation.token());
    // A token that is not renewed has its own end, or none.
    let Some(token) = token.filter(|token| !matches!(token.renewal(), Renewal::Stopped { .. })) else {
        return Some(by_lease);
    };
    let token_at = token.renews_at().filter(|_| !token.is_failing())?;
    let owned = |other: &Generation| other.token() == generation.token() && other.is_renewed();
    let is_shared = generations.iter().any(|(n, other)| n != number && owned(other));
    // If one term is at least twice as long as the other, it always has more time left than the shorter term has at
    // most.
    let is_twice = |longer: &Term, shorter: &Term| longer.usable() >= shorter.usable() * 2;
    Some(if is_twice(token, lease) {
        by_lease
    } else if is_shared {
        // A token that both generations share must not pull the two renewals together.
        RenewalPhase { token: true, ..by_lease }
    } else if is_twice(lease, token) {
        RenewalPhase { at: token_at, usable: token.usable(), lease: false, token: true }
    } else {
        let (at, usable) = (lease_at.min(token_at), lease.usable().min(token.usable()));
        RenewalPhase { at, usable, lease: true, token: true }
    })
}

impl RenewalPhase {
    fn advance(self, at: Time, generations: &mut Generations, tokens: &mut Tokens, number: GenerationId) {
        let Some(generation) = generations.get_mut(number) else { return };
        if self.lease {
            generation.lease().renew_by(at);
        }
        if self.token {
            tokens.renew_by(generation.token(), at);
        }
    }
}
