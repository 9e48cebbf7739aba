//! Files that a user names: how they are read, and what may be said of them. Floor 0.
//!
//! A file may hold a secret, and a user may have written the secret itself where its path belongs. So no error repeats
//! what was read, nor what a library says of it, and a path is shown only where it looks like one: see [`Shown`].

mod missing;
pub(crate) mod pem;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use secrecy::zeroize::Zeroizing;

pub(crate) use missing::{Missing, NoDirectory};

/// A path that a user wrote, and the place where it was written, which every error names. Two are equal if their paths
/// are: a line that moves in a file changes nothing.
#[derive(Clone)]
pub(crate) struct FileSetting {
    path: PathBuf,
    origin: String,
}

impl FileSetting {
    /// `origin`: the key and where it stands, such as `leasehold.toml:12: vault.ca_cert`.
    #[must_use]
    pub(crate) fn new(path: impl Into<PathBuf>, origin: impl fmt::Display) -> Self {
        Self { path: path.into(), origin: origin.to_string() }
    }

    /// The path, for opening it.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The same setting for a file of the directory that it names.
    #[must_use]
    pub(crate) fn within(&self, file: PathBuf) -> Self {
        Self { path: file, origin: self.origin.clone() }
    }

    /// Reads the certificates; at least one. Blocks.
    ///
    /// # Errors
    /// See [`Reason`].
    pub(crate) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let read = self.read(LARGEST)?;
        pem::certificates(&read).map_err(|fault| self.fails(Reason::Pem(fault)))
    }

    /// Reads the first private key. Blocks.
    ///
    /// # Errors
    /// See [`Reason`].
    pub(crate) fn private_key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        let read = self.read(LARGEST)?;
        pem::private_key(&read).map_err(|fault| self.fails(Reason::Pem(fault)))
    }

    /// Reads the certificate revocation lists; at least one. Blocks.
    ///
    /// # Errors
    /// See [`Reason`].
    pub(crate) fn revocation_lists(&self) -> Result<Vec<CertificateRevocationListDer<'static>>, Error> {
        let read = self.read(LARGEST)?;
        pem::revocation_lists(&read).map_err(|fault| self.fails(Reason::Pem(fault)))
    }

    /// Reads a file that holds one secret, and gives it without the white space around it. Blocks.
    ///
    /// # Errors
    /// See [`Reason`].
    pub(crate) fn secret(&self) -> Result<Zeroizing<String>, Error> {
        let read = self.read(LARGEST_SECRET)?;
        secret(&read).map_err(|reason| self.fails(reason))
    }

    /// A hash of the content, to see whether it has changed; `None` where it cannot be read. It is not collision-resistant. Blocks.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Option<u64> {
        let read = self.read(LARGEST).ok()?;
        let mut hasher = DefaultHasher::new();
        hasher.write(&read);
        Some(hasher.finish())
    }

    /// The error that this file cannot be used.
    #[must_use]
    pub(crate) fn fails(&self, reason: Reason) -> Error {
        Error { file: self.clone(), reason }
    }

    fn read(&self, most: u64) -> Result<Zeroizing<Vec<u8>>, Error> {
        let is_pem = self.path.to_str().is_some_and(|text| text.contains("-----BEGIN"));
        if is_pem {
            return Err(self.fails(Reason::TextForPath));
        }
        read(&self.path, most).map_err(|reason| self.fails(reason))
    }
}

impl PartialEq for FileSetting {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path
    }
}

impl Eq for FileSetting {}

/// `leasehold.toml:3: state_file: /dev/shm/state`
impl fmt::Display for FileSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, Shown(&self.path))
    }
}

impl fmt::Debug for FileSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileSetting({}, {})", Shown(&self.path), self.origin)
    }
}

/// A file that cannot be used: where it was named, its path, and why.
#[derive(Debug)]
pub(crate) struct Error {
    file: FileSetting,
    reason: Reason,
}

impl Error {
    #[must_use]
    pub(crate) fn reason(&self) -> &Reason {
        &self.reason
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot use {}: {}", self.file.origin, Shown(&self.file.path), self.reason)
    }
}

