//! What a refusal calls for that may be the credential's fault, decided by its lease and by the host that refuses. Floor 4.

use crate::credentials::Verdict;

/// Whether a host that refuses a credential may lag behind the one that knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lag {
    No,
    /// It may lag, and may catch up.
    Young,
    /// It lags: another host knows the credential, and this one has had its time.
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
    /// The login is tried once more: the password may just have been set.
    Retry,
    /// The credential is replaced.
    Replace,
}

/// `elsewhere`: whether other addresses have let the credential in, and this one has not. `young`: whether the credential
/// may not have reached every server yet: behind an address that has let it in there may be several.
pub(super) fn lag(elsewhere: bool, young: bool) -> Lag {
    match (young, elsewhere) {
        (true, _) => Lag::Young,
        (false, true) => Lag::Overdue,
        (false, false) => Lag::No,
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
                assert_eq!(next(verdict, lag(true, false), retried), Next::OtherHost);
                for elsewhere in [false, true] {
                    assert_eq!(next(verdict, lag(elsewhere, true), retried), Next::WaitForHost);
                }
            }
        }
    }

    #[test]
    fn an_old_credential_is_retried_once_and_then_replaced() {
        assert_eq!(next(Verdict::Alive, lag(false, false), false), Next::Retry);
        assert_eq!(next(Verdict::Silent, lag(false, false), true), Next::Replace);
    }
}
