//! What the state file says, as JSON. Floor 3.
//!
//! It is of one version of the format, one boot of the machine and one Vault; of any other it says nothing. It is
//! replaced as a whole, so half of one is a corrupt one.

use secrecy::zeroize::Zeroizing;
use serde::{Deserialize, Serialize, Serializer};

use crate::lease::{GenerationSnapshot, TokenId, TokenSnapshot};
use crate::secret::Secret;
use crate::time::Time;

/// Everything in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    version: u32,
    /// The boot in which its times were taken.
    boot: String,
    /// The Vault that its tokens are of.
    vault: String,
    pub(super) routes: Vec<Saved>,
}

/// What there is of one route. Its generations are in order, oldest first.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::credentials) struct Saved {
    pub(in crate::credentials) route: String,
    pub(in crate::credentials) tokens: Vec<SavedToken>,
    pub(in crate::credentials) generations: Vec<SavedGeneration>,
}

/// A token.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::credentials) struct SavedToken {
    pub(in crate::credentials) id: TokenId,
    #[serde(serialize_with = "exposed")]
    pub(in crate::credentials) token: Secret,
    pub(in crate::credentials) life: TokenSnapshot,
}

/// A credential and its lease.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::credentials) struct SavedGeneration {
    pub(in crate::credentials) username: String,
    #[serde(serialize_with = "exposed")]
    pub(in crate::credentials) password: Secret,
    pub(in crate::credentials) lease_id: String,
    /// Where it came from.
    pub(in crate::credentials) origin: Origin,
    pub(in crate::credentials) life: GenerationSnapshot,
}

/// Where a credential came from: another path or another login is another credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::credentials) struct Origin {
    pub(in crate::credentials) vault_path: String,
    pub(in crate::credentials) login: String,
}

impl Saved {
    pub(super) fn new(route: &str) -> Self {
        Self { route: route.to_owned(), tokens: Vec::new(), generations: Vec::new() }
    }

    pub(in crate::credentials) fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.generations.is_empty()
    }

    pub(super) fn serves(&self) -> bool {
        self.generations.iter().any(|generation| generation.life.serves)
    }

    /// Whether a process that has ended before `now` can have left this.
    fn is_sound(&self, now: Time) -> bool {
        let token = |id: TokenId| self.tokens.iter().filter(|token| token.id == id).count();
        self.tokens.iter().all(|held| token(held.id) == 1 && held.life.is_before(now))
            && self.generations.iter().all(|held| token(held.life.token) == 1 && held.life.is_before(now))
    }
}

/// Why what is in the file is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Useless {
    #[error("it is corrupt")]
    Corrupt,
    #[error("it is of another version of leasehold")]
    Version,
    #[error("it is of an earlier boot of the machine")]
    Boot,
    #[error("it is of another Vault")]
    Vault,
}

impl Document {
    /// Reads it, and takes it for what `boot` and `vault` were.
    pub(super) fn read(text: &[u8], boot: &str, vault: &str, now: Time) -> Result<Vec<Saved>, Useless> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let head: Head = serde_json::from_slice(text).map_err(|_| Useless::Corrupt)?;
        if head.version != VERSION {
            return Err(Useless::Version);
        }
        let read: Self = serde_json::from_slice(text).map_err(|_| Useless::Corrupt)?;
        debug_assert_eq!(read.version, VERSION, "the head said so");
        if read.boot != boot {
            return Err(Useless::Boot);
        }
        if read.vault != vault {
            return Err(Useless::Vault);
        }
        if !read.routes.iter().all(|left| left.is_sound(now)) {
            return Err(Useless::Corrupt);
        }
        Ok(read.routes)
    }

    /// Writes it into a buffer of the right size from the start, so that no copy is left behind where it grew.
    pub(super) fn write<'a>(
        boot: &str,
        vault: &str,
        routes: impl Iterator<Item = &'a Saved>,
    ) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        #[derive(Serialize)]
        struct Borrowed<'a> {
            version: u32,
            boot: &'a str,
            vault: &'a str,
            routes: Vec<&'a Saved>,
        }
        let document = Borrowed { version: VERSION, boot, vault, routes: routes.collect() };
        let mut size = Size(0);
        serde_json::to_writer(&mut size, &document)?;
        let mut text = Zeroizing::new(Vec::with_capacity(size.0));
        serde_json::to_writer(&mut *text, &document)?;
        Ok(text)
    }
}

/// Raised with each change of what is written here, or of what `lease` keeps.
const VERSION: u32 = 2;

/// Counts what is written.
struct Size(usize);

impl std::io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn exposed<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose())
}
