//! One setting: its names, the form of its value, its documentation. Floor 6.

use std::fmt;

use super::values::Bad;

/// A setting, and how its text becomes a value.
pub(super) struct Key<T: 'static> {
    pub(super) setting: &'static Setting,
    pub(super) parse: fn(&str) -> Result<T, Bad>,
}

/// What settings of every type of value have in common.
pub struct Setting {
    pub(super) table: Table,
    pub(super) name: &'static str,
    pub(super) form: Form,
    /// The placeholder of the value in the help.
    pub(super) placeholder: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    pub(super) on_reload: Reload,
    /// Checks a text, and gives the reason why it is wrong.
    pub(super) check: fn(&str) -> Result<(), Bad>,
}

/// Where a setting stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Nowhere: `--config` itself.
    None,
    /// Above all tables.
    Top,
    /// `[vault]`
    Vault,
    /// `[vault.auth]`
    VaultAuth,
    /// `[[route]]` and `[defaults]`
    Route,
    /// The same, and never a flag or a variable: a setting that distinguishes several routes.
    Routes,
    /// `[[listener]]`, and never a flag or a variable.
    Listener,
    /// `[limits]`
    Limits,
    /// `[cancel]`
    Cancel,
    /// `[tls]`
    Tls,
}

/// The form of a value in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A string.
    Text,
    /// A string that clap does not read, as it shows what it could not read: this one may hold a password in error.
    Unread,
    /// A list of strings, or one string with commas.
    List,
    /// A boolean. As a flag it may stand without a value.
    Switch,
    /// An integer from 0 up.
    Number,
    /// A setting of a later version: whatever its value is, it is refused by name.
    Later,
}

/// What a reload does with a changed value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reload {
    /// A reload changes nothing, and says that a restart is needed.
    Restart,
    /// The value holds from the reload on.
    AtOnce,
    /// The value holds from the next request to Vault on.
    NextRequest,
    /// A fresh credential is issued, proved and published for it.
    FreshCredential,
    /// The value holds for new logins.
    NewLogins,
    /// The value holds from the next decision about a credential on.
    NextDecision,
}

impl Table {
    /// What stands in front of the name, in flags and variables too.
    fn prefix(self) -> &'static str {
        match self {
            Self::None | Self::Top | Self::Route | Self::Routes => "",
            Self::Vault => "vault.",
            Self::VaultAuth => "vault.auth.",
            Self::Listener => "listener.",
            Self::Limits => "limits.",
            Self::Cancel => "cancel.",
            Self::Tls => "tls.",
        }
    }

    /// Its name in the file; empty above all tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Route | Self::Routes => "route",
            other => other.prefix().trim_end_matches('.'),
        }
    }

    /// The heading in the help.
    pub(super) fn heading(self) -> Option<&'static str> {
        match self {
            Self::None | Self::Top => None,
            Self::Vault | Self::VaultAuth => Some("Vault"),
            Self::Route | Self::Routes => Some("Route (several routes: [[route]] in the file)"),
            Self::Listener => Some("Listener with limits of its own ([[listener]] in the file)"),
            Self::Tls => Some("TLS towards clients"),
            Self::Limits | Self::Cancel => Some("Limits"),
        }
    }

    pub(super) fn is_route(self) -> bool {
        matches!(self, Self::Route | Self::Routes)
    }
}

impl Setting {
    /// `vault.addr`; a route's has no table in front, as its table may be `[[route]]` or `[defaults]`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}{}", self.table.prefix(), self.name)
    }

    /// `--vault-addr`, without the hyphens in front.
    #[must_use]
    pub fn flag(&self) -> String {
        self.path().replace(['.', '_'], "-")
    }

    /// `LEASEHOLD_VAULT_ADDR`
    #[must_use]
    pub fn variable(&self) -> String {
        format!("LEASEHOLD_{}", self.path().replace('.', "_").to_ascii_uppercase())
    }

    /// The key in the file with its table, as documents write it; `None` for what does not stand there.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match self.table {
            Table::None => None,
            Table::Top => Some(self.name.to_owned()),
            Table::Route | Table::Routes | Table::Listener => {
                Some(format!("[[{}]] {}", self.table.name(), self.name))
            }
            table => Some(format!("[{}] {}", table.name(), self.name)),
        }
    }

    /// Whether it is a flag and a variable too.
    #[must_use]
    pub fn is_flag(&self) -> bool {
        !matches!(self.table, Table::Routes | Table::Listener)
    }

    /// Whether this version takes it.
    #[must_use]
    pub fn is_built(&self) -> bool {
        self.form != Form::Later
    }

    /// Its meaning, in a line.
    #[must_use]
    pub fn help(&self) -> String {
        self.help.trim().to_owned()
    }

    /// The part of the configuration that it belongs to.
    #[must_use]
    pub fn heading(&self) -> &'static str {
        self.table.heading().unwrap_or("The process")
    }

    /// Its default as text; empty where there is none.
    #[must_use]
    pub fn default(&self) -> &'static str {
        self.default
    }

    /// What a reload does with a changed value.
    #[must_use]
    pub fn on_reload(&self) -> &'static str {
        match self.on_reload {
            Reload::Restart => "restart",
            Reload::AtOnce => "at once",
            Reload::NextRequest => "next request to Vault",
            Reload::FreshCredential => "fresh credential",
            Reload::NewLogins => "new logins",
            Reload::NextDecision => "next decision",
        }
    }

    /// The flag as the help shows it, with what stands for its value: `--drain TIME`, `--lazy[=BOOL]`.
    #[must_use]
    pub fn usage(&self) -> String {
        match self.form {
            Form::Switch => format!("--{}[={}]", self.flag(), self.placeholder),
            _ => format!("--{} {}", self.flag(), self.placeholder),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path())
    }
}
