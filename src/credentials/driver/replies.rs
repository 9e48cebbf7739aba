//! Answers to requests: the driver takes them in, counts them, and gives them to the machine. Floor 3.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Driver;
use super::input::{Came, Credential, Input};
use super::repetitions::say;
use super::reporting::Area;
use crate::credentials::Lease;
use crate::credentials::proof::Proof;
use crate::credentials::requests::{VaultReply, meaning};
use crate::lease::{Event, Failure, GenerationId, TokenFacts, TokenId};
use crate::secret::Secret;
use crate::time::Time;
use crate::vault::RoleKind;
use crate::{metrics, vault};

/// How long a lease is tried to be given back whose reply does not say how long it lives, or says more.
const LONGEST_LEFT: Duration = Duration::from_secs(24 * 3600);

impl Driver {
    pub(super) fn take(&mut self, done: VaultReply) {
        match done {
            VaultReply::LoggedIn(sent_at, login) => self.logged_in(sent_at, login),
            VaultReply::LogInFailed(failure) => {
                self.failed("log in", None, &failure);
                self.refused(&failure);
                let event = Event::LogInFailed(meaning(&failure));
                self.step(Input::failed(event, format!("log in: {}", failure.reason())));
            }
            VaultReply::Granted(sent_at, grant) => self.granted(sent_at, grant),
            VaultReply::Read(sent_at, credential) => self.read(sent_at, credential),
            VaultReply::IssueFailed(failure) => {
                self.failed("issue", None, &failure);
                self.refused(&failure);
                self.metrics.issuance(match meaning(&failure) {
                    Failure::Transient | Failure::TimedOut => metrics::Issuance::Failed,
                    _ => metrics::Issuance::Refused,
                });
                let event = Event::IssueFailed(meaning(&failure));
                self.step(Input::failed(event, format!("issue: {}", failure.reason())));
            }
            VaultReply::LeaseLeft(token, sent_at, left) => self.lease_left(token, sent_at, left),
            VaultReply::LateReply(token) => self.step(Event::LateReply(token)),
            VaultReply::Proof(number, proof) => self.proof(number, proof),
            VaultReply::PublishedProof(number, proof) => self.published_proof(number, &proof),
            VaultReply::LeaseRenewed(number, sent_at, renewed) => {
                let (lease, renewable) = (renewed.ttl, renewed.renewable);
                self.step(Event::LeaseRenewed { number, sent_at, lease, renewable });
            }
            VaultReply::LeaseRenewFailed(number, failure) => {
                self.failed("renew", Some(number), &failure);
                self.metrics.renewal(match meaning(&failure) {
                    Failure::Transient | Failure::TimedOut => metrics::Renewal::Failed,
                    Failure::Forbidden | Failure::Refused | Failure::Unusable => metrics::Renewal::Forbidden,
                    Failure::Gone | Failure::CannotExtend | Failure::TokenDead => metrics::Renewal::Terminal,
                });
                self.step(Event::LeaseRenewFailed(number, meaning(&failure)));
            }
            VaultReply::TokenRenewed(token, sent_at, renewed) => {
                tracing::debug!(token.ttl_s = renewed.ttl.as_secs(), "token renewed");
                self.works_again(Area::TokenRenewal);
                // A renewal that says zero is a token without an end.
                let ttl = (!renewed.ttl.is_zero()).then_some(renewed.ttl);
                self.step(Event::TokenRenewed { token, sent_at, ttl, renewable: renewed.renewable });
            }
            VaultReply::TokenRenewFailed(token, failure) => {
                self.failed("renew the token", None, &failure);
                self.step(Event::TokenRenewFailed(token, meaning(&failure)));
            }
            VaultReply::LeaseRevoked(number, Ok(())) => self.step(Event::LeaseRevoked(number)),
            VaultReply::LeaseRevoked(number, Err(failure)) => self.lease_revoke_failed(number, &failure),
            VaultReply::LeaseLookedUp(number, answer) => self.lease_looked_up(number, answer),
            VaultReply::TokenRevoked(token, Ok(())) => self.step(Event::TokenRevoked(token)),
            VaultReply::TokenRevoked(token, Err(failure)) => {
                self.failed("revoke the token", None, &failure);
                self.step(Event::TokenRevokeFailed(token, meaning(&failure)));
            }
        }
    }

    fn logged_in(&mut self, sent_at: Time, login: vault::Login) {
        if login.num_uses == 1 && self.kind == RoleKind::Dynamic {
            say!(
                self.line("token", None, "one use"),
                error,
                "the token that the login gave can be used once only: Vault revokes a credential at once that is read \
                 with the last use of a token, so none is asked for; set token_num_uses of the login to 0"
            );
            self.requests.vault.login_was_of_use(false);
            self.metrics.issuance(metrics::Issuance::Refused);
            self.shared.was_refused.store(true, Ordering::Release);
            let error = "log in: the token can be used once only";
            self.remember(error);
            if !login.handed {
                // Its one use ends it: it is not left behind until its TTL.
                self.next_token += 1;
                let id = TokenId(self.next_token - 1);
                self.requests.revoke_token(self.for_giving_back_token(id), id, login.token);
            }
            self.step(Input::failed(Event::LogInFailed(Failure::Forbidden), error.to_owned()));
            return;
        }
        if !login.ttl_known {
            say!(
                self.line("look up the token", None, "forbidden"),
                warn,
                "the end of the token cannot be looked up: taken as none; grant it auth/token/lookup-self"
            );
        }
        let known = self.tokens.iter().find(|(_, token)| token.same(&login.token)).map(|(id, _)| *id);
        let id = known.unwrap_or_else(|| {
            let id = TokenId(self.next_token);
            self.next_token += 1;
            id
        });
        let facts = TokenFacts {
            sent_at,
            ttl: login.ttl,
            renewable: login.renewable && !login.batch,
            owned: !login.handed && !login.batch,
        };
        self.tokens.insert(id, login.token);
        if login.num_uses > 0 {
            self.counted.insert(id);
        }
        if login.handed {
            self.handed.insert(id);
        }
        self.requests.vault.login_was_of_use(true);
        self.step(Event::LoggedIn(id, facts));
    }

