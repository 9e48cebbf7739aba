//! What goes into a [`DynamicRole`](super::DynamicRole), and what comes out. Floor 1.

use std::time::Duration;

use super::generation::{Cause, Ending, GenerationId};
use super::{Reason, TokenFacts, TokenId};
use crate::time::Time;

/// What a route's configuration says of its lease.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Settings {
    /// A fresh credential is published at this age.
    pub(crate) rotate_after: Option<Duration>,
    /// A generation is not renewed past this age.
    pub(crate) max_age: Option<Duration>,
    /// How long before the hard close sessions begin to be closed.
    pub(crate) drain: Option<Duration>,
    /// How long a successor must be published before an earlier lease is given back; zero with one upstream address.
    pub(crate) replica_grace: Duration,
    /// Whether nothing is issued before a session asks for it.
    pub(crate) lazy: bool,
    /// Whether a second credential stands by.
    pub(crate) standby: bool,
    /// Grants out of turn at once.
    pub(crate) issue_burst: u32,
    /// One more grant out of turn each.
    pub(crate) issue_interval: Duration,
    /// Of the jitter; 0 is none.
    pub(crate) seed: u64,
}

/// Why something asked of Vault did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// Not this time.
    Transient,
    /// No answer in time; it may have been done all the same.
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
    /// No token.
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
    /// No credential.
    IssueFailed(Failure),
    /// Vault has made a lease that nobody uses: it came too late, or with a reply of no use.
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
    /// A host let it in: the answer to [`Action::Prove`].
    Proved(GenerationId),
    /// A host refused it, none let it in.
    ProofRefused(GenerationId),
    /// A server that sessions do not go to let it in, and those that they go to do not know it yet.
    ProofLags(GenerationId),
    /// No host could say.
    Unprovable(GenerationId),
    /// A server that sessions go to has let this generation in: a session, or a proof after its publication.
    Accepted(GenerationId),
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
    /// Not renewed.
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
    /// Not renewed.
    TokenRenewFailed(TokenId, Failure),
    /// The answer to [`Action::RevokeLease`].
    LeaseRevoked(GenerationId),
    /// Not revoked.
    LeaseRevokeFailed(GenerationId, Failure),
    /// It may not be revoked, and would not go with its token: it is in another namespace.
    LeaseStays(GenerationId),
    /// The answer to [`Action::RevokeToken`].
    TokenRevoked(TokenId),
    /// Not revoked.
    TokenRevokeFailed(TokenId, Failure),
    /// The answer to [`Action::LookUpLease`].
    LeaseLookedUp(GenerationId, LeaseLookup),
    /// Nobody is in this generation any more, nor can be. See [`DynamicRole::may_empty`].
    Empty {
        number: GenerationId,
        /// Whether a server session may still be open.
        stray: bool,
    },
    /// A login with this generation was refused: is its lease alive? Answered by [`Action::Answer`], or by
    /// [`Action::Forget`], which says that it is gone.
    Suspected(GenerationId),
    /// A session of this generation was denied what its role may do.
    DenialSeen(GenerationId),
    /// This generation was refused twice though its lease lives. It is proved first: one that lets in is not replaced.
    Replace(GenerationId),
    /// No server takes this generation yet, and a login waits for a fresh one if that is under way. Answered by
    /// [`Action::TooEarly`] if it is not.
    Await(GenerationId),
    /// Somebody asks for a fresh credential; with a drain, earlier generations end that long after.
    Rotate(Option<Drain>),
    /// A session waits for a credential. It matters to a lazy route alone.
    Wanted,
    /// A lazy route has had no session for long enough: what there is is given back.
    Idle,
    /// The path, the login or the role of the sessions has changed: a fresh credential is needed.
    Reload,
    /// The route is gone from the configuration: its sessions are drained as though it had a successor, then as
    /// [`Event::Close`].
    Retire,
    /// Nothing is issued any more; what is there is given back when its sessions have gone.
    Close,
}

/// How long earlier generations may go on after a rotation on command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Drain {
    /// The route's own drain.
    Default,
    /// This long.
    For(Duration),
}

/// What a look for a lease whose token was revoked has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum LeaseLookup {
    /// It is not there any more.
    Missing,
    /// Vault has it still.
    Present,
    /// No answer this time.
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
    /// The generation has ended: drop its credential.
    Forget(GenerationId),
    /// Drop the token.
    ForgetToken(TokenId),
    /// Answers [`Event::Suspected`].
    Answer(GenerationId, Verdict),
    /// Answers [`Event::Replace`]: not now.
    TooEarly(GenerationId),
    /// Answers [`Event::Replace`]: its proof lets in, so what the login was refused for is not this credential.
    LetsIn(GenerationId),
    /// Answers [`Event::Rotate`] for a static role: this is current, read just now.
    RotateDone(GenerationId),
    /// Answers [`Event::Rotate`]: nothing was published, nothing drained.
    RotateFailed,
    /// For the log and the metrics.
    Note(Note),
}

/// What a machine found that nobody else can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    /// A successor is needed; its issuance begins.
    Issuing(Reason),
    /// A credential was published.
    Published {
        number: GenerationId,
        reason: Reason,
        /// Whether it was proved.
        proved: bool,
        /// Whether it is not the route's first.
        successor: bool,
    },
    /// A fresh credential was proved and stands by.
    StandsBy(GenerationId),
    /// A lease was renewed.
    Renewed {
        number: GenerationId,
        /// `lease_duration`.
        lease: Duration,
        /// Whether it was granted only in part: the last renewal.
        capped: bool,
    },
    /// The token's renewal was granted only in part, or cannot be.
    TokenEnding(TokenId),
    /// The token at hand ends too soon for a lease under it to be of use: none is asked for.
    TokenOfNoUse(TokenId),
    /// A lease is gone before its end.
    Lost(GenerationId),
    /// A grant is too short to be of use.
    TooShort(GenerationId),
    /// A candidate was refused for good.
    CandidateRefused(GenerationId),
    /// What an earlier process left is refused, so a fresh one is issued.
    NotTakenUp(GenerationId),
    /// The sessions of a generation are closed.
    Closing(GenerationId, Cause),
    /// What became of a lease at its end.
    Returned(GenerationId, Outcome),
    /// A generation serves new sessions again, as its successor is gone.
    Recalled(GenerationId),
    /// A generation of a lazy route serves new sessions again: it was wanted before its end.
    WantedAgain(GenerationId),
}

/// How a lease was given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// By itself.
    Lease,
    /// With its token, and it was seen to be gone.
    Token,
    /// Its token is revoked, or dead, and nobody could see whether the lease went with it.
    Unverified,
    /// With its token, and yet it is there: Vault cannot revoke it either, and tries again for a while.
    Stays,
    /// Forbidden: it lapses.
    Forbidden,
    /// It did not work, or may not be: it lapses.
    Failed,
}
