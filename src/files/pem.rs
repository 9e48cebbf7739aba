//! PEM: certificates, keys and revocation lists in text. Pure. Floor 0.
//!
//! As OpenSSL reads it, so as libpq does: text around the blocks is passed over. Where OpenSSL passes over a block in
//! silence because its lines are damaged, this is an error, as the block was meant. No error repeats anything of the text,
//! not a label either.
//!
//! Source: RFC 7468; `PEM_read_bio_ex` of OpenSSL for what is passed over.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer,
    PrivateSec1KeyDer,
};
use secrecy::zeroize::Zeroizing;

use super::{BYTE_ORDER_MARK, is_utf16};

/// The certificates; at least one.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let mut found = Vec::new();
    let blocks = blocks(text)?;
    for block in &blocks {
        match block.label {
            Label::Certificate => found.push(CertificateDer::from(block.whole()?.to_vec())),
            Label::TrustedCertificate => return Err(Fault::Trusted),
            _ => {}
        }
    }
    if found.is_empty() { Err(absent(Wanted::Certificate, text, &blocks)) } else { Ok(found) }
}

/// The first private key, which must not be encrypted.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Fault> {
    let blocks = blocks(text)?;
    for block in &blocks {
        let key = |block: &Block| -> Result<Vec<u8>, Fault> {
            if block.encrypted { Err(Fault::Encrypted) } else { Ok(block.whole()?.to_vec()) }
        };
        return Ok(match block.label {
            Label::Pkcs8Key => PrivatePkcs8KeyDer::from(key(block)?).into(),
            Label::Pkcs1Key => PrivatePkcs1KeyDer::from(key(block)?).into(),
            Label::Sec1Key => PrivateSec1KeyDer::from(key(block)?).into(),
            Label::EncryptedKey => return Err(Fault::Encrypted),
            Label::OpenSshKey => return Err(Fault::OpenSsh),
            _ => continue,
        });
    }
    Err(absent(Wanted::PrivateKey, text, &blocks))
}

/// The certificate revocation lists; at least one.
///
/// # Errors
/// See [`Fault`].
pub(crate) fn revocation_lists(text: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, Fault> {
    let blocks = blocks(text)?;
    let lists = blocks.iter().filter(|block| block.label == Label::RevocationList);
    let lists: Vec<_> = lists
        .map(|block| Ok(CertificateRevocationListDer::from(block.whole()?.to_vec())))
        .collect::<Result<_, Fault>>()?;
    if lists.is_empty() { Err(absent(Wanted::RevocationList, text, &blocks)) } else { Ok(lists) }
}

/// Why a text of PEM cannot be used. Each is a fixed sentence, and most say what mends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing at all.
    Empty,
    /// No block of the kind that is wanted, and nothing that explains it.
    Absent(Wanted),
    /// Blocks, but of other kinds.
    OtherKind(Wanted),
    /// Bytes of ASN.1 and no text.
    Der,
    /// Two bytes a character.
    Utf16,
    /// The characters `\` and `n` where lines end.
    EscapedNewlines,
    /// Something stands in the line of BEGIN behind or before it: line ends were lost.
    OneLine,
    /// END of one block and BEGIN of the next share a line.
    Joined,
    /// BEGIN without its END.
    NoEnd,
    /// END without its BEGIN, or with another label.
    StrayEnd,
    /// What stands between BEGIN and END is not base64.
    NotBase64,
    /// What the base64 holds is not one whole value of ASN.1.
    NotWhole,
    /// `TRUSTED CERTIFICATE`, whose terms of trust are OpenSSL's own.
    Trusted,
    /// A private key that a passphrase encrypts.
    Encrypted,
    /// A key in the format of OpenSSH.
    OpenSsh,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// `CERTIFICATE`.
    Certificate,
    /// `PRIVATE KEY`, `RSA PRIVATE KEY`, `EC PRIVATE KEY`.
    PrivateKey,
    /// `X509 CRL`.
    RevocationList,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
            Self::RevocationList => "certificate revocation list",
        })
    }
}

impl Fault {
    /// Whether there is nothing of what was looked for, as opposed to something damaged.
    #[must_use]
    pub(crate) fn is_absence(self) -> bool {
        matches!(self, Self::Empty | Self::Absent(_) | Self::OtherKind(_) | Self::Der)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty",
            Self::Absent(wanted) => return write!(f, "it holds no {wanted} in PEM"),
            Self::OtherKind(wanted) => return write!(f, "its PEM holds no {wanted}, but something else"),
            Self::Der => "it is DER, PKCS #12 or the like, and PEM is wanted; openssl converts it",
            Self::Utf16 => "it is encoded in UTF-16; save it as UTF-8",
            Self::EscapedNewlines => {
                "its PEM has the characters \\n where lines should end; write real line ends"
            }
            Self::OneLine => {
                "its PEM has something else in the line of BEGIN or END: line ends were lost, or the line is indented"
            }
            Self::Joined => {
                "its PEM has an END and the next BEGIN in one line; put a line end between the two"
            }
            Self::NoEnd => "its PEM has a BEGIN without its END",
            Self::StrayEnd => "its PEM has an END without its BEGIN",
            Self::NotBase64 => "its PEM has something other than base64 between BEGIN and END",
            Self::NotWhole => "its PEM is cut short, or holds something else than it says",
            Self::Trusted => {
                "it holds a TRUSTED CERTIFICATE of OpenSSL, which leasehold does not read; openssl x509 -in FILE \
                 writes it as a plain one"
            }
            Self::Encrypted => {
                "its private key is encrypted, and leasehold has no passphrase; openssl pkey -in FILE decrypts it"
            }
            Self::OpenSsh => "its private key is in the format of OpenSSH; ssh-keygen -p -m PEM converts it",
        })
    }
}

