//! The issuance of a fresh credential for a route: at most one at a time. Floor 1.
//!
//! This part knows the state of the issuance, the rate limit and the back-off. The role decides what a credential is
//! needed for, and which tokens and leases are useful.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::candidate::{Candidate, Unproved};
use super::deadline::{Deadline, Deadlines};
use super::event::Failure;
use super::failure_class::{FailureClass, longest_unserved};
use super::ids::{GenerationId, TokenId};
use super::issue_limit::IssueLimit;
use super::note::Reason;
use super::schedule::{self, Jitter};
use crate::time::Time;

/// The issuance of a route, at most one at a time.
///
/// ```text
///   Idle ──needed──▶ LoggingIn ──▶ Requesting ──granted──▶ Proving ──proved──▶ Idle
///    ▲                   │ failed      │ failed               │ refused
///    └──── time ──── BackOff ◀─────────┴──────────────────────┘
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Issuance {
    state: State,
    limit: IssueLimit,
    failures: u32,
    /// A token from the login of an issuance that failed, kept for the next issuance.
    spare: Option<TokenId>,
    /// The login or grant in flight was requested with an earlier configuration, so its result is not used.
    discard: bool,
}

/// The state of an issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    /// Nothing is in flight.
    Idle,
    /// A login is in flight.
    LoggingIn { reason: Reason },
    /// A creds request is in flight.
    Requesting { reason: Reason, token: TokenId },
    /// A candidate is being proved.
    Proving(Candidate),
    /// Waiting after a failure.
    BackOff {
        /// The end of the wait.
        until: Time,
        /// Whether the wait follows a refusal by Vault or the server, not an absence of Vault.
        slow: bool,
    },
}

/// What the role has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// A request is in flight.
    Nothing,
    /// The back-off after a failure ends at this time.
    BackOff(Time),
    /// The candidate waits for its next proof until `at`. `refused` says whether a server refused it, or no server
    /// could judge it.
    ProofAt { at: Time, refused: bool },
    /// The candidate is proved now.
    Proof(GenerationId),
    /// An issuance can begin.
    Free,
}

/// What follows from a token or a lease that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// No credential is needed any more, or it is needed for another configuration.
    Unwanted,
    /// It ends too early, and the issuance fails.
    OfNoUse,
    /// The issuance goes on with it.
    Used,
}

impl Issuance {
    /// Creates the state in which nothing is being issued. `burst` grants out of turn may come at once, then one in
    /// each `interval`.
    pub(super) fn new(burst: u32, interval: Duration) -> Self {
        Self {
            state: State::Idle,
            limit: IssueLimit::new(burst, interval),
            failures: 0,
            spare: None,
            discard: false,
        }
    }

    /// Where it stands.
    #[cfg(test)]
    pub(super) fn state(&self) -> State {
        self.state
    }

