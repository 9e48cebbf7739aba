//! What goes into a [`DynamicRole`](super::DynamicRole), and what comes out. Floor 1.

use std::time::Duration;

use super::ids::{GenerationId, TokenId};
use super::note::{Cause, Note};
use crate::time::Time;

/// The reason why a request to Vault failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// Vault cannot be reached, or cannot answer now. The request may succeed later.
    Transient,
    /// There was no answer in time. Vault may have carried the request out.
    TimedOut,
    /// The token of the request is dead.
    TokenDead,
    /// The policy forbids it.
    Forbidden,
    /// The lease is gone, or its role is.
    Gone,
    /// The lease or token lives, but cannot be extended.
    CannotExtend,
    /// Vault refuses, and will refuse again.
    Refused,
    /// Vault's reply cannot be used, and will not be usable later. Vault has made something, or may have.
    Unusable,
}

/// The events of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// Time has passed.
    Tick,
    /// The answer to [`Action::LogIn`]. A token that is known already is only updated.
    LoggedIn(TokenId, TokenFacts),
    /// The login failed.
    LogInFailed(Failure),
    /// The answer to [`Action::Issue`].
    Granted {
        /// When the request was sent.
        sent_at: Time,
        /// `lease_duration`.
        lease: Duration,
        /// `renewable`.
        renewable: bool,
    },
    /// The answer to [`Action::Issue`] for a static role whose password has not changed.
    Unchanged {
        /// When the request was sent.
        sent_at: Time,
        /// `data.ttl`.
        lease: Duration,
    },
    /// The request for a credential failed.
    IssueFailed(Failure),
    /// Vault has made a lease that is not used: its reply came too late or could not be used.
    LeaseLeft {
        /// The token that owns it.
        token: TokenId,
        /// When the request was sent.
        sent_at: Time,
        /// `lease_duration`, or a guess.
        lease: Duration,
    },
    /// A creds request with unknown outcome has been settled: it was granted ([`Event::LeaseLeft`] comes before), or
    /// refused, or finally given up.
    LateReply(TokenId),
    /// A server let the generation in: the answer to [`Action::Prove`].
    Proved(GenerationId),
    /// A server refused the generation, and no server let it in.
    ProofRefused(GenerationId),
    /// A server that sessions do not go to let it in, and the servers that they go to do not know it yet.
    ProofLags(GenerationId),
    /// No host could judge the generation.
    Unprovable(GenerationId),
    /// A server that sessions go to has let this generation in, for a session or for a proof after its publication.
    Accepted(GenerationId),
    /// A proof or a login has found that no session can log in. The answer to the proof is a separate event.
    Barred(Barrier),
    /// The answer to [`Action::ProvePublished`]. Its result comes before, as [`Event::Accepted`] or [`Event::Barred`].
    PublishedProofEnded(GenerationId),
    /// The answer to [`Action::RenewLease`].
    LeaseRenewed {
        number: GenerationId,
        /// When the request was sent.
        sent_at: Time,
        /// `lease_duration`.
        lease: Duration,
        /// `renewable`.
        renewable: bool,
    },
    /// The lease was not renewed.
    LeaseRenewFailed(GenerationId, Failure),
    /// The answer to [`Action::RenewToken`].
    TokenRenewed {
        token: TokenId,
        /// When the request was sent.
        sent_at: Time,
        /// `lease_duration`; `None` for a token without an end.
        ttl: Option<Duration>,
        /// `renewable`.
        renewable: bool,
    },
    /// The token was not renewed.
    TokenRenewFailed(TokenId, Failure),
    /// The answer to [`Action::RevokeLease`].
    LeaseRevoked(GenerationId),
    /// The lease was not revoked.
    LeaseRevokeFailed(GenerationId, Failure),
    /// The lease may not be revoked, and the revocation of its token would not revoke it: it is in another namespace.
    LeaseStays(GenerationId),
    /// The answer to [`Action::RevokeToken`].
    TokenRevoked(TokenId),
    /// The token was not revoked.
    TokenRevokeFailed(TokenId, Failure),
    /// The answer to [`Action::LookUpLease`].
    LeaseLookedUp(GenerationId, LeaseLookup),
    /// No session is in this generation any more, and none can come. See [`Action::EndWhenEmpty`].
    Empty {
        number: GenerationId,
        /// Whether a server session may still be open.
        open_upstream: bool,
    },
    /// A login with this generation was refused: is its lease alive? Answered by [`Action::Answer`], or by
    /// [`Action::DropCredential`] or [`Action::Forget`] if the lease is gone.
    Suspected(GenerationId),
    /// A session of this generation got a permission error that its role should not get.
    DenialSeen(GenerationId),
    /// This generation was refused twice though its lease lives. It is proved first, and is not replaced if a server
    /// lets it in.
    Replace(GenerationId),
    /// No server accepts this generation yet, and a login waits for the credential that is being issued. Answered by
    /// [`Action::TooEarly`] if none is being issued.
    Await(GenerationId),
    /// An operator asks for a fresh credential; with a drain, earlier generations end that long after its publication.
    Rotate(Option<DrainSpan>),
    /// A session waits for a credential. This has an effect only for a lazy route.
    Wanted,
    /// The current generation has got its first session, or lost its last. At first it has none. This has an effect
    /// only for a lazy route.
    InUse(bool),
    /// The path, the login or the role of the sessions has changed: a fresh credential is needed.
    Reload,
    /// The route is gone from the configuration: its sessions are drained as though it had a successor, then as
    /// [`Event::Close`].
    Retire,
    /// Nothing is issued any more; what is there is given back when its sessions have gone.
    Close,
}

