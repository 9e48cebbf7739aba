//! What goes into a [`DynamicRole`](super::DynamicRole), and what comes out. Floor 1.

use std::time::Duration;

use super::ids::{GenerationId, TokenId};
use super::note::{Cause, Note};
use crate::time::Time;

/// Why something asked of Vault did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// Vault is away, or cannot do it now: it may work the next time.
    Transient,
    /// No answer came in time. Vault may have done it all the same.
    TimedOut,
    /// The token that asked is dead.
    TokenDead,
    /// The policy forbids it.
    Forbidden,
    /// The lease is gone, or its role is.
    Gone,
    /// The lease or token lives, but cannot be extended.
    CannotExtend,
    /// Vault said no, and will say so again.
    Refused,
    /// Vault answered with what is of no use, and will do so again. It has made something all the same, or may have.
    Unusable,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// Time has passed.
    Tick,
    /// The answer to [`Action::LogIn`]. A token that is known already is only looked at again.
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
    /// The answer to [`Action::Issue`] for a static role whose password is still the current one.
    Unchanged {
        /// When the request was sent.
        sent_at: Time,
        /// `data.ttl`.
        lease: Duration,
    },
    /// The request for a credential failed.
    IssueFailed(Failure),
    /// Vault has made a lease that is not used: it came too late, or its reply was of no use.
    LeaseLeft {
        /// The token that owns it.
        token: TokenId,
        /// When the request was sent.
        sent_at: Time,
        /// `lease_duration`, or a guess.
        lease: Duration,
    },
    /// A creds request whose outcome was unknown has been settled: granted ([`Event::LeaseLeft`] says so before), or
    /// refused, or given up for good.
    LateReply(TokenId),
    /// A server let it in: the answer to [`Action::Prove`].
    Proved(GenerationId),
    /// A server refused it, and none let it in.
    ProofRefused(GenerationId),
    /// A server that sessions do not go to let it in, and those that they go to do not know it yet.
    ProofLags(GenerationId),
    /// No host could say.
    Unprovable(GenerationId),
    /// A server that sessions go to has let this generation in: a session, or a proof after its publication.
    Accepted(GenerationId),
    /// A proof has found that no session can log in. What the proof is the answer to comes as an event of its own.
    Barred(Barrier),
    /// The answer to [`Action::ProvePublished`]. What it has found is said before, by [`Event::Accepted`] or
    /// [`Event::Barred`].
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
    /// It may not be revoked, and would not go with its token: it is in another namespace.
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
        stray: bool,
    },
    /// A login with this generation was refused: is its lease alive? Answered by [`Action::Answer`], or by
    /// [`Action::DropCredential`] or [`Action::Forget`], which say that it is gone.
    Suspected(GenerationId),
    /// A session of this generation was denied what its role may do.
    DenialSeen(GenerationId),
    /// This generation was refused twice though its lease lives. It is proved first: one that lets in is not replaced.
    Replace(GenerationId),
    /// No server takes this generation yet, and a login waits for a fresh one if that is under way. Answered by
    /// [`Action::TooEarly`] if it is not.
    Await(GenerationId),
    /// An operator asks for a fresh credential; with a drain, earlier generations end that long after its publication.
    Rotate(Option<DrainSpan>),
    /// A session waits for a credential. It matters to a lazy route alone.
    Wanted,
    /// Whether the current generation has sessions, where that has changed; at first it has none. It matters to a lazy
    /// route alone.
    InUse(bool),
    /// The path, the login or the role of the sessions has changed: a fresh credential is needed.
    Reload,
    /// The route is gone from the configuration: its sessions are drained as though it had a successor, then as
    /// [`Event::Close`].
    Retire,
    /// Nothing is issued any more; what is there is given back when its sessions have gone.
    Close,
}

/// Why no session can log in, as a proof has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Barrier {
    /// No server that answers is one that sessions go to.
    Unsuitable,
    /// Time alone does not mend it, at any server.
    Lasting,
}

