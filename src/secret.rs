//! A secret string: passwords, tokens, wrapped secret_ids, keys. Floor 0.
//!
//! The only way to its content is [`Secret::expose`], so that a leak needs a word that a reviewer can grep.
//! It has no `Display`, no `Serialize`, no `Deref`; `Debug` prints a fixed word; the memory is cleared on drop.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};

/// A secret of UTF-8 text. Cloning copies the text; both copies are cleared when dropped.
#[derive(Clone)]
pub(crate) struct Secret(SecretString);

impl Secret {
    /// Takes the text over.
    #[must_use]
    pub(crate) fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text itself. Call it only where the text goes onto the wire.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether both hold the same text.
    #[must_use]
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
    }
}

impl Eq for Secret {}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_text() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret([redacted])");
        assert_eq!(secret.expose(), "hunter2");
    }
}
