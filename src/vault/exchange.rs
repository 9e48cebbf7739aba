//! Builds a request, sends it in its turn, and records its outcome. Floor 2.

use std::time::{SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use rustify::endpoint::Endpoint;
use tokio::time::Instant;
use vaultrs::api::EndpointMiddleware;

use super::bounds::{Bounds, Limit};
use super::classify::classify;
use super::operation::Operation;
use super::outcome::{self, Standing};
use super::transport::{NoReply, Reply};
use super::{Failure, Kind, Vault, replies};
use crate::clock;
use crate::metrics::{self, VaultOutcome};
use crate::secret::Secret;

impl Vault {
    /// A request with a token, without a subject.
    pub(super) async fn ask<E: Endpoint>(
        &self,
        operation: Operation,
        token: &Secret,
        endpoint: E,
        bounds: impl Into<Bounds>,
    ) -> Result<Reply, Failure> {
        self.ask_about("", operation, token, endpoint, bounds).await
    }

    /// A request with a token. A 403 may mean a dead token or a policy: a look-up of the token decides. If it does not,
    /// neither is assumed. `subject` is the user of the lease to renew, or the path at which a credential is read.
    pub(super) async fn ask_about<E: Endpoint>(
        &self,
        subject: &str,
        operation: Operation,
        token: &Secret,
        endpoint: E,
        bounds: impl Into<Bounds>,
    ) -> Result<Reply, Failure> {
        let limit = Limit::new(bounds.into());
        let failure = match self.call_about(subject, operation, Some(token), endpoint, &limit, &[]).await {
            Err(failure) if failure.kind == Kind::Forbidden => failure,
            other => return other,
        };
        let kind = match self.facts(token, &limit).await {
            Ok(_) => Kind::Forbidden,
            Err(look_up) => match look_up.kind {
                Kind::Forbidden | Kind::TokenDead => look_up.kind,
                _ => Kind::Transient,
            },
        };
        Err(failure.meaning(kind))
    }

    /// A request without a subject.
    pub(super) async fn call<E: Endpoint>(
        &self,
        operation: Operation,
        token: Option<&Secret>,
        endpoint: E,
        limit: &Limit,
        secrets: &[&Secret],
    ) -> Result<Reply, Failure> {
        self.call_about("", operation, token, endpoint, limit, secrets).await
    }

    /// A request whose answer is a success or a classified failure. `secrets` were sent in its body.
    async fn call_about<E: Endpoint>(
        &self,
        subject: &str,
        operation: Operation,
        token: Option<&Secret>,
        endpoint: E,
        limit: &Limit,
        secrets: &[&Secret],
    ) -> Result<Reply, Failure> {
        let request = self.build(operation, token, endpoint)?;
        let reply = self.exchange(operation, &request, limit).await?;
        let (status, path) = (reply.status, request.uri().path());
        if !outcome::is_vaults(operation, &reply) {
            return Err(Failure::not_vaults(operation, status, &reply.body)
                .at(path)
                .with_granted(&reply.body, subject));
        }
        if (200..300).contains(&status) {
            return Ok(reply);
        }
        let errors = replies::errors(&reply.body).unwrap_or_default();
        let kind = classify(operation, status, Some(&errors), subject);
        let said = errors.first().map_or("", String::as_str);
        let known: Vec<&Secret> = secrets.iter().copied().chain(token).collect();
        Err(Failure::answered(operation, kind, status, said, &known).at(path))
    }

    /// vaultrs panics on a token or namespace that is not a valid header value. So the namespace is checked at the
    /// start, and the token here.
    pub(super) fn build<E: Endpoint>(
        &self,
        operation: Operation,
        token: Option<&Secret>,
        endpoint: E,
    ) -> Result<http::Request<Vec<u8>>, Failure> {
        let middleware = EndpointMiddleware {
            token: token.map_or_else(String::new, |token| token.expose().to_owned()),
            version: "v1".to_owned(),
            wrap: None,
            // The health is the same for all namespaces, and cannot be requested in a namespace.
            namespace: self.config.namespace.clone().filter(|_| operation != Operation::Health),
        };
        let refuse = |why| Failure::local(operation, Kind::Refused, why).of_ours();
        if HeaderValue::from_str(&middleware.token).is_err() {
            return Err(refuse("the token holds a character that no HTTP header may hold"));
        }
        endpoint
            .with_middleware(&middleware)
            .request(&self.transport.base())
            .map_err(|_| refuse("the path cannot be put into a URL"))
    }

    /// Waits for the request's turn, sends it, and records its outcome.
    pub(super) async fn exchange(
        &self,
        operation: Operation,
        request: &http::Request<Vec<u8>>,
        limit: &Limit,
    ) -> Result<Reply, Failure> {
        let not_sent = |why: &str| Failure::local(operation, Kind::Transient, why);
        if Instant::now() >= limit.ends_at() {
            return Err(not_sent("not sent: no time is left for it"));
        }
        let path = request.uri().path();
        let mut turn = self.transport.pace.turn(path, limit).await.map_err(not_sent)?;
        limit.is_sent();
        let sent = Instant::now();
        let result = self.transport.send(request, &mut turn, limit).await;
        let outcome = outcome::outcome(operation, &result);
        let (went, is_of_path) = outcome::about(operation, &result);
        turn.went(went, is_of_path);
        // A quota applies to the whole cluster. The trouble of one node says nothing about the other nodes.
        if let Ok(Reply { retry_after: Some(span), status, .. }) = result
            && (status == 429 || self.transport.is_alone())
        {
            self.transport.pace.rest(path, span);
        }
        metrics::vault_request(operation.as_str(), outcome, sent.elapsed());
        self.note(outcome::standing(operation, &result), outcome);
        result.map_err(|no_reply| match no_reply {
            NoReply::NotSent(why) | NoReply::Untrusted(why) | NoReply::Redirected(why) => not_sent(&why),
            NoReply::Lost(why, body) => {
                not_sent(&why).with_outcome_unknown().with_granted(&body, read_at(path))
            }
            NoReply::TimedOut(body) => Failure::local(operation, Kind::TimedOut, "no answer in time")
                .with_granted(&body, read_at(path)),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "people read the time of the last success")]
    fn note(&self, standing: Standing, outcome: VaultOutcome) {
        let mut seen = self.seen();
        seen.standing = standing;
        seen.changes.note(clock::now(), standing);
        if outcome == VaultOutcome::Ok {
            let now = SystemTime::now();
            seen.last_success = Some(now);
            metrics::vault_succeeded(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
    }
}

/// The path without the version of the API.
fn read_at(path: &str) -> &str {
    path.trim_start_matches("/v1/")
}

/// The failure for a successful answer that cannot be parsed. Vault has done something, with unknown result.
pub(super) fn unreadable(operation: Operation, why: replies::Unusable) -> Failure {
    Failure::local(operation, Kind::Transient, why.as_str()).with_outcome_unknown()
}