/// How long earlier generations may go on after a rotation on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum DrainSpan {
    /// The route's own drain.
    Default,
    /// This long; zero is at once.
    For(Duration),
}

/// What a look for a lease whose token was revoked has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseLookup {
    /// It is not there any more.
    Missing,
    /// Vault has it still.
    Present,
    /// No answer came this time.
    Unknown,
    /// It may not be looked up, now or later.
    Forbidden,
}

/// What a check of a suspect lease said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    /// It lives.
    Alive,
    /// It could not be asked, or was asked too recently.
    Silent,
    /// It is gone.
    Lost,
}

/// Why a rotation on command came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum NotRotated {
    /// Nothing is issued any more.
    Closed,
    /// The login failed.
    LogIn(Failure),
    /// The token at hand ends too soon for a lease under it to be of use.
    TokenOfNoUse,
    /// No credential was granted.
    Issue(Failure),
    /// The lease is too short to be of use.
    TooShort,
    /// The lease ended before its credential was proved.
    Ended,
    /// A server refuses the fresh credential.
    ProofRefused,
    /// No server could say what it makes of it, or those that sessions go to do not know it yet.
    Unprovable,
}

/// What is to be done. Each request is answered by exactly one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Log in, or read the token handed to us.
    LogIn {
        /// How long it may take, where a lease depends on it.
        within: Option<Duration>,
    },
    /// Ask for a credential.
    Issue(TokenId),
    /// Keep the credential that the event has brought as this generation. It comes before anything else about it.
    Store(GenerationId),
    /// Try the candidate, or the current credential where a login with it was refused.
    Prove(GenerationId),
    /// Try the credential that is published, as no server is known to let it in.
    ProvePublished(GenerationId),
    /// No session can log in, for what the latest proof has found.
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
    /// Look whether a lease is there, under a token that does not own it.
    LookUpLease(GenerationId, TokenId),
    /// New sessions use this generation.
    Publish(GenerationId),
    /// New sessions have to wait.
    Unpublish,
    /// Tell the sessions of a generation.
    NotifySessions(GenerationId, Ending),
    /// From now on: once no session is in this generation, close it to newcomers and say [`Event::Empty`].
    EndWhenEmpty(GenerationId),
    /// Withdraws [`Action::EndWhenEmpty`].
    KeepWhenEmpty(GenerationId),
    /// The credential serves no session any more, and its lease goes with its token: drop all but the lease and the user name.
    DropCredential(GenerationId),
    /// The generation has ended: drop all that is kept of it.
    Forget(GenerationId),
    /// Drop the token.
    ForgetToken(TokenId),
    /// Answers [`Event::Suspected`].
    Answer(GenerationId, Verdict),
    /// Answers [`Event::Replace`] and [`Event::Await`]: no other credential is on its way.
    TooEarly(GenerationId),
    /// Answers [`Event::Replace`]: its proof lets in, so what the login was refused for is not this credential.
    LetsIn(GenerationId),
    /// Answers [`Event::Rotate`] for a static role: this is current, read just now.
    RotateDone(GenerationId),
    /// Answers [`Event::Rotate`]: nothing was published, nothing drained.
    RotateFailed(NotRotated),
    /// For the log and the metrics.
    Note(Note),
}

/// What the sessions of a generation have to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    /// The hard close as things stand.
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
    /// Until then a message that is half relayed may finish.
    pub(crate) cut_at: Time,
    /// Until then the upstream's EOF is waited for.
    pub(crate) gone_by: Time,
}

/// What is known of a token when it is logged in or handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenFacts {
    /// When the request that showed it was sent.
    pub(crate) sent_at: Time,
    /// Its remaining life; `None` where it has no end, or none is known.
    pub(crate) ttl: Option<Duration>,
    /// Whether it can be renewed.
    pub(crate) renewable: bool,
    /// Whether we logged in for it. A token handed to us is never revoked.
    pub(crate) owned: bool,
}
