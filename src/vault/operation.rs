//! The kinds of requests to Vault. Floor 2.

/// The kind of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A login.
    LogIn,
    /// The request of a credential.
    Issue,
    /// The renewal of a lease.
    Renew,
    /// The renewal of a token.
    RenewToken,
    /// The look-up of a token.
    LookUp,
    /// The look-up of a lease.
    LookUpLease,
    /// The revocation of a lease.
    Revoke,
    /// The revocation of a token.
    RevokeToken,
    /// The look-up of a token's capabilities.
    Capabilities,
    /// The health of a node.
    Health,
}

impl Operation {
    /// The capability that a policy must grant for it.
    pub(super) fn capability(self) -> &'static str {
        match self {
            Self::Issue | Self::LookUp | Self::Health => "read",
            Self::LogIn
            | Self::Renew
            | Self::RenewToken
            | Self::LookUpLease
            | Self::Revoke
            | Self::RevokeToken
            | Self::Capabilities => "update",
        }
    }

    /// The name in logs and in the label `operation` of the metrics.
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
