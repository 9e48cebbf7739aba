//! The credentials of one route, as logins and operators see them. Floor 3.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Generation;
use super::history::{History, RouteHistory};
use super::outage::Outage;
use super::requests::Servers;
use super::settings::RouteSettings;
use super::status::RouteStatus;
use super::view::View;
use crate::clock;
use crate::lease::{DrainSpan, GenerationId, NotRotated, Verdict};
use crate::vault::Vault;

/// The handle of a route's driver.
pub(crate) struct Route {
    pub(super) name: String,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) published: watch::Receiver<Option<Arc<Generation>>>,
    pub(super) shared: Arc<Shared>,
    /// Cancelled when the driver has given everything back.
    pub(super) ended: CancellationToken,
}

/// What the driver leaves for its readers.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) view: std::sync::Mutex<View>,
    pub(super) history: std::sync::Mutex<History>,
    pub(super) outage: Outage,
    pub(super) has_had_credential: AtomicBool,
    pub(super) was_refused: AtomicBool,
    /// The server refuses the current credential, and there is no other.
    pub(super) is_refused: AtomicBool,
    pub(super) is_lazy: AtomicBool,
}

/// What a handle asks of its driver.
pub(super) enum Command {
    Check(GenerationId, oneshot::Sender<Verdict>),
    Replace(GenerationId, oneshot::Sender<NotReplaced>),
    Await(GenerationId, oneshot::Sender<NotReplaced>),
    Denial(GenerationId),
    Rotate(Option<DrainSpan>, oneshot::Sender<Result<RotateDone, RotateFailed>>),
    /// No login is given a session, for a reason that passes by itself.
    Away,
    Want,
    Reload(Box<Reload>),
    Retire,
    Close,
}

/// Why a refused credential is not replaced.
#[derive(Clone, Copy, Debug)]
pub(super) enum NotReplaced {
    /// It may not be replaced yet.
    TooEarly,
    /// It was proved, and lets in.
    LetsIn,
}

/// What a route goes by from now on.
pub(super) struct Reload {
    pub(super) settings: RouteSettings,
    pub(super) vault: Arc<Vault>,
    pub(super) servers: Servers,
    /// Whether a fresh credential is needed for it.
    pub(super) issue: bool,
}

/// What came of the wish for another credential than a refused one.
#[derive(Debug)]
pub(crate) enum Replacement {
    /// Another one is published.
    Fresh(Arc<Generation>),
    /// The refused one was proved, and lets in: what it was refused for is no matter of the credential.
    NotNeeded,
    /// None came in time, or none may be asked for yet.
    None,
}

/// No usable credential within the time given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no usable credential")]
pub(crate) struct NoCredential;

/// What a rotation on command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RotateDone {
    /// This generation was published.
    Published(GenerationId),
    /// A static role was read, and its password is the one that is known.
    Unchanged {
        /// Since when, RFC 3339 in UTC.
        since: String,
    },
}

/// Why a rotation on command failed. Nothing was drained.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RotateFailed {
    /// No fresh credential was published. With what Vault or a server has said, one line without secrets.
    #[error("{}", said.as_deref().unwrap_or_else(|| words(*why)))]
    NotRotated { why: NotRotated, said: Option<String> },
    /// A static role's password is published, or unchanged; its sessions cannot be ended.
    #[error("{reason}")]
    NotDrained {
        /// What was done, and how the sessions are ended.
        reason: String,
    },
}

impl RotateFailed {
    /// Nothing is issued any more.
    pub(super) const CLOSED: Self = Self::NotRotated { why: NotRotated::Closed, said: None };
}

fn words(why: NotRotated) -> &'static str {
    match why {
        NotRotated::Closed => "leasehold is shutting down",
        NotRotated::LogIn(_) => "log in: it failed",
        NotRotated::TokenOfNoUse => "issue: the token ends too soon",
        NotRotated::Issue(_) => "issue: it failed",
        NotRotated::TooShort => "issue: the lease is too short to be of use",
        NotRotated::Ended => "prove: the lease ended before that",
        NotRotated::ProofRefused => "prove: the server refuses the new credential",
        NotRotated::Unprovable => "prove: no server could say",
    }
}

/// A check that has had no answer by then counts as silent.
const CHECK_WAIT: Duration = Duration::from_secs(10);

