//! What the proof of a credential has found, and what is said of it. Floor 3.

/// What a proof found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// A server let the candidate in.
    Accepted {
        /// Its address, as sessions name it.
        address: String,
        /// Why it begins no session all the same, if it does not: it is full, or has not the database that all sessions are
        /// in. One line without secrets.
        full: Option<String>,
    },
    /// A server refused it, and none let it in.
    Refused {
        /// Why: one line without secrets.
        reason: String,
    },
    /// A server that sessions do not go to let it in; those that they go to do not know it yet.
    Lags,
    /// No server could say.
    Unprovable(Obstacle),
}

/// Why no server could say what it makes of a candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// It may be gone the next time. The reason is one line without secrets.
    Passing(String),
    /// No server that answered is one that sessions go to. The reason is one line without secrets.
    Unsuitable(String),
    /// Time alone does not mend it, at any server. The reason is one line without secrets.
    Lasting(String),
}

impl Obstacle {
    /// That of all servers together: it passes if that of one of them does.
    #[must_use]
    pub(crate) fn of_all(obstacles: &[Self]) -> Self {
        let mut reasons: Vec<&str> = Vec::new();
        for obstacle in obstacles {
            let reason = obstacle.reason();
            if !reasons.contains(&reason) {
                reasons.push(reason);
            }
        }
        let more = reasons.len().saturating_sub(MOST_REASONS);
        reasons.truncate(MOST_REASONS);
        let mut reason = reasons.join("; ");
        if more > 0 {
            reason.push_str(&format!("; and {more} more"));
        }
        let lasts = |obstacle: &Self| matches!(obstacle, Self::Lasting(_));
        if !obstacles.is_empty() && obstacles.iter().all(lasts) {
            Self::Lasting(reason)
        } else {
            Self::Passing(reason)
        }
    }

    /// One line without secrets.
    #[must_use]
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Passing(reason) | Self::Unsuitable(reason) | Self::Lasting(reason) => reason,
        }
    }

    /// The same, owned.
    #[must_use]
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::Passing(reason) | Self::Unsuitable(reason) | Self::Lasting(reason) => reason,
        }
    }
}

impl Proof {
    /// The phrase that is kept as the latest error; nothing where it was accepted.
    pub(super) fn error(&self, is_current: bool) -> Option<String> {
        let reason = match self {
            Self::Accepted { .. } => return None,
            Self::Refused { .. } if is_current => "the server refuses the current credential",
            Self::Refused { .. } => "the server refuses the new credential",
            Self::Lags => "the servers that sessions go to do not know the new credential yet",
            Self::Unprovable(Obstacle::Passing(_)) => "no server could say",
            Self::Unprovable(Obstacle::Unsuitable(reason) | Obstacle::Lasting(reason)) => reason,
        };
        Some(format!("prove: {reason}"))
    }

    /// The same with what the servers said.
    pub(super) fn error_in_words(&self, is_current: bool) -> Option<String> {
        let error = self.error(is_current)?;
        Some(match self {
            Self::Refused { reason } | Self::Unprovable(Obstacle::Passing(reason)) => {
                format!("{error}: {reason}")
            }
            _ => error,
        })
    }

    /// Why no session can be had of any server, if that is what it has found.
    pub(super) fn no_session(&self) -> Option<&str> {
        match self {
            Self::Accepted { full, .. } => full.as_deref(),
            Self::Unprovable(obstacle) => Some(obstacle.reason()),
            Self::Refused { .. } | Self::Lags => None,
        }
    }
}

/// Of so many servers it is said what each of them said.
const MOST_REASONS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(reason: &str) -> Obstacle {
        Obstacle::Passing(reason.to_owned())
    }

    #[test]
    fn the_obstacle_of_all_servers_lasts_where_each_of_them_does() {
        let lasting = |reason: &str| Obstacle::Lasting(reason.to_owned());
        let all = [lasting("a: no TLS"), lasting("b: no TLS"), lasting("b: no TLS")];
        assert_eq!(Obstacle::of_all(&all), lasting("a: no TLS; b: no TLS"));
        let mixed = [lasting("a: no TLS"), passing("b: refused")];
        assert_eq!(Obstacle::of_all(&mixed), passing("a: no TLS; b: refused"));
        assert_eq!(Obstacle::of_all(&[]), passing(""));
    }

    #[test]
    fn of_many_servers_a_few_are_named() {
        let many: Vec<_> = (0..7).map(|at| passing(&format!("s{at}"))).collect();
        assert_eq!(Obstacle::of_all(&many), passing("s0; s1; s2; s3; and 3 more"));
    }

    #[test]
    fn what_servers_said_is_in_the_words_and_not_in_the_phrase() {
        let proof = Proof::Unprovable(passing("db:5432: refused"));
        assert_eq!(proof.error(false).as_deref(), Some("prove: no server could say"));
        assert_eq!(
            proof.error_in_words(false).as_deref(),
            Some("prove: no server could say: db:5432: refused")
        );
        assert_eq!(proof.no_session(), Some("db:5432: refused"));
        let full = Proof::Accepted { address: "db:5432".to_owned(), full: Some("full".to_owned()) };
        assert_eq!((full.error(true), full.no_session()), (None, Some("full")));
    }
}
