//! The file, as TOML shapes it. Floor 6.
//!
//! Every value keeps its place, so that an error names the line. A key that this version does not know yet but will is
//! an [`Unbuilt`], and refused by name.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use super::error::{Error, Origin};

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

/// The first line of what the parser says, without the value that it quotes: one may have put a secret where none
/// belongs.
fn reason(message: &str) -> &str {
    let line = message.lines().next().unwrap_or("not TOML");
    match line.rsplit_once(", expected ") {
        Some((_, expected)) if line.starts_with("invalid ") => {
            line.get(line.len() - expected.len() - "expected ".len()..).unwrap_or(line)
        }
        _ => line,
    }
}

/// The file's path and text, to name places in it.
pub(super) struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    pub(super) fn read(path: &Path) -> Result<(Self, File), Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    pub(super) fn parse(path: &Path, text: String) -> Result<(Self, File), Error> {
        let source = Self { path: path.to_owned(), text };
        match toml::from_str(&source.text) {
            Ok(file) => Ok((source, file)),
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                Err(Error::invalid(source.place(at, None), reason(error.message())))
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

    fn key_at(&self, at: usize) -> String {
        let end = self
            .text
            .get(at..)
            .and_then(|rest| rest.find('\n'))
            .map_or(self.text.len(), |length| at + length);
        let mut key = None;
        for line in self.text.get(..end).unwrap_or("").lines().rev() {
            let line = line.trim();
            if let Some(table) = line.strip_prefix('[').filter(|_| line.contains(']')) {
                let table: String = table.trim_start_matches('[').chars().take_while(|c| *c != ']').collect();
                return match key {
                    Some(key) => format!("{}.{key}", table.trim()),
                    None => table.trim().to_owned(),
                };
            }
            if key.is_none()
                && let Some((name, _)) = line.split_once('=')
            {
                key = Some(name.trim().to_owned());
            }
        }
        key.unwrap_or_else(|| "(top)".to_owned())
    }
}