impl std::error::Error for Error {}

/// Why a file cannot be used. The words are fixed, but for those of the operating system, which repeat nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The operating system refuses.
    System(String),
    /// Nothing is there.
    Missing(Box<Missing>),
    /// A directory, a FIFO, a device.
    NotRegular,
    /// More than any file of its kind has.
    TooLarge,
    /// PEM text stands where the path of a file belongs.
    TextForPath,
    /// It has nothing but white space.
    Empty,
    /// Two bytes a character.
    Utf16,
    /// Bytes that are no text.
    NotText,
    /// Its PEM cannot be used.
    Pem(pem::Fault),
    /// An earlier read of it is still under way.
    Hangs,
    /// It was not read in time.
    TooSlow,
    /// The read was broken off.
    Interrupted,
    /// A directory without a file that holds certificates.
    NoCertificates,
    /// A certificate that TLS does not take.
    UnknownCertificate,
    /// A private key that TLS does not take.
    UnknownKey,
    /// A certificate and the key beside it that do not belong together.
    OtherKey,
    /// A revocation list that TLS does not take.
    UnknownRevocationList,
}

impl Reason {
    /// What the operating system said, without what the caller may have put into it.
    #[must_use]
    pub(crate) fn of(error: &io::Error) -> Self {
        Self::System(match error.raw_os_error() {
            Some(code) => io::Error::from_raw_os_error(code).to_string(),
            None => error.kind().to_string(),
        })
    }

    /// Why the file at this path cannot be opened. Blocks.
    #[must_use]
    pub(crate) fn of_open(error: &io::Error, path: &Path) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing(Box::new(Missing::file(path))),
            _ => Self::of(error),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System(text) => text,
            Self::Missing(missing) => return missing.fmt(f),
            Self::NotRegular => "it is not a regular file",
            Self::TooLarge => "it is too large for a file of its kind",
            Self::TextForPath => "the text of a PEM file was written in place of its path",
            Self::Empty => "it is empty",
            Self::Utf16 => "it is encoded in UTF-16; save it as UTF-8",
            Self::NotText => "it is not text in UTF-8",
            Self::Pem(fault) => return fault.fmt(f),
            Self::Hangs => "an earlier read still hangs",
            Self::TooSlow => "reading it takes too long",
            Self::Interrupted => "reading was interrupted",
            Self::NoCertificates => "no file in it holds a certificate in PEM",
            Self::UnknownCertificate => {
                "its certificate is damaged, or of a kind that leasehold does not know"
            }
            Self::UnknownKey => "its private key is damaged, or of a kind that leasehold does not know",
            Self::OtherKey => "its certificate is not that of the key beside it",
            Self::UnknownRevocationList => "a revocation list of it is damaged, or of X.509 version 1",
        })
    }
}

/// A path for an error or the log. It is shown if it begins with `/` or `.` and holds no control character; anything else
/// may be a secret that was written in place of a path.
pub(crate) struct Shown<'a>(pub &'a Path);

impl Shown<'_> {
    fn text(&self) -> Option<&str> {
        let looks_like_one =
            |text: &&str| text.starts_with(['/', '.']) && !text.chars().any(char::is_control);
        self.0.to_str().filter(looks_like_one)
    }

    /// Whether the path may be a secret.
    pub(crate) fn hides(&self) -> bool {
        self.text().is_none()
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => f.write_str(text),
            None => f.write_str("the file named there (a path is shown if it begins with / or .)"),
        }
    }
}

/// Opening a FIFO blocks until a writer opens it too; with `O_NONBLOCK` it does not.
fn read(path: &Path, most: u64) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| Reason::of_open(&error, path))?;
    let data = file.metadata().map_err(|error| Reason::of(&error))?;
    if !data.is_file() {
        return Err(Reason::NotRegular);
    }
    bytes(file, data.len(), most)
}

fn bytes(file: File, length: u64, most: u64) -> Result<Zeroizing<Vec<u8>>, Reason> {
    // With room for all of it at once, no copy is left behind by a buffer that grows.
    let room = usize::try_from(length.min(most)).unwrap_or(0) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    let count = file.take(most + 1).read_to_end(&mut bytes).map_err(|error| Reason::of(&error))?;
    if count as u64 > most {
        return Err(Reason::TooLarge);
    }
    Ok(bytes)
}