/// Why no session can log in, according to a proof or a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Barrier {
    /// All servers that answer are servers that sessions do not go to.
    Unsuitable,
    /// Every server refuses for a reason that does not pass by itself.
    Lasting,
    /// No server can be reached or has a connection left, which passes by itself.
    Passing,
}

/// How long earlier generations may continue after a rotation on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DrainSpan {
    /// The route's own drain.
    Default,
    /// This long; zero means at once.
    For(Duration),
}

/// The result of the look-up of a lease whose token was revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseLookup {
    /// The lease does not exist any more.
    Missing,
    /// The lease still exists.
    Present,
    /// There was no answer this time.
    Unknown,
    /// The lease may not be looked up.
    Forbidden,
}

/// The result of the check of a suspect lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// It lives.
    Alive,
    /// The lease could not be checked, or was checked too recently.
    Silent,
    /// It is gone.
    Lost,
}

/// Why a rotation on command failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NotRotated {
    /// Nothing is issued any more.
    Closed,
    /// The login failed.
    LogIn(Failure),
    /// The token ends too early for a useful lease.
    TokenOfNoUse,
    /// No credential was granted.
    Issue(Failure),
    /// The lease is too short.
    TooShort,
    /// The lease ended before its credential was proved.
    Ended,
    /// A server refuses the fresh credential.
    ProofRefused,
    /// No server could judge it, or the servers that sessions go to do not know it yet.
    Unprovable,
}

/// The actions of a role. Each request is answered by exactly one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Log in, or read the token that was given to us.
    LogIn {
        /// How long it may take, where a lease depends on it.
        within: Option<Duration>,
    },
    /// Ask for a credential.
    Issue(TokenId),
    /// Store the credential of the event as this generation. It comes before any other action on the generation.
    Store(GenerationId),
    /// Prove the candidate, or the current credential after a login with it was refused.
    Prove(GenerationId),
    /// Prove the published credential, since no server is known to let it in.
    ProvePublished(GenerationId),
    /// No session can log in, according to the latest proof.
    Barred,
    /// Sessions can log in again.
    Unbarred,
    /// Renew a lease under its token.
    RenewLease(GenerationId, TokenId, Duration),
    /// Renew a token.
    RenewToken(TokenId, Duration),
    /// Give a lease back.
    RevokeLease(GenerationId, TokenId),
    /// Give a token back.
    RevokeToken(TokenId),
    /// Look up a lease with a token that does not own it.
    LookUpLease(GenerationId, TokenId),
    /// New sessions use this generation.
    Publish(GenerationId),
    /// New sessions have to wait.
    Unpublish,
    /// Notify the sessions of a generation.
    NotifySessions(GenerationId, Ending),
    /// From now on, close this generation as soon as no session is in it, and send [`Event::Empty`].
    EndWhenEmpty(GenerationId),
    /// Withdraws [`Action::EndWhenEmpty`].
    KeepWhenEmpty(GenerationId),
    /// The credential serves no session any more, and its lease is revoked with its token: drop all but the lease and
    /// the user name.
    DropCredential(GenerationId),
    /// The generation has ended: drop all that is kept of it.
    Forget(GenerationId),
    /// Drop the token.
    ForgetToken(TokenId),
    /// Answers [`Event::Suspected`].
    Answer(GenerationId, Verdict),
    /// Answers [`Event::Replace`] and [`Event::Await`]: no other credential is being issued.
    TooEarly(GenerationId),
    /// Answers [`Event::Replace`]: a proof was accepted, so the login was refused for another reason.
    LetsIn(GenerationId),
    /// Answers [`Event::Rotate`] for a static role: this password is current, and was read just now.
    RotateDone(GenerationId),
    /// Answers [`Event::Rotate`]: nothing was published, and nothing is drained.
    RotateFailed(NotRotated),
    /// For the log and the metrics.
    Note(Note),
}

/// What the sessions of a generation have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    /// The present time of the hard close.
    pub(crate) hard_close_at: Time,
    /// When the drain began, if it has.
    pub(crate) drain_from: Option<Time>,
    /// The hard close, once it has begun.
    pub(crate) closing: Option<Closing>,
}

/// A hard close that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Closing {
    pub(crate) cause: Cause,
    /// Until then, a message that is partly relayed may finish.
    pub(crate) cut_at: Time,
    /// Until then the upstream's EOF is waited for.
    pub(crate) gone_by: Time,
}

/// The properties of a token when it is logged in or given to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenFacts {
    /// When the request that showed it was sent.
    pub(crate) sent_at: Time,
    /// The TTL; `None` if it has no end, or none is known.
    pub(crate) ttl: Option<Duration>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// Whether it comes from our login. A token that was given to us is never revoked.
    pub(crate) owned: bool,
}
