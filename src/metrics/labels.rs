//! The words of the labels. Floor 0.

/// The words of one label.
pub(super) trait Label: Copy + 'static {
    /// All of them.
    const ALL: &'static [Self];

    /// The word in the metric.
    fn word(self) -> &'static str;
}

/// An enum whose variants are the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// The word in the metric.
            #[must_use]
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl Label for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                self.as_str()
            }
        }
    };
}

label! {
    /// Why a session was closed.
    Closed {
        /// The client went.
        Client = "client",
        /// The server closed.
        Upstream = "upstream",
        /// Ended between transactions, in the drain window of a retired generation.
        Drain = "drain",
        /// Ended with 57P01 at the hard close.
        LeaseEnd = "lease_end",
        /// Cut at the end of the lease, in the middle of a message, without a word.
        LeaseEndCut = "lease_end_cut",
        /// The lease was lost, or ended by `rotate --drain`.
        Revoked = "revoked",
        /// leasehold shut down.
        Shutdown = "shutdown",
        /// A fault of the protocol or of a socket.
        Error = "error",
    }
}

impl Closed {
    /// All of them, in the order in which they are documented.
    pub(crate) const ALL: [Self; 8] = [
        Self::Client,
        Self::Upstream,
        Self::Drain,
        Self::LeaseEnd,
        Self::LeaseEndCut,
        Self::Revoked,
        Self::Shutdown,
        Self::Error,
    ];
}

label! {
    /// Why a login failed.
    LoginFailure {
        /// No route for this user and database.
        NoRoute = "no_route",
        /// The client is none of those who may use the route.
        Denied = "denied",
        /// No usable credential within `login_wait`.
        NoCredential = "no_credential",
        /// The server refused the credential.
        Refused = "refused",
        /// No host could be reached.
        Unreachable = "unreachable",
        /// A limit on sessions, or on open files.
        Limit = "limit",
        /// A bound on time passed.
        Timeout = "timeout",
        /// The server's own error, passed on.
        UpstreamError = "upstream_error",
        /// The client broke the protocol.
        Protocol = "protocol",
    }
}

label! {
    /// How a creds request ended.
    Issuance {
        /// A credential.
        Ok = "ok",
        /// Vault said no.
        Refused = "refused",
        /// It did not answer, or failed.
        Failed = "failed",
    }
}

label! {
    /// How a proof ended.
    Proof {
        /// The server let the candidate in.
        Ok = "ok",
        /// The server refused the candidate.
        Refused = "refused",
        /// No host could say.
        Unprovable = "unprovable",
    }
}

label! {
    /// How a renewal of a lease ended.
    Renewal {
        /// Extended.
        Ok = "ok",
        /// Extended, by less than before: the last time.
        Capped = "capped",
        /// The policy forbids it.
        Forbidden = "forbidden",
        /// It cannot be extended, or is gone.
        Terminal = "terminal",
        /// It did not work this time.
        Failed = "failed",
    }
}

label! {
    /// How a lease was given back.
    Revocation {
        /// By its own id.
        Lease = "lease",
        /// By the token that owned it, and it was seen to be gone.
        Token = "token",
        /// By the token that owned it; whether it went could not be seen.
        Unverified = "unverified",
        /// It could not be given back: it lapses.
        Forbidden = "forbidden",
        /// It did not work: it lapses.
        Failed = "failed",
    }
}

label! {
    /// How a request to Vault ended.
    VaultOutcome {
        /// 2xx.
        Ok = "ok",
        /// 403.
        Denied = "denied",
        /// Another 4xx.
        ClientError = "client_error",
        /// 5xx, 429, 412, 472, 473, a redirect that is not followed, and what is not Vault's JSON.
        ServerError = "server_error",
        /// No answer in time.
        Timeout = "timeout",
        /// No connection.
        Unreachable = "unreachable",
    }
}

label! {
    /// What became of a CancelRequest.
    Cancel {
        /// Sent to the session's own server.
        Known = "known",
        /// Not ours, sent to every upstream.
        Forwarded = "forwarded",
        /// Beyond the rate.
        Limited = "limited",
        /// It did not get there, or its key is unknown.
        Failed = "failed",
    }
}

label! {
    /// Which way bytes went.
    Direction {
        /// From the client to the server.
        Upstream = "upstream",
        /// From the server to the client.
        Client = "client",
    }
}