    fn granted(&mut self, sent_at: Time, grant: vault::Grant) {
        if self.generations.values().any(|g| *g.lease() == grant.lease) {
            say!(
                self.line("grant", None, "known"),
                error,
                "the credential came with a lease that is known already: a caching Vault proxy is in between; \
                 take it out of the way of leasehold",
                lease.id = grant.lease.tail(),
                db.user = grant.username
            );
            self.metrics.issuance(metrics::Issuance::Refused);
            self.requests.grant_was_of_use(false);
            let error = "issue: a caching Vault proxy is in between";
            self.remember(error);
            self.step(Input::failed(Event::IssueFailed(Failure::Refused), error.to_owned()));
            return;
        }
        self.metrics.issuance(metrics::Issuance::Ok);
        let event = Event::Granted { sent_at, lease: grant.ttl, renewable: grant.renewable };
        let vault::Grant { username, password, lease, ttl, .. } = grant;
        let came = Came::Issued { ttl };
        self.step(Input::with(event, Credential { username, password, lease, came }));
    }

    /// Gives a lease back that came without a credential that could be used.
    fn lease_left(&mut self, token: TokenId, sent_at: Time, left: vault::Leftover) {
        if self.generations.values().any(|g| *g.lease() == left.lease) {
            // Out of a cache: it is the lease of a credential that is in use.
            return;
        }
        let lease = left.ttl.unwrap_or(LONGEST_LEFT).min(LONGEST_LEFT);
        let event = Event::LeaseLeft { token, sent_at, lease };
        let vault::Leftover { username, lease, .. } = left;
        let password = Secret::new(String::new());
        let credential = Credential { username, password, lease, came: Came::Left };
        self.step(Input::with(event, credential));
    }

    fn read(&mut self, sent_at: Time, credential: vault::StaticCredential) {
        let is_known = self.publish.borrow().as_ref().is_some_and(|current| {
            current.username() == credential.username && current.password().same(&credential.password)
        });
        if is_known {
            tracing::debug!(ttl_s = credential.ttl.as_secs(), "the password is still the current one");
            self.works_again(Area::Credential);
            self.step(Event::Unchanged { sent_at, lease: credential.ttl });
            return;
        }
        self.metrics.issuance(metrics::Issuance::Ok);
        let event = Event::Granted { sent_at, lease: credential.ttl, renewable: false };
        let vault::StaticCredential { username, password, ttl } = credential;
        let (lease, came) = (Lease::none(), Came::Read { ttl });
        self.step(Input::with(event, Credential { username, password, lease, came }));
    }

    fn proof(&mut self, number: GenerationId, proof: Proof) {
        self.report_barrier(&proof);
        let (outcome, event) = match &proof {
            Proof::Accepted { address, .. } => {
                if let Some(generation) = self.generations.get(&number) {
                    generation.accepted_by(address);
                }
                (metrics::Proof::Ok, Event::Proved(number))
            }
            Proof::Refused { .. } => (metrics::Proof::Refused, Event::ProofRefused(number)),
            Proof::Lags => (metrics::Proof::Unprovable, Event::ProofLags(number)),
            Proof::Unprovable(_) => (metrics::Proof::Unprovable, Event::Unprovable(number)),
        };
        self.metrics.proof(outcome);
        let is_current = self.is_published(number);
        let is_doubted = self.replaces.iter().any(|reply| !reply.is_closed());
        if is_current && is_doubted && outcome == metrics::Proof::Ok {
            tracing::warn!(
                lease.generation = number.get(),
                db.user = self.user_of(number),
                "a login was refused with a credential that is good: it is not replaced, and the client is told what the \
                 server said; does the server demand another method for that database?"
            );
        }
        let error = proof.error_in_words(is_current);
        match (proof.error(is_current), &error) {
            (Some(kind), Some(reason)) => {
                // A server that refuses names the role, which is another one with each credential.
                let matter = if outcome == metrics::Proof::Refused { &kind } else { reason };
                say!(
                    self.line("prove", None, matter),
                    warn,
                    "not proved",
                    lease.generation = number.get(),
                    db.user = self.user_of(number),
                    outcome = outcome.as_str(),
                    reason = reason
                );
                self.remember_in_words(&kind, reason);
            }
            _ => self.repetitions.forget(|what| what == "prove"),
        }
        self.step(Input { event, credential: None, error });
        self.report_full(&proof);
    }
}
