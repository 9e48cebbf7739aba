//! From a StartupMessage to a session upstream: which credential, which host, and what a refusal means. Floor 4.
//!
//! ```text
//!   current ──▶ enter ──▶ each host in turn ──ready──▶ session
//!      ▲                      │ its lease has ended meanwhile, as after a suspend
//!      │◀─────────────────────┤ suspect refusal: the lease is checked
//!      │  lost ◀──────────────┤
//!      └─ replaced ◀──────────┘ twice by a host that is not lagging
//! ```
//!
//! A host that may lag behind the one that proved a credential is tried with the credential before it at once; without one,
//! it is waited for, and then passed over.

mod refused;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::error::{Error, Failed};
use super::reasons::Reasons;
use super::routes::SessionRoute;
use crate::clock;
use crate::credentials::{Generation, Guard, Replacement, Verdict};
use crate::postgres::protocol::startup::{self, StartupMessage};
use crate::postgres::relay;
use crate::postgres::upstream::{LoginError, Turn, UpstreamSession};
use refused::{Lag, Next, lag, next};

/// One client's login.
pub(super) struct Login<'a> {
    pub(super) route: &'a SessionRoute,
    pub(super) startup: &'a StartupMessage,
    /// The database that the upstream is asked for.
    pub(super) database: &'a [u8],
    /// How much longer it may wait, for credentials and for hosts that lag, all its waits together.
    pub(super) wait: Duration,
}

/// The outcome of trying all hosts with one generation.
enum Answer {
    /// A session; with the guard of an earlier generation, where the host took that one.
    UpstreamSession(Box<UpstreamSession>, Option<Guard>),
    /// Its lease is gone; a fresh credential is on its way.
    Lost,
    /// No host took it, and those that refused it lag behind; nor did they take an earlier one.
    Lagging,
    /// A host that does not lag refused it twice, and this one is there in its place.
    Replaced(Arc<Generation>),
    Failed(Error),
}

/// The outcome of trying an earlier credential at a host that lags.
enum Earlier {
    UpstreamSession(Box<UpstreamSession>, Guard),
    /// No earlier credential is usable, or the host may not know it yet either.
    None,
    /// The host refuses a credential that it has had the time to know.
    Refused,
    Failed(LoginError),
}

