//! What a refusal calls for that may be the credential's fault, decided by its lease and by the host that refuses. Floor 4.

use crate::credentials::Verdict;

/// Whether a host that refuses a credential may lag behind the one that knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lag {
    No,
    /// It may, and may catch up.
    Young,
    /// It does: another host knows the credential, and this one has had its time.
    Overdue,
}

/// What a suspect refusal calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The lease is gone.
    Lost,
    /// The host lags, and may catch up.
    WaitForHost,
    /// The host lags, and has had its time.
    OtherHost,
    /// Once more: the password may just have been set.
    Retry,
    /// The credential is no good.
    Replace,
}

/// `accepted`: whether this address, and whether another one, has let the credential in. `young`: whether the credential
/// may not have reached every server yet: behind an address that has let it in there may be several.
pub(super) fn lag(accepted: (bool, bool), young: bool) -> Lag {
    match accepted {
        _ if young => Lag::Young,
        (false, true) => Lag::Overdue,
        _ => Lag::No,
    }
}

/// `retried`: whether this host has refused the credential before.
pub(super) fn next(verdict: Verdict, lag: Lag, retried: bool) -> Next {
    match (verdict, lag) {
        (Verdict::Lost, _) => Next::Lost,
        (Verdict::Alive | Verdict::Silent, Lag::Young) => Next::WaitForHost,
        (Verdict::Alive | Verdict::Silent, Lag::Overdue) => Next::OtherHost,
        (Verdict::Alive | Verdict::Silent, Lag::No) if retried => Next::Replace,
        (Verdict::Alive | Verdict::Silent, Lag::No) => Next::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_lease_is_never_retried() {
        assert_eq!(next(Verdict::Lost, Lag::Young, false), Next::Lost);
    }

    #[test]
    fn a_host_that_lags_never_replaces_the_credential() {
        for verdict in [Verdict::Alive, Verdict::Silent] {
            for retried in [false, true] {
                assert_eq!(next(verdict, lag((false, true), false), retried), Next::OtherHost);
                assert_eq!(next(verdict, lag((false, false), true), retried), Next::WaitForHost);
                assert_eq!(next(verdict, lag((true, false), true), retried), Next::WaitForHost);
            }
        }
    }

    #[test]
    fn an_old_credential_is_retried_once_and_then_replaced() {
        for accepted in [(false, false), (true, false), (true, true)] {
            assert_eq!(next(Verdict::Alive, lag(accepted, false), false), Next::Retry);
            assert_eq!(next(Verdict::Silent, lag(accepted, false), true), Next::Replace);
        }
    }
}
