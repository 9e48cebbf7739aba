//! What is asked of Vault, by name. Floor 2.

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A login.
    LogIn,
    /// A credential.
    Issue,
    /// The renewal of a lease.
    Renew,
    /// The renewal of a token.
    RenewToken,
    /// The facts of a token.
    LookUp,
    /// Whether a lease is there.
    LookUpLease,
    /// The revocation of a lease.
    Revoke,
    /// The revocation of a token.
    RevokeToken,
    /// What a token may do.
    Capabilities,
    /// The health of a node.
    Health,
}

impl Operation {
    /// The word in logs and in the label `operation` of the metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LogIn => "login",
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::RenewToken => "renew_token",
            Self::LookUp => "look_up",
            Self::LookUpLease => "look_up_lease",
            Self::Revoke => "revoke",
            Self::RevokeToken => "revoke_token",
            Self::Capabilities => "capabilities",
            Self::Health => "health",
        }
    }
}