impl Login<'_> {
    /// Logs in, and gives the session upstream with its place in its generation. No byte of it reaches the client, so all is
    /// tried again as often as it makes sense.
    ///
    /// Not cancel safe: dropped, it leaves a server session that ends when the socket's end is noticed.
    pub(super) async fn run(&mut self) -> Result<(Box<UpstreamSession>, Guard), Failed> {
        let mut reasons = Reasons::default();
        let outcome = self.log_in(&mut reasons).await;
        self.report_servers(outcome.as_ref().err(), &reasons);
        outcome.map_err(|error| Failed { error, reasons })
    }

    /// Whether the servers give sessions: an error that is about this client alone says nothing of that.
    fn report_servers(&self, error: Option<&Error>, reasons: &Reasons) {
        let credentials = &self.route.credentials;
        match error {
            None => credentials.servers_give_sessions(),
            Some(error) if error.is_of_servers() => credentials.no_server_gives_sessions(reasons.to_string()),
            Some(_) => {}
        }
    }

    async fn log_in(&mut self, reasons: &mut Reasons) -> Result<(Box<UpstreamSession>, Guard), Error> {
        let mut generation = self.current().await?;
        // Generations that ended while a login with them was under way are counted apart: they were not at fault.
        let (mut failed, mut ended) = (0, 0);
        while failed < MAX_FAILED && ended < MAX_ENDED {
            let Some(guard) = generation.enter() else {
                failed += 1;
                generation = self.current().await?;
                continue;
            };
            generation = match self.try_hosts(&generation, reasons).await {
                Answer::UpstreamSession(session, earlier) => {
                    let mut guard = earlier.unwrap_or(guard);
                    guard.upstream_opened();
                    guard.generation().accepted_by(&session.address.to_string());
                    if !guard.generation().has_ended(clock::now()) {
                        return Ok((session, guard));
                    }
                    ended += 1;
                    let gone_by = clock::now() + PART_WITHIN;
                    let parting = relay::terminate_upstream(session.stream, guard, true, gone_by);
                    let ((), next) = tokio::join!(parting, self.current());
                    next?
                }
                // The end may be why: the server or the network had no more patience with a machine that was suspended.
                Answer::Failed(Error::Upstream(_)) | Answer::Lost if generation.has_ended(clock::now()) => {
                    ended += 1;
                    self.current().await?
                }
                Answer::Lost => {
                    failed += 1;
                    self.current().await?
                }
                Answer::Lagging => {
                    failed += 1;
                    self.newer(&generation).await.ok_or(Error::CredentialRefused)?
                }
                Answer::Replaced(fresh) => {
                    failed += 1;
                    fresh
                }
                Answer::Failed(error) => return Err(error),
            };
        }
        Err(if ended < MAX_ENDED { Error::CredentialRefused } else { Error::NoCredential })
    }

    async fn current(&mut self) -> Result<Arc<Generation>, Error> {
        let current = self.route.credentials.current(self.wait);
        spending(&mut self.wait, current).await.map_err(|_| Error::NoCredential)
    }

    async fn replace(&mut self, refused: &Generation) -> Replacement {
        let fresh = self.route.credentials.replace(refused.number(), self.wait);
        spending(&mut self.wait, fresh).await
    }

    async fn newer(&mut self, lagging: &Generation) -> Option<Arc<Generation>> {
        let newer = self.route.credentials.newer(lagging.number(), self.wait);
        spending(&mut self.wait, newer).await
    }

    async fn check(&mut self, suspect: &Generation) -> Verdict {
        let verdict = self.route.credentials.check(suspect.number(), self.wait);
        spending(&mut self.wait, verdict).await
    }

    /// Waits for a host that lags. False if this login may not wait any longer.
    async fn pause(&mut self, pause: Duration) -> bool {
        let pause = tokio::time::sleep(pause.min(self.wait));
        spending(&mut self.wait, pause).await;
        !self.wait.is_zero()
    }

    /// A host that does not lag has refused this credential twice.
    async fn replaced(&mut self, generation: &Generation, refusal: LoginError) -> Answer {
        match (self.replace(generation).await, refusal) {
            (Replacement::Fresh(fresh), _) => Answer::Replaced(fresh),
            (Replacement::NotNeeded, LoginError::Refused(refusal)) => Answer::Failed(Error::Refused(refusal)),
            (Replacement::NotNeeded | Replacement::None, _) => Answer::Failed(Error::CredentialRefused),
        }
    }

    /// Tries the hosts in their order. A server's own error is final unless it is about the credential, or the server
    /// is not ready and there are others.
    async fn try_hosts(&mut self, generation: &Generation, reasons: &mut Reasons) -> Answer {
        let startup = match self.startup_for(generation) {
            Ok(startup) => startup,
            Err(error) => return Answer::Failed(Error::Startup(error)),
        };
        let mut failed: Option<Error> = None;
        let mut turns = self.route.upstream.order();
        while let Some(mut turn) = turns.pop_front() {
            match self.try_host(&mut turn, &startup, generation, reasons).await {
                Answer::Lagging => {
                    self.next_are_the_other_addresses(&mut turns, turn).await;
                }
                Answer::Failed(Error::Upstream(error @ LoginError::Unsuitable(_))) => {
                    turns.extend(self.route.upstream.second(turn));
                    let turn = error.address().map_or(turn, |address| turn.at(address));
                    self.next_are_the_other_addresses(&mut turns, turn).await;
                    // That no other server can be reached says more.
                    failed.get_or_insert(Error::Upstream(error));
                }
                Answer::Failed(Error::Upstream(error)) => {
                    // A server's own error says more than another server's silence.
                    if !matches!(failed, Some(Error::Refused(_))) {
                        failed = Some(Error::Upstream(error));
                    }
                }
                Answer::Failed(Error::Refused(refusal)) if refusal.is_not_ready() => {
                    failed = Some(Error::Refused(refusal));
                }
                Answer::Failed(Error::Refused(refusal)) if refusal.is_suspect() => {
                    failed = Some(Error::Refused(refusal));
                }
                answer => return answer,
            }
        }
        failed.map_or(Answer::Lagging, Answer::Failed)
    }

    /// The StartupMessage that the upstream gets.
    fn startup_for(&self, generation: &Generation) -> Result<BytesMut, startup::Error> {
        let SessionRoute { tag, set_role, .. } = self.route;
        let encode = |startup: &StartupMessage| {
            startup.for_upstream(generation.username(), self.database, set_role.as_deref())
        };
        match tag {
            // Without the tag it may not be too long.
            Some(tag) => encode(&self.startup.tagged(tag)).or_else(|_| encode(self.startup)),
            None => encode(self.startup),
        }
    }

    /// Each address of a name may be a server of its own.
    async fn next_are_the_other_addresses(&self, turns: &mut VecDeque<Turn>, turn: Turn) {
        for further in self.route.upstream.other_addresses(turn).await {
            turns.push_front(further);
        }
    }

    async fn try_host(
        &mut self,
        turn: &mut Turn,
        startup: &[u8],
        generation: &Generation,
        reasons: &mut Reasons,
    ) -> Answer {
        let mut pause = FIRST_PAUSE;
        let (mut retried, mut earlier_tried, mut earlier_refused) = (false, false, false);
        loop {
            let (user, password) = (generation.username(), generation.password());
            let error = match self.route.upstream.login(*turn, startup, user, password).await {
                Ok(session) => return Answer::UpstreamSession(Box::new(session), None),
                Err(error) => error,
            };
            reasons.note(self.route.upstream.host_name(turn.host()), &error);
            if !error.is_suspect() {
                return Answer::failed(error);
            }
            if generation.has_ended(clock::now()) {
                return Answer::Lost;
            }
            self.route.metrics.suspect_login();
            let verdict = self.check(generation).await;
            let address = error.address().map(ToString::to_string).unwrap_or_default();
            // The name may lead to another server the next time.
            *turn = error.address().map_or(*turn, |address| turn.at(address));
            let mut lag = lag(generation.is_accepted_elsewhere(&address), self.is_young(generation));
            if lag != Lag::No && verdict != Verdict::Lost && !std::mem::replace(&mut earlier_tried, true) {
                match self.log_in_with_earlier(*turn, generation).await {
                    Earlier::UpstreamSession(session, guard) => {
                        return Answer::UpstreamSession(session, Some(guard));
                    }
                    Earlier::Failed(error) => {
                        reasons.note(self.route.upstream.host_name(turn.host()), &error);
                        return Answer::failed(error);
                    }
                    Earlier::Refused => earlier_refused = true,
                    Earlier::None => {}
                }
            }
            if earlier_refused {
                // A host that refuses what it has known for long does not lag.
                lag = Lag::No;
            }
            let next = next(verdict, lag, retried);
            if matches!(next, Next::Retry | Next::Replace) {
                self.log_refusal(generation, &address);
            }
            match next {
                Next::Lost => return Answer::Lost,
                Next::OtherHost => return Answer::Lagging,
                Next::Replace => return self.replaced(generation, error).await,
                Next::Retry => retried = true,
                Next::WaitForHost if !self.pause(pause.mul_f64(rand::random_range(0.5..1.0))).await => {
                    return Answer::Lagging;
                }
                Next::WaitForHost => pause = (pause * 2).min(LONGEST_PAUSE),
            }
        }
    }

    /// Whether a credential may not have reached every server yet.
    fn is_young(&self, generation: &Generation) -> bool {
        clock::now().since(generation.published_at()) < self.route.upstream.replica_grace()
    }

    /// Tries the credentials before this one at a host that does not know it yet: what they are for is the same.
    async fn log_in_with_earlier(&self, turn: Turn, generation: &Generation) -> Earlier {
        let mut number = generation.number();
        while let Some(earlier) = self.route.credentials.before(number) {
            number = earlier.number();
            let (Some(guard), Ok(startup)) = (earlier.enter(), self.startup_for(&earlier)) else {
                continue;
            };
            let (user, password) = (earlier.username(), earlier.password());
            match self.route.upstream.login(turn, &startup, user, password).await {
                Ok(session) => return Earlier::UpstreamSession(Box::new(session), guard),
                Err(error) if !error.is_suspect() => return Earlier::Failed(error),
                Err(_) if self.is_young(&earlier) => {}
                Err(_) => return Earlier::Refused,
            }
        }
        Earlier::None
    }

    fn log_refusal(&self, generation: &Generation, address: &str) {
        if let Some(left_out) = self.route.throttle.admit(clock::now()) {
            tracing::warn!(
                route = self.route.credentials.name(),
                lease.generation = generation.number().get(),
                db.user = generation.username(),
                upstream.addr = address,
                left_out,
                "the server refuses a credential whose lease is not gone: its clock ahead, or its password changed?"
            );
        }
    }
}

impl Answer {
    fn failed(error: LoginError) -> Self {
        Self::Failed(match error {
            LoginError::Refused(refusal) => Error::Refused(refusal),
            error => Error::Upstream(error),
        })
    }
}

/// Waits, and takes the time that went by off what is left of it. Time during which the machine was suspended does not
/// count.
async fn spending<T>(left: &mut Duration, wait: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    let came = wait.await;
    *left = left.saturating_sub(begun.elapsed());
    came
}

/// How many credentials may fail a login: the current one, and a fresh one for each way in which it can.
const MAX_FAILED: usize = 8;
/// How many may end before it is done. Only rotations on command, each with next to no drain, can do that.
const MAX_ENDED: usize = 64;
/// How long a server may take to let a session go that is not used.
const PART_WITHIN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_waits_of_a_login_share_one_span() {
        let mut left = Duration::from_secs(10);
        for wanted in [6, 2, 0, 0] {
            spending(&mut left, tokio::time::sleep(Duration::from_secs(4))).await;
            assert_eq!(left.as_secs(), wanted);
        }
    }
}
