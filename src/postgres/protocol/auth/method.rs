//! The settings that restrict authentication: `channel_binding` and `require_auth`, as in libpq. Floor 1.

use std::fmt;
use std::str::FromStr;

/// Whether SCRAM must be bound to the server's TLS certificate.
///
/// Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-CHANNEL-BINDING>
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ChannelBinding {
    /// SCRAM is never bound.
    Disable,
    /// SCRAM is bound if both sides support it.
    #[default]
    Prefer,
    /// A login without channel binding fails.
    Require,
}

/// An authentication method, named as in libpq's `require_auth`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// A cleartext password.
    Password,
    /// An MD5 hash of the password.
    Md5,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// The server does not ask for authentication.
    None,
}

impl Method {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Md5 => "md5",
            Self::ScramSha256 => "scram-sha-256",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The methods that may be used. Where none is written, a connection over TLS or a Unix socket may use
/// all; over TCP without TLS the server has to show by SCRAM that it knows the password, and learns nothing of it.
///
/// Source: <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNECT-REQUIRE-AUTH>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RequireAuth(List);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum List {
    #[default]
    Unwritten,
    Only(Vec<Method>),
    AllBut(Vec<Method>),
}

impl RequireAuth {
    /// Whether `method` may be used. `is_private`: nobody between the two sides reads along.
    #[must_use]
    pub(crate) fn allows(&self, method: Method, is_private: bool) -> bool {
        match &self.0 {
            List::Unwritten => is_private || method == Method::ScramSha256,
            List::Only(methods) => methods.contains(&method),
            List::AllBut(methods) => !methods.contains(&method),
        }
    }
}

impl RequireAuth {
    /// Whether no list is written.
    #[must_use]
    pub(crate) fn is_default(&self) -> bool {
        self.0 == List::Unwritten
    }
}

impl FromStr for RequireAuth {
    type Err = RequireAuthError;

    /// Parses `scram-sha-256,md5` or `!password,!md5`. `gss`, `sspi` and `oauth` are accepted, but never used here.
    fn from_str(text: &str) -> Result<Self, RequireAuthError> {
        let negated = text.starts_with('!');
        let mut methods = Vec::new();
        let mut seen = Vec::new();
        for word in text.split(',') {
            if word.starts_with('!') != negated {
                return Err(RequireAuthError::Mixed);
            }
            let word = word.strip_prefix('!').unwrap_or(word);
            if seen.contains(&word) {
                return Err(RequireAuthError::Twice);
            }
            seen.push(word);
            match word {
                "password" => methods.push(Method::Password),
                "md5" => methods.push(Method::Md5),
                "scram-sha-256" => methods.push(Method::ScramSha256),
                "none" => methods.push(Method::None),
                "gss" | "sspi" | "oauth" => {}
                _ => return Err(RequireAuthError::Word),
            }
        }
        Ok(Self(if negated { List::AllBut(methods) } else { List::Only(methods) }))
    }
}

/// Why a `require_auth` value is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequireAuthError {
    /// libpq does not know the method.
    #[error("require_auth takes password, md5, gss, sspi, scram-sha-256, oauth and none")]
    Word,
    /// Some methods have a `!` and some do not.
    #[error("require_auth takes words either all with ! or all without")]
    Mixed,
    /// A method is listed twice.
    #[error("require_auth names a method twice")]
    Twice,
}
