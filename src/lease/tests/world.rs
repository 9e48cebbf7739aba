//! A model of Vault and of the database: the real state, whatever the machines assume.

use std::time::Duration;

use super::script::{at, secs};
use crate::lease::{Action, Event, Failure, GenerationId, Settings, TokenFacts, TokenId};
use crate::time::Time;

/// splitmix64, so that a run depends only on its scenario.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn span(&mut self, from: f64, to: f64) -> Duration {
        secs(from + (to - from) * self.roll())
    }

    pub(super) fn chance(&mut self, of: f64) -> bool {
        self.roll() < of
    }
}

/// The input of a run. Spans are seconds.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) seed: u64,
    pub(super) lease: f64,
    /// For how long a lease may be renewed, in leases.
    pub(super) renewed_for: f64,
    pub(super) renewable: bool,
    pub(super) tokens: Tokens,
    pub(super) token_ttl: f64,
    /// For how long a token may be renewed, in its own TTLs; `None`: without limit.
    pub(super) token_renewed_for: Option<f64>,
    pub(super) may_renew: bool,
    pub(super) may_revoke: bool,
    pub(super) may_renew_self: bool,
    pub(super) may_revoke_self: bool,
    /// In leases.
    pub(super) rotate_after: Option<f64>,
    pub(super) max_age: Option<f64>,
    pub(super) drain: Option<f64>,
    pub(super) replica_grace: f64,
    pub(super) standby: bool,
    /// For each fault: the leases since the previous fault, its kind, and its length in leases.
    pub(super) faults: Vec<(f64, Fault, f64)>,
    /// Whether the world is in order again before the close.
    pub(super) heals: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Tokens {
    Login,
    Batch,
    /// The token is given to us. An agent replaces it at half its life, or within half an hour after its death.
    Agent,
    /// The token is given to us. It is replaced by hand within half an hour after its death.
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fault {
    /// No server listens.
    Refuses,
    /// No request is carried out, and no reply comes back.
    Swallows,
    /// Each request is carried out, and no reply comes back.
    LosesReplies,
    /// Each request is carried out, and many replies come too late.
    Slow,
    LoginRefused,
    DatabaseDown,
    DatabaseRefuses,
    LeaseRevoked,
    TokenRevoked,
    RenewalForbidden,
    Rotate,
    RotateWithDrain,
    Denials,
    /// The process ends without a shutdown, and the next process begins.
    Crash,
}

impl Scenario {
    pub(super) fn settings(&self) -> Settings {
        Settings {
            rotate_after: self.rotate_after.map(|leases| secs(leases * self.lease)),
            max_age: self.max_age.map(|leases| secs(leases * self.lease)),
            drain: self.drain.map(|leases| secs(leases * self.lease)),
            replica_grace: secs(self.replica_grace),
            standby: self.standby,
            ..Settings::new(self.seed)
        }
    }
}

#[derive(Clone, Hash)]
pub(super) struct Token {
    pub(super) ends_at: Time,
    pub(super) max_ends_at: Time,
    pub(super) dead: bool,
    pub(super) killed: bool,
}

#[derive(Clone, Hash)]
pub(super) struct Lease {
    pub(super) token: TokenId,
    pub(super) ends_at: Time,
    pub(super) max_ends_at: Time,
    pub(super) dead: bool,
    pub(super) killed: bool,
}

#[derive(Clone, Hash)]
pub(super) struct Vault {
    pub(super) tokens: Vec<Token>,
    pub(super) leases: Vec<Lease>,
    /// The token in the file.
    handed: Option<TokenId>,
    pub(super) faults: Vec<(Fault, Time)>,
}

impl Vault {
    pub(super) fn new() -> Self {
        Self { tokens: Vec::new(), leases: Vec::new(), handed: None, faults: Vec::new() }
    }

    pub(super) fn has(&self, fault: Fault, now: Time) -> bool {
        self.faults.iter().any(|(f, until)| *f == fault && now < *until)
    }

    pub(super) fn token(&mut self, id: TokenId) -> &mut Token {
        &mut self.tokens[id.0 as usize - 1]
    }

    pub(super) fn token_lives(&self, id: TokenId, now: Time) -> bool {
        let token = &self.tokens[id.0 as usize - 1];
        !token.dead && now < token.ends_at
    }

    /// The real end of lease and token, without further events.
    pub(super) fn true_end(&self, lease: usize) -> Time {
        let lease = &self.leases[lease];
        lease.ends_at.min(self.tokens[lease.token.0 as usize - 1].ends_at)
    }

    pub(super) fn lease_lives(&self, lease: usize, now: Time) -> bool {
        !self.leases[lease].dead
            && now < self.leases[lease].ends_at
            && self.token_lives(self.leases[lease].token, now)
    }

    pub(super) fn was_killed(&self, lease: usize) -> bool {
        let lease = &self.leases[lease];
        lease.killed || self.tokens[lease.token.0 as usize - 1].killed
    }

    fn make_token(&mut self, scenario: &Scenario, now: Time) -> TokenId {
        let max_ends_at =
            scenario.token_renewed_for.map_or(Time::NEVER, |times| now + secs(times * scenario.token_ttl));
        let ends_at = (now + secs(scenario.token_ttl)).min(max_ends_at);
        self.tokens.push(Token { ends_at, max_ends_at, dead: false, killed: false });
        TokenId(self.tokens.len() as u64)
    }

    /// The agent checks its file. Returns the time of its next check.
    pub(super) fn tend_file(&mut self, scenario: &Scenario, now: Time) -> Time {
        let half = secs(scenario.token_ttl / 2.0);
        let lives = |id: TokenId, at: Time| self.token_lives(id, at);
        let is_due = match (self.handed, scenario.tokens) {
            (Some(id), Tokens::Agent) => !lives(id, now) || !lives(id, now + half),
            (Some(id), _) => !lives(id, now),
            (None, _) => true,
        };
        if is_due {
            self.handed = Some(self.make_token(scenario, now));
        }
        now + half.min(secs(1800.0))
    }

    /// Carries out a request, and returns the answer. A granted lease is the last of `leases`.
    pub(super) fn perform(&mut self, scenario: &Scenario, now: Time, sent_at: Time, action: Action) -> Event {
        let slack = Duration::from_millis(500);
        let granted = |ends_at: Time| secs(ends_at.since(now).as_secs_f64().round());
        match action {
            Action::LogIn { .. } if self.has(Fault::LoginRefused, now) => {
                Event::LogInFailed(Failure::Refused)
            }
            Action::LogIn { .. } => {
                let owned = matches!(scenario.tokens, Tokens::Login | Tokens::Batch);
                let id = match self.handed.filter(|_| !owned) {
                    Some(id) if !self.token_lives(id, now) => return Event::LogInFailed(Failure::TokenDead),
                    Some(id) => id,
                    None => self.make_token(scenario, now),
                };
                let facts = TokenFacts {
                    sent_at,
                    ttl: Some(granted(self.token(id).ends_at)),
                    renewable: scenario.tokens != Tokens::Batch,
                    owned: scenario.tokens == Tokens::Login,
                };
                Event::LoggedIn(id, facts)
            }
            Action::Issue(id) if !self.token_lives(id, now) => Event::IssueFailed(Failure::TokenDead),
            Action::Issue(_) if self.has(Fault::DatabaseDown, now) => Event::IssueFailed(Failure::Transient),
            Action::Issue(id) => {
                let max_ends_at = now + secs(scenario.renewed_for * scenario.lease);
                let mut ends_at = (now + secs(scenario.lease)).min(max_ends_at);
                if scenario.tokens == Tokens::Batch {
                    ends_at = ends_at.min(self.token(id).ends_at);
                }
                let event =
                    Event::Granted { sent_at, lease: granted(ends_at), renewable: scenario.renewable };
                let ends_at = ends_at - slack;
                self.leases.push(Lease { token: id, ends_at, max_ends_at, dead: false, killed: false });
                event
            }
            Action::RenewToken(id, _) if !self.token_lives(id, now) => {
                Event::TokenRenewFailed(id, Failure::TokenDead)
            }
            Action::RenewToken(id, _) if !scenario.may_renew_self || scenario.tokens == Tokens::Batch => {
                Event::TokenRenewFailed(id, Failure::Forbidden)
            }
            Action::RenewToken(id, _) => {
                let token = self.token(id);
                token.ends_at = (now + secs(scenario.token_ttl)).min(token.max_ends_at);
                let ttl = Some(granted(token.ends_at));
                Event::TokenRenewed { token: id, sent_at, ttl, renewable: true }
            }
            Action::RevokeToken(id) if !self.token_lives(id, now) => {
                Event::TokenRevokeFailed(id, Failure::TokenDead)
            }
            Action::RevokeToken(id) if !scenario.may_revoke_self => {
                Event::TokenRevokeFailed(id, Failure::Forbidden)
            }
            Action::RevokeToken(id) => {
                self.token(id).dead = true;
                Event::TokenRevoked(id)
            }
            other => unreachable!("{other:?}"),
        }
    }

    pub(super) fn renew(
        &mut self,
        scenario: &Scenario,
        now: Time,
        sent_at: Time,
        number: GenerationId,
        lease: usize,
    ) -> Event {
        let id = self.leases[lease].token;
        let failed = |failure| Event::LeaseRenewFailed(number, failure);
        if !self.token_lives(id, now) {
            return failed(Failure::TokenDead);
        }
        if !scenario.may_renew || self.has(Fault::RenewalForbidden, now) {
            return failed(Failure::Forbidden);
        }
        if !self.lease_lives(lease, now) {
            return failed(Failure::Gone);
        }
        if !scenario.renewable {
            return failed(Failure::Refused);
        }
        if self.has(Fault::DatabaseDown, now) {
            return failed(Failure::Transient);
        }
        let token_ends_at = self.token(id).ends_at;
        let held = &mut self.leases[lease];
        let mut ends_at = (now + secs(scenario.lease)).min(held.max_ends_at);
        if scenario.tokens == Tokens::Batch {
            ends_at = ends_at.min(token_ends_at);
        }
        let span = secs(ends_at.since(now).as_secs_f64().round());
        if span.is_zero() {
            return failed(Failure::CannotExtend);
        }
        held.ends_at = held.ends_at.max(ends_at - Duration::from_millis(500));
        Event::LeaseRenewed { number, sent_at, lease: span, renewable: true }
    }

    pub(super) fn revoke(
        &mut self,
        scenario: &Scenario,
        now: Time,
        number: GenerationId,
        lease: usize,
    ) -> Event {
        if !self.token_lives(self.leases[lease].token, now) {
            return Event::LeaseRevokeFailed(number, Failure::TokenDead);
        }
        if !scenario.may_revoke {
            return Event::LeaseRevokeFailed(number, Failure::Forbidden);
        }
        if self.has(Fault::DatabaseDown, now) {
            return Event::LeaseRevokeFailed(number, Failure::Transient);
        }
        self.leases[lease].dead = true;
        Event::LeaseRevoked(number)
    }
}

/// When a run begins.
pub(super) fn beginning() -> Time {
    at(1000.0)
}
