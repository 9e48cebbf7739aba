//! The ids of tokens and generations. The driver stores what they stand for. Floor 1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Identifies a token within one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TokenId(pub u64);

/// Identifies a generation within one route and process. The numbers count from 1, in the order of the grants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GenerationId(u64);

impl GenerationId {
    /// The first generation.
    pub(crate) const FIRST: Self = Self(1);

    /// The generation with this number.
    #[must_use]
    #[cfg(test)]
    pub(crate) const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub(crate) fn get(self) -> u64 {
        self.0
    }

    /// The generation after this.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// All ids, from the first.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (1..).map(Self)
    }
}

impl fmt::Debug for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
