//! The names of tokens and generations. The driver keeps what they stand for. Floor 1.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names a token within one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct TokenId(pub u64);

/// Names a generation within one route and process. They count from 1, in the order of their grants.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GenerationId(u64);

impl GenerationId {
    /// The first one.
    pub(crate) const FIRST: Self = Self(1);

    /// The one with this number.
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

    /// The one after it.
    #[must_use]
    pub(crate) fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// All of them, the first one first.
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