/// What stands between a BEGIN and its END.
struct Block {
    label: Label,
    /// By a header, as OpenSSL wrote keys before PKCS #8.
    encrypted: bool,
    bytes: Zeroizing<Vec<u8>>,
}

impl Block {
    /// Its bytes, if they are one value of ASN.1 from the first to the last.
    fn whole(&self) -> Result<&[u8], Fault> {
        if is_sequence(&self.bytes) { Ok(&self.bytes) } else { Err(Fault::NotWhole) }
    }
}

/// Kinds of blocks, old spellings included.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    Certificate,
    TrustedCertificate,
    Pkcs8Key,
    Pkcs1Key,
    Sec1Key,
    EncryptedKey,
    OpenSshKey,
    RevocationList,
    Other,
}

impl Label {
    fn of(text: &[u8]) -> Self {
        match text {
            b"CERTIFICATE" | b"X509 CERTIFICATE" => Self::Certificate,
            b"TRUSTED CERTIFICATE" => Self::TrustedCertificate,
            b"PRIVATE KEY" => Self::Pkcs8Key,
            b"RSA PRIVATE KEY" => Self::Pkcs1Key,
            b"EC PRIVATE KEY" => Self::Sec1Key,
            b"ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            b"OPENSSH PRIVATE KEY" => Self::OpenSshKey,
            b"X509 CRL" => Self::RevocationList,
            _ => Self::Other,
        }
    }
}

/// A block whose END has not come.
struct Open<'a> {
    label: &'a [u8],
    encrypted: bool,
    text: Zeroizing<Vec<u8>>,
}

impl<'a> Open<'a> {
    fn new(label: &'a [u8], room: usize) -> Self {
        // With room for all of it at once, no copy is left behind by a buffer that grows.
        Self { label, encrypted: false, text: Zeroizing::new(Vec::with_capacity(room)) }
    }

    /// A line between BEGIN and END: base64, or a header.
    fn take(&mut self, line: &[u8]) {
        if line.contains(&b':') {
            self.encrypted |= contains(line, b"ENCRYPTED");
        } else {
            self.text.extend(line.iter().filter(|byte| !byte.is_ascii_whitespace()));
        }
    }

    fn close(self) -> Result<Block, Fault> {
        let bytes = STANDARD.decode(&*self.text).map(Zeroizing::new).map_err(|_| Fault::NotBase64)?;
        Ok(Block { label: Label::of(self.label), encrypted: self.encrypted, bytes })
    }
}

fn blocks(text: &[u8]) -> Result<Vec<Block>, Fault> {
    if is_utf16(text) {
        return Err(Fault::Utf16);
    }
    let mut blocks = Vec::new();
    let mut open: Option<Open<'_>> = None;
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        // Each of several files that were joined may have begun with one.
        let line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim_ascii_end();
        match (read(line)?, &mut open) {
            (Line::Begin(label), None) => open = Some(Open::new(label, text.len())),
            (Line::Begin(_), Some(_)) => return Err(Fault::NoEnd),
            (Line::End(label), Some(of)) if of.label == label => {
                blocks.extend(open.take().map(Open::close).transpose()?);
            }
            (Line::End(_), _) => return Err(Fault::StrayEnd),
            (Line::Text(line), Some(open)) => open.take(line),
            (Line::Text(_), None) => {}
        }
    }
    if open.is_some() { Err(Fault::NoEnd) } else { Ok(blocks) }
}

enum Line<'a> {
    /// With its label.
    Begin(&'a [u8]),
    /// With its label.
    End(&'a [u8]),
    Text(&'a [u8]),
}

/// What a line is. A commented BEGIN begins nothing.
fn read(line: &[u8]) -> Result<Line<'_>, Fault> {
    let begins = contains(line, BEGIN);
    if line.starts_with(b"#") || !(begins || contains(line, END)) {
        return Ok(Line::Text(line));
    }
    if contains(line, b"\\n") {
        return Err(Fault::EscapedNewlines);
    }
    let is_label = |text: &[u8]| !contains(text, DASHES);
    let of = |prefix| line.strip_prefix(prefix).and_then(|rest: &[u8]| rest.strip_suffix(DASHES));
    match (of(BEGIN), of(END)) {
        (Some(of), None) if is_label(of) => Ok(Line::Begin(of)),
        (None, Some(of)) if is_label(of) => Ok(Line::End(of)),
        _ if begins && line.starts_with(END) => Err(Fault::Joined),
        _ => Err(Fault::OneLine),
    }
}

/// Why there is none of what is wanted.
fn absent(wanted: Wanted, text: &[u8], blocks: &[Block]) -> Fault {
    if !blocks.is_empty() {
        Fault::OtherKind(wanted)
    } else if text.trim_ascii().is_empty() {
        Fault::Empty
    } else if is_sequence(text) {
        Fault::Der
    } else {
        Fault::Absent(wanted)
    }
}

/// Whether these are the bytes of one SEQUENCE in DER.
fn is_sequence(bytes: &[u8]) -> bool {
    let Some((&[0x30, first], rest)) = bytes.split_first_chunk::<2>() else { return false };
    let count = usize::from(first & 0x7f);
    if first < 0x80 {
        return rest.len() == count;
    }
    let Some((length, value)) = rest.split_at_checked(count) else { return false };
    let length =
        length.iter().try_fold(0_usize, |sum, byte| Some(sum.checked_mul(256)? + usize::from(*byte)));
    count > 0 && length == Some(value.len())
}

fn contains(line: &[u8], piece: &[u8]) -> bool {
    line.windows(piece.len()).any(|window| window == piece)
}

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";

#[cfg(test)]
mod tests;
