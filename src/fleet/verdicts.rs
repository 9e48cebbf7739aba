//! The meaning of Vault's answers, as leasehold itself judges them. Floor 6.

use super::scenario::Fault;
use super::servers::{Answer, KINDS, Kind};
use crate::lease::Failure;
use crate::vault::{self, Operation, Verdict};

/// The reason why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    Quota,
    Sealed,
    NoLeader,
    Database,
    Forbidden,
    Unreachable,
    Silence,
}

const TROUBLES: [Trouble; 7] = [
    Trouble::Quota,
    Trouble::Sealed,
    Trouble::NoLeader,
    Trouble::Database,
    Trouble::Forbidden,
    Trouble::Unreachable,
    Trouble::Silence,
];

impl Trouble {
    pub(super) fn of(answer: Answer) -> Option<Self> {
        Some(match answer {
            Answer::Done(_) | Answer::Later(_) => return None,
            Answer::TooMany(_) => Self::Quota,
            Answer::Unavailable(_, Fault::FailingOver) => Self::NoLeader,
            Answer::Unavailable(..) => Self::Sealed,
            Answer::NoDatabase(_) => Self::Database,
            Answer::Forbidden(_) => Self::Forbidden,
            Answer::Unreachable(_) => Self::Unreachable,
            Answer::Lost(_) | Answer::Silence => Self::Silence,
        })
    }

    fn judge(self, kind: Kind) -> Verdict {
        let operation = operation(kind);
        let answered = |status, said| vault::judge(operation, status, said);
        match self {
            Self::Quota => answered(429, "request path: rate limit quota exceeded"),
            Self::Sealed => answered(503, "Vault is sealed"),
            Self::NoLeader => answered(503, "no active Vault instance found"),
            Self::Database if kind == Kind::Issue => answered(500, "failed to connect: connection refused"),
            Self::Database => answered(400, "failed to renew entry: failed to connect: connection refused"),
            Self::Forbidden => answered(403, "1 error occurred:\n\t* permission denied\n\n"),
            Self::Unreachable => vault::judge_silence(operation, false),
            Self::Silence => vault::judge_silence(operation, true),
        }
    }
}

fn operation(kind: Kind) -> Operation {
    match kind {
        Kind::LogIn => Operation::LogIn,
        Kind::LookUp => Operation::LookUp,
        Kind::Issue => Operation::Issue,
        Kind::Renew => Operation::Renew,
        Kind::RenewToken => Operation::RenewToken,
        Kind::Revoke | Kind::Expire => Operation::Revoke,
        Kind::RevokeToken => Operation::RevokeToken,
        Kind::LookUpLease => Operation::LookUpLease,
    }
}

/// All verdicts, computed once, since they are needed millions of times.
pub(super) struct Verdicts([[Verdict; TROUBLES.len()]; KINDS]);

impl Verdicts {
    pub(super) fn new() -> Self {
        Self(Kind::ALL.map(|kind| TROUBLES.map(|trouble| trouble.judge(kind))))
    }

    pub(super) fn of(&self, kind: Kind, trouble: Trouble) -> Judged {
        #[expect(clippy::indexing_slicing, reason = "both tables are as long as their enums")]
        let verdict = self.0[kind as usize][trouble as usize];
        Judged(verdict)
    }
}

/// A verdict, and the failure that the machines get.
#[derive(Clone, Copy)]
pub(super) struct Judged(Verdict);

impl std::ops::Deref for Judged {
    type Target = Verdict;
    fn deref(&self) -> &Verdict {
        &self.0
    }
}

impl Judged {
    pub(super) fn failure(&self) -> Failure {
        self.0.kind.into()
    }
}