impl Route {
    /// The route's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The current credential. Waits for one, at most this long.
    ///
    /// # Errors
    /// [`NoCredential`] if there is none by then.
    pub(crate) async fn current(&self, within: Duration) -> Result<Arc<Generation>, NoCredential> {
        self.newer_than(None, within).await
    }

    /// Whether this generation is the current one.
    #[must_use]
    pub(crate) fn is_current(&self, number: GenerationId) -> bool {
        self.published.borrow().as_ref().is_some_and(|current| current.number() == number)
    }

    /// Waits until this generation is not the current one.
    pub(crate) async fn superseded(&self, number: GenerationId) {
        let mut published = self.published.clone();
        let other = |current: &Option<Arc<Generation>>| current.as_ref().is_none_or(|g| g.number() != number);
        // Without a driver there is no current one.
        let _ = published.wait_for(other).await;
    }

    /// The latest usable generation before this one, if there is one.
    #[must_use]
    pub(crate) fn before(&self, number: GenerationId) -> Option<Arc<Generation>> {
        let view = self.shared.view.lock().ok()?;
        view.usable_before(clock::now(), number)
    }

    /// A login with this generation was refused with 28P01, or 28000 for the role itself: is its lease alive? However
    /// many ask, one renewal is sent, and at most every 5 s. No answer within the time given counts as silent.
    pub(crate) async fn check(&self, number: GenerationId, within: Duration) -> Verdict {
        let (reply, verdict) = oneshot::channel();
        if self.commands.send(Command::Check(number, reply)).await.is_err() {
            return Verdict::Silent;
        }
        match tokio::time::timeout(CHECK_WAIT.min(within), verdict).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) | Err(_) => Verdict::Silent,
        }
    }

    /// This generation was refused twice though its lease seems to live. It is proved, at most every 5 s; if it does not
    /// let in, a fresh one is issued, at most once a minute. One that is under way for whatever reason is waited for.
    pub(crate) async fn replace(&self, number: GenerationId, within: Duration) -> Replacement {
        self.ask_for_newer(Command::Replace, number, within).await
    }

    /// No server takes this generation yet: waits for a fresh one if that is under way, for whatever reason.
    pub(crate) async fn newer(&self, number: GenerationId, within: Duration) -> Option<Arc<Generation>> {
        match self.ask_for_newer(Command::Await, number, within).await {
            Replacement::Fresh(fresh) => Some(fresh),
            Replacement::NotNeeded | Replacement::None => None,
        }
    }

    async fn ask_for_newer(
        &self,
        command: fn(GenerationId, oneshot::Sender<NotReplaced>) -> Command,
        number: GenerationId,
        within: Duration,
    ) -> Replacement {
        let (reply, not_replaced) = oneshot::channel();
        if self.commands.send(command(number, reply)).await.is_err() {
            return Replacement::None;
        }
        tokio::select! {
            newer = self.newer_than(Some(number), within) => newer.map_or(Replacement::None, Replacement::Fresh),
            // A dropped sender says nothing: the fresh one is on its way.
            Ok(why) = not_replaced => match why {
                NotReplaced::LetsIn => Replacement::NotNeeded,
                NotReplaced::TooEarly => Replacement::None,
            },
        }
    }

    /// A 42501 or 42704 passed by in a session of this generation: its lease is checked, at most every 30 s.
    pub(crate) fn denial_passed_by(&self, number: GenerationId) {
        // With a full queue the next one will do.
        let _ = self.commands.try_send(Command::Denial(number));
    }

    /// Issues, proves and publishes a fresh credential now. With `drain` all earlier generations end that long after
    /// publication and are revoked. A static role is read again; none of its sessions can be ended, so a drain fails.
    ///
    /// # Errors
    /// If no fresh credential could be published; then nothing is drained.
    pub(crate) async fn rotate(&self, drain: Option<DrainSpan>) -> Result<RotateDone, RotateFailed> {
        let (reply, done) = oneshot::channel();
        self.commands.send(Command::Rotate(drain, reply)).await.map_err(|_| RotateFailed::CLOSED)?;
        done.await.map_err(|_| RotateFailed::CLOSED)?
    }

    /// Goes by other settings from now on; with `issue` a fresh credential is issued, proved and published for them.
    pub(crate) async fn reload(
        &self,
        settings: RouteSettings,
        vault: Arc<Vault>,
        servers: Servers,
        issue: bool,
    ) {
        self.shared.is_lazy.store(settings.lease.lazy.is_some(), Ordering::Release);
        let reload = Reload { settings, vault, servers, issue };
        // An error means that the driver has ended already.
        let _ = self.commands.send(Command::Reload(Box::new(reload))).await;
    }

    /// Serves no new sessions any more: those that there are run on, are drained as after a rotation, and everything is
    /// given back; [`Route::ended`] tells.
    pub(crate) async fn retire(&self) {
        // An error means that the driver has ended already.
        let _ = self.commands.send(Command::Retire).await;
    }

    /// Whether it has a credential only while sessions need one.
    #[must_use]
    pub(crate) fn is_lazy(&self) -> bool {
        self.shared.is_lazy.load(Ordering::Acquire)
    }

    /// Issues nothing any more, and gives everything back when its sessions have gone; [`Route::ended`] tells.
    pub(crate) async fn close(&self) {
        // An error means that the driver has ended already.
        let _ = self.commands.send(Command::Close).await;
    }

    /// Waits until everything has been given back. The caller bounds the wait.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    /// Whether everything has been given back.
    #[must_use]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// What `/status` shows of the route.
    #[must_use]
    pub(crate) fn status(&self) -> RouteStatus {
        let (now, is_ready) = (clock::now(), self.is_ready());
        let outage = self.shared.outage.error();
        let view = self.shared.view.lock().unwrap_or_else(PoisonError::into_inner);
        // What bars the route is the latest error already.
        let upstream_error = outage.filter(|_| view.barred.is_none());
        RouteStatus { upstream_error, ..view.status(now, is_ready) }
    }

    /// A login has found a server that gives sessions.
    pub(crate) fn servers_give_sessions(&self) {
        self.shared.outage.end(&self.name);
    }

    /// A login has found that no server gives a session, to whichever client. The credential is proved until one does. The
    /// reason is one line without secrets.
    pub(crate) fn no_server_gives_sessions(&self, reason: String) {
        self.shared.outage.go_on(&self.name, reason);
        // With a full queue the next login does it.
        self.shared.outage.report(|| self.commands.try_send(Command::Away).is_ok());
    }

    /// What has happened to the route in the last hour.
    #[must_use]
    pub(crate) fn history(&self) -> RouteHistory {
        let history = self.shared.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.document(&self.name, clock::now())
    }

    /// Why no session can log in with what is published, as far as that is known.
    #[must_use]
    pub(crate) fn barred(&self) -> Option<String> {
        self.shared.view.lock().ok()?.barred.as_ref().map(|error| error.kind.clone())
    }

    /// Whether the route has a usable credential, and sessions can log in with it as far as is known.
    #[must_use]
    pub(crate) fn is_ready(&self) -> bool {
        let is_open = !self.shared.is_refused.load(Ordering::Acquire) && self.barred().is_none();
        is_open
            && self.published.borrow().as_ref().is_some_and(|generation| generation.is_usable(clock::now()))
    }

    /// Whether the route has had its first credential.
    #[must_use]
    pub(crate) fn has_had_credential(&self) -> bool {
        self.shared.has_had_credential.load(Ordering::Acquire)
    }

    /// Whether the route's first request was answered with a refusal that is not transient.
    #[must_use]
    pub(crate) fn was_refused(&self) -> bool {
        self.shared.was_refused.load(Ordering::Acquire)
    }

    async fn newer_than(
        &self,
        number: Option<GenerationId>,
        within: Duration,
    ) -> Result<Arc<Generation>, NoCredential> {
        let mut published = self.published.clone();
        if self.is_lazy() && published.borrow().is_none() {
            // With a full queue another session has asked.
            let _ = self.commands.try_send(Command::Want);
        }
        let usable = published.wait_for(|generation| {
            generation.as_ref().is_some_and(|g| Some(g.number()) > number && clock::now() < g.hard_close_at())
        });
        match tokio::time::timeout(within, usable).await {
            Ok(Ok(generation)) => generation.clone().ok_or(NoCredential),
            Ok(Err(_)) | Err(_) => Err(NoCredential),
        }
    }
}