/// An editor may have put the byte order mark of UTF-8 in front.
fn secret(read: &[u8]) -> Result<Zeroizing<String>, Reason> {
    if is_utf16(read) {
        return Err(Reason::Utf16);
    }
    let text =
        str::from_utf8(read.strip_prefix(BYTE_ORDER_MARK).unwrap_or(read)).map_err(|_| Reason::NotText)?;
    if text.contains('\0') {
        return Err(Reason::NotText);
    }
    match text.trim() {
        "" => Err(Reason::Empty),
        text => Ok(Zeroizing::new(text.to_owned())),
    }
}

/// By the byte order mark, or by the zero that is half of an ASCII character.
fn is_utf16(read: &[u8]) -> bool {
    let marked = read.starts_with(&[0xff, 0xfe]) || read.starts_with(&[0xfe, 0xff]);
    marked
        || matches!(read, [0, second, 0, fourth, ..] | [second, 0, fourth, 0, ..] if second.is_ascii_graphic() && fourth.is_ascii_graphic())
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Roots of the whole world have about 250 KiB; lists of revoked certificates can have some MiB.
const LARGEST: u64 = 16 << 20;
/// A service account's token has about 1 KiB, and the header that it may go into a few.
const LARGEST_SECRET: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_shown_only_where_it_looks_like_one() {
        let shown = |text: &str| Shown(Path::new(text)).to_string();
        assert_eq!(shown("/run/secrets/id"), "/run/secrets/id");
        assert_eq!(shown("./id"), "./id");
        for secret in ["0b1c2d3e-hidden", "hvs.hidden", "/9j/hidden\nhidden", "-----BEGIN hidden"] {
            assert!(!shown(secret).contains("hidden"), "{secret}");
            assert!(!format!("{:?}", FileSetting::new(secret, "key")).contains("hidden"), "{secret}");
        }
    }

    #[test]
    fn an_error_names_the_place_and_the_reason() {
        let missing = FileSetting::new("/nowhere/id", "a.toml:3: vault.auth.secret_id_file");
        assert_eq!(
            missing.secret().unwrap_err().to_string(),
            "a.toml:3: vault.auth.secret_id_file: cannot use /nowhere/id: there is no such file, nor a directory /nowhere"
        );
        let text =
            FileSetting::new("-----BEGIN PRIVATE KEY-----\nhidden", "sslkey").private_key().unwrap_err();
        assert_eq!(*text.reason(), Reason::TextForPath);
        assert!(!text.to_string().contains("hidden"));
        assert_eq!(*FileSetting::new("/dev", "x").secret().unwrap_err().reason(), Reason::NotRegular);
        assert_eq!(*FileSetting::new("/dev/zero", "x").secret().unwrap_err().reason(), Reason::NotRegular);
    }

    #[test]
    fn a_secret_is_read_without_what_an_editor_adds() {
        let secret = |read: &[u8]| secret(read).map(|text| text.to_string());
        assert_eq!(secret(b"\xef\xbb\xbf hvs.token\r\n").unwrap(), "hvs.token");
        assert_eq!(secret(b" \n"), Err(Reason::Empty));
        assert_eq!(secret(b"\xff\xfeh\0v\0s\0"), Err(Reason::Utf16));
        assert_eq!(secret(b"h\0v\0s\0"), Err(Reason::Utf16));
        assert_eq!(secret(b"hvs\0"), Err(Reason::NotText));
        assert_eq!(secret(b"\x80"), Err(Reason::NotText));
    }

    #[test]
    fn a_file_that_goes_on_and_on_is_given_up() {
        let path = std::env::temp_dir().join(format!("leasehold-large-{}", std::process::id()));
        std::fs::write(&path, vec![b'x'; 65 << 10]).unwrap();
        let error = FileSetting::new(&path, "x").secret().unwrap_err();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(*error.reason(), Reason::TooLarge);
    }
}
