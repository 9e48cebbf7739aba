//! The file, as TOML shapes it. Floor 6.
//!
//! Every value keeps its place, so that an error names the line. A key that this version does not know yet but will is
//! an [`Unbuilt`], and refused by name.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::error::{Error, Origin};
use super::known;
use crate::files::{FileSetting, Reason};

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) listen: Option<Spanned<OneOrMany>>,
    pub(super) listen_public: Option<Spanned<bool>>,
    pub(super) http: Option<Spanned<String>>,
    pub(super) admin: Option<Spanned<String>>,
    pub(super) log_level: Option<Spanned<String>>,
    pub(super) log_format: Option<Spanned<String>>,
    pub(super) min_sigterm_delay: Option<Spanned<String>>,
    pub(super) max_sigterm_delay: Option<Spanned<String>>,
    pub(super) state_file: Option<Spanned<String>>,
    pub(super) vault: Vault,
    pub(super) limits: Limits,
    pub(super) cancel: Cancel,
    pub(super) defaults: Route,
    pub(super) route: Vec<Spanned<Route>>,
    pub(super) tls: Unbuilt,
    pub(super) allow_uids: Unbuilt,
    pub(super) allow_gids: Unbuilt,
    pub(super) client_san: Unbuilt,
    pub(super) hardening: Unbuilt,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Vault {
    pub(super) addr: Option<Spanned<OneOrMany>>,
    pub(super) namespace: Option<Spanned<String>>,
    pub(super) ca_cert: Option<Spanned<String>>,
    pub(super) ca_path: Option<Spanned<String>>,
    pub(super) client_cert: Option<Spanned<String>>,
    pub(super) client_key: Option<Spanned<String>>,
    pub(super) tls_server_name: Option<Spanned<String>>,
    pub(super) skip_verify: Option<Spanned<bool>>,
    pub(super) client_timeout: Option<Spanned<String>>,
    pub(super) auth: Auth,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auth {
    pub(super) method: Option<Spanned<String>>,
    pub(super) mount: Option<Spanned<String>>,
    pub(super) role: Option<Spanned<String>>,
    pub(super) role_id: Option<Spanned<String>>,
    pub(super) secret_id_file: Option<Spanned<String>>,
    pub(super) jwt_file: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) secret_id_wrapped: Option<Spanned<bool>>,
    pub(super) username: Option<Spanned<String>>,
    pub(super) password_file: Option<Spanned<String>>,
    pub(super) cert_name: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Limits {
    pub(super) handshake_timeout: Option<Spanned<String>>,
    pub(super) login_wait: Option<Spanned<String>>,
    pub(super) connect_timeout: Option<Spanned<String>>,
    pub(super) send_timeout: Option<Spanned<String>>,
    pub(super) max_sessions: Option<Spanned<u32>>,
    pub(super) replica_grace: Option<Spanned<String>>,
    pub(super) issue_burst: Option<Spanned<u32>>,
    pub(super) issue_interval: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Cancel {
    pub(super) unknown: Option<Spanned<String>>,
}

/// A `[[route]]`, or `[defaults]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Route {
    pub(super) name: Option<Spanned<String>>,
    pub(super) user: Option<Spanned<String>>,
    pub(super) database: Option<Spanned<String>>,
    pub(super) upstream: Option<Spanned<String>>,
    pub(super) vault_path: Option<Spanned<String>>,
    pub(super) rotate_after: Option<Spanned<String>>,
    pub(super) max_age: Option<Spanned<String>>,
    pub(super) drain: Option<Spanned<String>>,
    pub(super) set_role: Option<Spanned<String>>,
    pub(super) probe_database: Option<Spanned<String>>,
    pub(super) probe_sql: Option<Spanned<String>>,
    pub(super) max_sessions: Option<Spanned<u32>>,
    pub(super) lazy: Option<Spanned<bool>>,
    pub(super) idle_after: Option<Spanned<String>>,
    pub(super) standby: Option<Spanned<bool>>,
    pub(super) require_auth: Option<Spanned<String>>,
    pub(super) warm: Unbuilt,
    pub(super) reuse: Unbuilt,
    pub(super) tag_application_name: Unbuilt,
    pub(super) vault: Unbuilt,
}

/// A key of a later version, and where it stands.
pub(super) type Unbuilt = Option<Spanned<toml::Value>>;

/// A list, or its only element.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A value of the file as the text that a flag would have.
pub(super) trait Written {
    fn to_text(&self) -> String;
}

impl Written for String {
    fn to_text(&self) -> String {
        self.clone()
    }
}

impl Written for bool {
    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Written for u32 {
    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl Written for OneOrMany {
    fn to_text(&self) -> String {
        match self {
            Self::One(text) => text.clone(),
            Self::Many(texts) => texts.join(","),
        }
    }
}

/// Why the parser refuses a file, in words of our own: its own repeat what they could not read.
fn reason(message: &str) -> String {
    let expected = message.lines().next().and_then(|line| line.rsplit_once(", expected "));
    let expected = expected.map_or("", |(_, expected)| expected);
    if message.starts_with("unknown field `") {
        let word = message.trim_start_matches("unknown field `").split('`').next().unwrap_or("");
        // Every second piece is a key of this table.
        return unknown("key", known::nearest(word, expected.split('`').skip(1).step_by(2)));
    }
    if message.starts_with("duplicate ") {
        return "is there twice".to_owned();
    }
    if message.starts_with(LIST_WANTED) {
        return LIST_WANTED.to_owned();
    }
    if message.starts_with("invalid type: ") || message.starts_with("invalid value: ") {
        let types = TYPES.iter().find(|(wanted, _)| expected.starts_with(wanted));
        return types.map_or("is of the wrong type", |(_, words)| words).to_owned();
    }
    match SYNTAX.iter().find(|known| message.starts_with(**known)) {
        Some(known) => format!("not TOML: {known}"),
        None => "not TOML".to_owned(),
    }
}

/// That a word is not known, and which one may have been meant.
pub(super) fn unknown(what: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("unknown {what}; did you mean {meant}?"),
        None => format!("unknown {what}"),
    }
}

const LIST_WANTED: &str = "expected a string or a list of strings";

/// What the parser wants, and how it is said.
const TYPES: [(&str, &str); 6] = [
    ("a string", "expected a string"),
    ("a boolean", "expected a boolean"),
    ("u32", "expected a whole number from 0 up"),
    ("a sequence", "expected a list, such as [[route]]"),
    ("struct", "expected a table"),
    ("a map", "expected a table"),
];

/// What the parser says of broken syntax; none of it has anything of the file.
const SYNTAX: [&str; 10] = [
    "unclosed",
    "key with no value",
    "missing value",
    "missing comma",
    "extra `=`",
    "extra comma",
    "unexpected key or value",
    "unexpected content",
    "string values must be quoted",
    "invalid",
];

/// The file's path and text, to name places in it.
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// `origin`: the flag or the variable that names the file.
    pub(super) fn read(path: &Path, origin: &Origin) -> Result<(Self, File), Error> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let reason = match error.kind() {
                std::io::ErrorKind::InvalidData => Reason::NotText,
                _ => Reason::of(&error),
            };
            Error::File(FileSetting::new(path, origin).fails(reason))
        })?;
        Self::parse(path, text)
    }

    pub(super) fn parse(path: &Path, text: String) -> Result<(Self, File), Error> {
        let source = Self { path: path.to_owned(), text };
        match toml::from_str(&source.text) {
            Ok(file) => Ok((source, file)),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let reason = reason(error.message());
                // What stands there is no key, or it is not known which.
                let nameless = reason.starts_with("unknown") || reason.starts_with("not TOML");
                let key = nameless.then(|| source.table_at(at).unwrap_or(TOP));
                Err(Error::invalid(source.place(at, key), reason))
            }
        }
    }

    /// The place of a value. Without a key the line itself and the tables above it tell which it is.
    pub(super) fn place(&self, at: usize, key: Option<&str>) -> Origin {
        let before = self.text.get(..at).unwrap_or(&self.text);
        Origin::File {
            path: self.path.clone(),
            line: before.matches('\n').count() + 1,
            key: key.map_or_else(|| self.key_at(before.len()), str::to_owned),
        }
    }

    /// The key of a value, of which only a known one is named.
    fn key_at(&self, at: usize) -> String {
        let keys = self.lines_up_from(at).take_while(|line| header(line).is_none());
        let mut keys = keys.filter_map(|line| line.split_once('=')).map(|(key, _)| key.trim());
        match (self.table_at(at), keys.find(|key| known::is_key(key))) {
            (Some(table), Some(key)) => format!("{table}.{key}"),
            (Some(table), None) => table.to_owned(),
            (None, Some(key)) => key.to_owned(),
            (None, None) => TOP.to_owned(),
        }
    }

    /// The table around a place, if it is one of ours.
    fn table_at(&self, at: usize) -> Option<&'static str> {
        self.lines_up_from(at).find_map(header).and_then(known::table)
    }

    /// The line of this place, and those above it.
    fn lines_up_from(&self, at: usize) -> impl Iterator<Item = &str> {
        let end = self.text.get(at..).and_then(|rest| rest.find('\n'));
        let end = end.map_or(self.text.len(), |length| at + length);
        self.text.get(..end).unwrap_or("").lines().rev().map(str::trim)
    }
}

/// The name in a table's header.
fn header(line: &str) -> Option<&str> {
    let inside = line.strip_prefix('[').filter(|_| line.contains(']'))?;
    inside.trim_start_matches('[').split(']').next().map(str::trim)
}

const TOP: &str = "(top)";
