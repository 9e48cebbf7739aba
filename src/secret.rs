//! A secret string: passwords, tokens, wrapped secret_ids, keys. Floor 0.
//!
//! The only way to its content is [`Secret::expose`], so that a leak needs a word that a reviewer can grep.
//! It has no `Display`, no `Serialize`, no `Deref`; `Debug` prints a fixed word; the memory is cleared on drop, and is not swapped
//! out where the system allows that.

mod locked;

use std::fmt;
use std::io;
use std::sync::{Arc, Weak};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use locked::Slot;

/// A secret of UTF-8 text. Its clones share the text, which is cleared when the last one is dropped.
#[derive(Clone)]
pub(crate) struct Secret(Arc<Text>);

enum Text {
    Locked(Slot),
    /// There is no room for it in locked memory.
    Unlocked(SecretString),
}

impl Secret {
    /// Takes the text over.
    #[must_use]
    pub(crate) fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        Self(Arc::new(match Slot::holding(&text) {
            Some(slot) => Text::Locked(slot),
            None => Text::Unlocked(SecretString::from(text.as_str())),
        }))
    }

    /// What knows it without keeping it.
    #[must_use]
    pub(crate) fn downgrade(&self) -> WeakSecret {
        WeakSecret(Arc::downgrade(&self.0))
    }

    /// The text itself. Call it only where the text goes onto the wire.
    #[must_use]
    pub(crate) fn expose(&self) -> &str {
        self.0.expose()
    }

    /// A foreign text without the secret, which its sender may have been told.
    #[must_use]
    pub(crate) fn taken_out_of(&self, text: &str) -> String {
        match self.expose() {
            "" => text.to_owned(),
            secret => text.replace(secret, "[redacted]"),
        }
    }

    /// Whether both hold the same text.
    #[must_use]
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Text {
    fn expose(&self) -> &str {
        match self {
            Self::Locked(slot) => slot.text(),
            Self::Unlocked(text) => text.expose_secret(),
        }
    }
}

/// Locks the memory that secrets are kept in, if no secret has done so yet.
///
/// # Errors
/// The system refuses: they can be swapped out.
pub(crate) fn lock_memory() -> io::Result<()> {
    locked::lock()
}

/// Knows a secret as long as somebody else keeps it.
pub(crate) struct WeakSecret(Weak<Text>);

impl WeakSecret {
    /// Whether the secret is still kept, and has the same text as this one.
    #[must_use]
    pub(crate) fn is(&self, other: &Secret) -> bool {
        self.0.upgrade().is_some_and(|text| text.expose() == other.expose())
    }

    /// Whether the secret is still kept.
    #[must_use]
    pub(crate) fn is_kept(&self) -> bool {
        self.0.strong_count() > 0
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
    fn a_long_text_and_more_texts_than_there_is_locked_memory_for_are_kept_too() {
        let texts: Vec<_> = (0..1000).map(|number| "x".repeat(number)).collect();
        let secrets: Vec<_> = texts.iter().cloned().map(Secret::new).collect();
        assert!(secrets.iter().zip(&texts).all(|(secret, text)| secret.expose() == text));
    }

    #[test]
    fn a_secret_is_known_as_long_as_it_is_kept() {
        let secret = Secret::new("hunter2".to_owned());
        let (known, copy) = (secret.downgrade(), secret.clone());
        drop(secret);
        assert!(known.is_kept() && known.is(&Secret::new("hunter2".to_owned())));
        assert!(!known.is(&Secret::new("hunter3".to_owned())));
        drop(copy);
        assert!(!known.is_kept() && !known.is(&Secret::new("hunter2".to_owned())));
    }

    #[test]
    fn debug_does_not_show_the_text() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "Secret([redacted])");
        assert_eq!(secret.expose(), "hunter2");
    }
}