    /// How often it has failed since it last succeeded.
    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether nothing is in flight and no candidate is there.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Idle | State::BackOff { .. })
    }

    /// What the login in flight is for.
    pub(super) fn logging_in(&self) -> Option<Reason> {
        match self.state {
            State::LoggingIn { reason } => Some(reason),
            _ => None,
        }
    }

    /// What the creds request in flight is for, and its token.
    pub(super) fn requesting(&self) -> Option<(Reason, TokenId)> {
        match self.state {
            State::Requesting { reason, token } => Some((reason, token)),
            _ => None,
        }
    }

    /// The candidate.
    pub(super) fn candidate(&self) -> Option<Candidate> {
        match self.state {
            State::Proving(candidate) => Some(candidate),
            _ => None,
        }
    }

    /// Whether this generation is the candidate.
    pub(super) fn is_proving(&self, number: GenerationId) -> bool {
        self.candidate().is_some_and(|candidate| candidate.number() == number)
    }

    /// The candidate, if no server could judge it and it waits for its next proof.
    pub(super) fn unjudged(&self) -> Option<GenerationId> {
        self.candidate().filter(Candidate::waits_unjudged).map(|candidate| candidate.number())
    }

    /// Whether the issuance uses this token.
    pub(super) fn needs(&self, id: TokenId) -> bool {
        self.spare == Some(id) || self.requesting().is_some_and(|(_, token)| token == id)
    }

    /// Whether a fresh credential is being issued, for any reason. After a refusal it is not: the refusal lasts until
    /// an operator acts. `is_needed` says whether a credential is requested after a failure.
    pub(super) fn is_under_way(&self, is_needed: impl FnOnce() -> bool) -> bool {
        match self.state {
            State::LoggingIn { .. } | State::Requesting { .. } | State::Proving(_) => true,
            State::BackOff { slow, .. } => !slow && is_needed(),
            State::Idle => false,
        }
    }

    /// Enters what is in flight.
    pub(super) fn show(&self, deadlines: &mut Deadlines) {
        match self.state {
            State::LoggingIn { .. } | State::Requesting { .. } => deadlines.is_under_way(Deadline::Issue),
            State::Proving(candidate) if candidate.again_at().is_none() => {
                deadlines.is_under_way(Deadline::Proof);
            }
            State::Proving(_) | State::Idle | State::BackOff { .. } => {}
        }
    }

    /// What to do next. The wait is shorter if no credential serves the route (`is_served`), and ends if an operator
    /// asks for a credential (`is_commanded`).
    pub(super) fn due(&mut self, now: Time, is_served: bool, is_commanded: bool) -> Due {
        match &mut self.state {
            State::Idle => Due::Free,
            State::LoggingIn { .. } | State::Requesting { .. } => Due::Nothing,
            State::BackOff { until, slow } => {
                if !is_served {
                    *until = (*until).min(now + longest_unserved(*slow, self.failures));
                }
                if now < *until && !is_commanded {
                    return Due::BackOff(*until);
                }
                self.state = State::Idle;
                Due::Free
            }
            State::Proving(candidate) => match candidate.again_at() {
                None => Due::Nothing,
                Some(at) if now < at => Due::ProofAt { at, refused: candidate.waits_refused() },
                Some(_) => {
                    candidate.prove();
                    Due::Proof(candidate.number())
                }
            },
        }
    }

    /// Until when the rate limit delays a request for this reason; `None` if it may be sent.
    pub(super) fn held_until(&mut self, now: Time, reason: Reason, is_out_of_turn: bool) -> Option<Time> {
        self.limit.held_until(now, reason, is_out_of_turn)
    }

    /// The token that is kept from a failed issuance.
    pub(super) fn spare(&self) -> Option<TokenId> {
        self.spare
    }

    /// Begins an issuance, with a creds request under this token or else with a login.
    pub(super) fn begin(&mut self, reason: Reason, token: Option<TokenId>) {
        match token {
            Some(token) => self.request(reason, token),
            None => {
                self.spare = None;
                self.state = State::LoggingIn { reason };
            }
        }
    }

    /// Handles the answer to a login. The token `is_owned` if leasehold may revoke it, and `is_of_use` if a lease under
    /// it could be used.
    pub(super) fn logged_in(
        &mut self,
        token: TokenId,
        is_owned: bool,
        is_wanted: bool,
        is_of_use: bool,
    ) -> Received {
        let Some(reason) = self.logging_in() else { return Received::Unwanted };
        let is_discarded = std::mem::take(&mut self.discard);
        if !is_wanted || is_discarded {
            self.spare = None;
            self.state = State::Idle;
            return Received::Unwanted;
        }
        if !is_of_use {
            self.spare = None;
            return Received::OfNoUse;
        }
        if is_owned {
            self.spare = Some(token);
        }
        self.request(reason, token);
        Received::Used
    }

    /// Sends a creds request under this token.
    pub(super) fn request(&mut self, reason: Reason, token: TokenId) {
        self.state = State::Requesting { reason, token };
    }

    /// Handles the answer to a creds request: this generation, and how long it is usable.
    pub(super) fn granted(
        &mut self,
        now: Time,
        number: GenerationId,
        usable: Duration,
        is_wanted: bool,
        is_out_of_turn: bool,
    ) -> Received {
        let Some((reason, token)) = self.requesting() else { return Received::Unwanted };
        self.limit.answered();
        self.drop_spare(token);
        if is_out_of_turn {
            self.limit.granted_out_of_turn(now);
        }
        let is_discarded = std::mem::take(&mut self.discard);
        if !is_wanted || is_discarded {
            self.state = State::Idle;
            Received::Unwanted
        } else if usable < schedule::LEAST_USABLE {
            Received::OfNoUse
        } else {
            self.prove(reason, number);
            Received::Used
        }
    }

    /// This generation is proved.
    pub(super) fn prove(&mut self, reason: Reason, number: GenerationId) {
        self.state = State::Proving(Candidate::new(reason, number));
    }

    /// The candidate is proved again. See [`Candidate::prove_later`].
    pub(super) fn prove_later(
        &mut self,
        now: Time,
        unproved: Unproved,
        most: Duration,
        patience_ends_at: Time,
        jitter: Jitter,
    ) {
        if let State::Proving(candidate) = &mut self.state {
            candidate.prove_later(now, unproved, most, patience_ends_at, jitter);
        }
    }

    /// A creds request failed. Records what this means for its token, and whether a credential may have been made.
    pub(super) fn not_granted(&mut self, now: Time, failure: Failure) {
        let Some((_, token)) = self.requesting() else { return };
        self.limit.answered();
        match failure {
            Failure::TimedOut | Failure::Unusable => {
                self.limit.granted_for_nothing(now);
                self.drop_spare(token);
            }
            // A corrected policy may apply only to tokens of later logins.
            Failure::TokenDead | Failure::Forbidden => self.drop_spare(token),
            _ => {}
        }
    }

    /// Whether the failed request was made with an earlier configuration. It is then repeated at once.
    pub(super) fn is_discarded(&mut self, is_closed: bool) -> bool {
        let is_discarded = std::mem::take(&mut self.discard) && !is_closed;
        if is_discarded {
            self.state = State::Idle;
        }
        is_discarded
    }

    /// An attempt failed. `left`: how long a credential is still usable. If the route `is_closed`, nothing follows.
    /// Returns when the next attempt is made.
    pub(super) fn fail(
        &mut self,
        now: Time,
        class: FailureClass,
        left: Option<Duration>,
        is_closed: bool,
        jitter: Jitter,
    ) -> Time {
        if class == FailureClass::ProofRefused && left.is_none() {
            // The next grant is out of turn, and would probably be useless as well.
            self.limit.granted_for_nothing(now);
        }
        let until = now + class.back_off(self.failures, left, jitter);
        self.failures = self.failures.saturating_add(1);
        self.discard = false;
        self.state = if is_closed { State::Idle } else { State::BackOff { until, slow: class.is_refusal() } };
        until
    }

    /// The candidate is published, or becomes the standby.
    pub(super) fn succeed(&mut self) {
        self.state = State::Idle;
        self.failures = 0;
    }

    /// Drops the candidate. Another credential may be requested at once.
    pub(super) fn abandon(&mut self) {
        self.state = State::Idle;
    }

    /// Drops a candidate that a host has refused, and returns it so that it is given back.
    pub(super) fn abandon_refused(&mut self) -> Option<GenerationId> {
        let candidate = self.candidate().filter(Candidate::waits_refused)?;
        self.state = State::Idle;
        Some(candidate.number())
    }

    /// Ends the back-off after a refusal, which assumed that a credential serves the route.
    pub(super) fn end_slow_back_off(&mut self) {
        if matches!(self.state, State::BackOff { slow: true, .. }) {
            self.state = State::Idle;
        }
    }

    /// The configuration has changed, so results of earlier requests are not used. Returns the candidate, to be given
    /// back.
    pub(super) fn reload(&mut self) -> Option<GenerationId> {
        self.discard |= matches!(self.state, State::LoggingIn { .. } | State::Requesting { .. });
        self.stop()
    }

    /// Stops issuing; the request in flight is waited for. Returns the candidate, to be given back.
    pub(super) fn stop(&mut self) -> Option<GenerationId> {
        self.spare = None;
        let candidate = self.candidate();
        if !matches!(self.state, State::LoggingIn { .. } | State::Requesting { .. }) {
            self.state = State::Idle;
        }
        candidate.map(|candidate| candidate.number())
    }

    /// Does not keep this token for the next issuance.
    pub(super) fn drop_spare(&mut self, token: TokenId) {
        if self.spare == Some(token) {
            self.spare = None;
        }
    }
}
