//! Whether a route is for the names that a client sends. Floor 4.

use std::fmt;

/// What a route asks of a name that a client sends. Names are bytes, whatever their encoding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Match {
    /// `*`
    Any,
    /// This name alone.
    Only(Vec<u8>),
}

impl Match {
    /// Whether it is for this name.
    #[must_use]
    pub(crate) fn takes(&self, name: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Only(only) => only == name,
        }
    }
}

/// As it is written, where it is UTF-8.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Only(name) => f.write_str(&String::from_utf8_lossy(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_matched_byte_for_byte() {
        let app = Match::Only(b"app".to_vec());
        assert!(Match::Any.takes(b"\xff") && app.takes(b"app"));
        assert!(!app.takes(b"App") && !app.takes(b"app2") && !app.takes(b"\xff"));
    }
}
