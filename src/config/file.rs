//! The file: TOML, read by the table of settings. Floor 6.
//!
//! Every value is kept as the text that a flag would have, with its place, so that an error names the line. An error repeats
//! nothing of the file but keys of leasehold's: anything else may be a secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Origin};
use super::key::{Form, Setting, Table};
use super::{keys, known};
use crate::files::{FileSetting, Reason, Shown};

/// The content of the file; empty where there is none.
#[derive(Default)]
pub(super) struct File {
    source: Source,
    /// All values but those of routes.
    values: Values,
    /// `[defaults]`
    pub(super) defaults: Values,
    /// Each `[[listener]]`, in order.
    pub(super) listeners: Vec<Repeated>,
    /// Each `[[route]]`, in order.
    pub(super) routes: Vec<Repeated>,
}

/// A `[[listener]]` or a `[[route]]`, and where it begins.
pub(super) struct Repeated {
    /// Without the brackets.
    pub(super) name: &'static str,
    pub(super) values: Values,
    at: usize,
}

/// Values, and where each stands, by the paths of their settings.
#[derive(Default)]
pub(super) struct Values(BTreeMap<String, (String, usize)>);

/// The file's path and text, to name places in it.
#[derive(Default)]
struct Source {
    path: PathBuf,
    text: String,
}

impl File {
    /// `origin`: the flag or the variable that names the file.
    pub(super) fn read(path: &Path, origin: &Origin) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let reason = match error.kind() {
                ErrorKind::InvalidData => Reason::NotText,
                _ => Reason::of_open(&error, path),
            };
            // What is there, or is called as such a file is, is no secret in the place of a path.
            let is_path =
                error.kind() != ErrorKind::NotFound || path.extension().is_some_and(|end| end == "toml");
            let named =
                if is_path && Shown(path).hides() { Path::new(".").join(path) } else { path.to_owned() };
            Error::File(FileSetting::new(named, origin).fails(reason))
        })?;
        Self::parse(path, text)
    }

    pub(super) fn parse(path: &Path, text: String) -> Result<Self, Error> {
        let source = Source { path: path.to_owned(), text };
        let mut file = Self::default();
        match DeTable::parse(&source.text) {
            Ok(table) => Reader { source: &source, file: &mut file }.table(table.get_ref(), "")?,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                let mut reason = syntax(error.message());
                if source.is_unquoted(at) {
                    reason.push_str(QUOTES_WANTED);
                }
                return Err(Error::invalid(source.place(at, source.table_at(at)), reason));
            }
        }
        Ok(Self { source, ..file })
    }

    /// The path as it was written; `None` without a file.
    pub(super) fn path(&self) -> Option<&Path> {
        Some(self.source.path.as_path()).filter(|path| !path.as_os_str().is_empty())
    }

    /// A value that belongs to no route.
    pub(super) fn get(&self, setting: &Setting) -> Option<(&str, Origin)> {
        self.get_of(&self.values, "", setting)
    }

    /// A value of a `[[listener]]`, of a `[[route]]` or of `[defaults]`, whose name `table` is.
    pub(super) fn get_of<'a>(
        &self,
        values: &'a Values,
        table: &str,
        setting: &Setting,
    ) -> Option<(&'a str, Origin)> {
        let path = setting.path();
        let (text, at) = values.0.get(&path)?;
        let key = if table.is_empty() { path } else { format!("{table}.{}", setting.name) };
        Some((text, self.source.place(*at, &key)))
    }

    /// The beginning of a `[[listener]]` or a `[[route]]`: what is wrong there is that it lacks `key`.
    pub(super) fn place_of(&self, table: &Repeated, key: &str) -> Origin {
        self.source.place(table.at, &format!("{}.{key}", table.name))
    }
}

/// Sorts what the parser has found.
struct Reader<'a> {
    source: &'a Source,
    file: &'a mut File,
}

impl Reader<'_> {
    /// `prefix`: the path of the table with a dot behind it; empty for the top.
    fn table(&mut self, table: &DeTable<'_>, prefix: &str) -> Result<(), Error> {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            match (path.as_str(), value.get_ref()) {
                ("defaults", DeValue::Table(inner)) => {
                    self.file.defaults = self.values(inner, "defaults", Table::Route.name())?;
                }
                ("defaults", _) => return Err(self.wrong(value, &path, TABLE_WANTED)),
                ("listener", _) => self.file.listeners = self.repeated(value, Table::Listener.name())?,
                ("route", _) => self.file.routes = self.repeated(value, Table::Route.name())?,
                _ => self.value(key, value, path)?,
            }
        }
        Ok(())
    }

    /// A setting, or a table of settings.
    fn value(
        &mut self,
        key: &Spanned<Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        path: String,
    ) -> Result<(), Error> {
        let mut ours =
            keys::ALL.iter().filter(|setting| !setting.table.is_route() && setting.table != Table::None);
        let prefix = format!("{path}.");
        if let Some(setting) = ours.clone().find(|setting| setting.path() == path) {
            let text = self.text(setting, value, &path)?;
            self.file.values.0.insert(path, (text, value.span().start));
            Ok(())
        } else if ours.any(|setting| setting.path().starts_with(&prefix)) {
            match value.get_ref() {
                DeValue::Table(inner) => self.table(inner, &prefix),
                _ => Err(self.wrong(value, &path, TABLE_WANTED)),
            }
        } else {
            let table = path.rsplit_once('.').map_or("", |(table, _)| table);
            Err(self.unknown(key, table, known::keys_of(table)))
        }
    }

    /// Each table of a list.
    fn repeated(&self, value: &Spanned<DeValue<'_>>, name: &'static str) -> Result<Vec<Repeated>, Error> {
        let wrong = || format!("expected a list of tables: each begins with [[{name}]]");
        let DeValue::Array(tables) = value.get_ref() else {
            return Err(self.wrong(value, name, &wrong()));
        };
        let one = |table: &Spanned<DeValue<'_>>| match table.get_ref() {
            DeValue::Table(inner) => {
                Ok(Repeated { name, values: self.values(inner, name, name)?, at: table.span().start })
            }
            _ => Err(self.wrong(table, name, &wrong())),
        };
        tables.iter().map(one).collect()
    }

    /// The values of the table `name`, whose settings are those of the table `of`.
    fn values(&self, table: &DeTable<'_>, name: &str, of: &str) -> Result<Values, Error> {
        let mut values = Values::default();
        for (key, value) in table {
            let mut settings = keys::ALL.iter().filter(|setting| setting.table.name() == of);
            let Some(setting) = settings.find(|setting| setting.name == key.get_ref()) else {
                return Err(self.unknown(key, name, known::keys_of(of)));
            };
            let text = self.text(setting, value, &format!("{name}.{}", setting.name))?;
            values.0.insert(setting.path(), (text, value.span().start));
        }
        Ok(values)
    }

    /// A value as the text that a flag would have.
    fn text(&self, setting: &Setting, value: &Spanned<DeValue<'_>>, path: &str) -> Result<String, Error> {
        let wanted = match (setting.form, value.get_ref()) {
            (Form::Text | Form::Unread | Form::List, DeValue::String(text)) => {
                return Ok(text.clone().into_owned());
            }
            (Form::Switch, DeValue::Boolean(value)) => return Ok(value.to_string()),
            (Form::Number, DeValue::Integer(number)) if number.radix() == 10 => {
                return Ok(number.as_str().to_owned());
            }
            (Form::List, DeValue::Array(values)) => {
                let texts: Option<Vec<&str>> = values.iter().map(|value| item(value.get_ref())).collect();
                match texts {
                    Some(texts) => return Ok(texts.join(",")),
                    None => LIST_WANTED,
                }
            }
            // It is refused by name, whatever its value is.
            (Form::Later, _) => return Ok(String::new()),
            (Form::Text, DeValue::Integer(_)) if setting.placeholder == "TIME" => {
                "expected a duration in quotes, such as \"30s\" or \"2m\""
            }
            (Form::Text | Form::Unread, _) => "expected a string",
            (Form::List, _) => LIST_WANTED,
            (Form::Switch, _) => "expected a boolean",
            (Form::Number, _) => "expected a whole number from 0 up",
        };
        Err(self.wrong(value, path, wanted))
    }

    fn wrong<T>(&self, value: &Spanned<T>, path: &str, reason: &str) -> Error {
        Error::invalid(self.source.place(value.span().start, path), reason)
    }

    /// A key that is none of leasehold's, in a table whose keys are these.
    fn unknown(
        &self,
        key: &Spanned<Cow<'_, str>>,
        table: &str,
        keys: impl Iterator<Item = &'static str>,
    ) -> Error {
        let reason = known::unknown_key(key.get_ref(), table, keys);
        self.wrong(key, if table.is_empty() { TOP } else { table }, &reason)
    }
}

impl Source {
    fn place(&self, at: usize, key: &str) -> Origin {
        let before = self.text.get(..at).unwrap_or(&self.text);
        Origin::File { path: self.path.clone(), line: before.matches('\n').count() + 1, key: key.to_owned() }
    }

    /// Whether the value on the line of a place is in no quotes, and begins like nothing else that TOML has.
    fn is_unquoted(&self, at: usize) -> bool {
        let before = self.text.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
        let after = self.text.get(at..).unwrap_or_default().split('\n').next().unwrap_or_default();
        let line = format!("{before}{after}");
        let value = line.split_once('=').map_or("", |(_, value)| value.trim());
        !value.is_empty() && !value.starts_with(['"', '\'', '[', '{', '='])
    }

    /// The table around a place, if its header is one of leasehold's. It is found in the text, as the syntax is broken.
    fn table_at(&self, at: usize) -> &'static str {
        let end = self
            .text
            .get(at..)
            .and_then(|rest| rest.find('\n'))
            .map_or(self.text.len(), |length| at + length);
        let lines = self.text.get(..end).unwrap_or("").lines().rev().map(str::trim);
        lines.filter_map(header).next().and_then(known::table).unwrap_or(TOP)
    }
}

/// One of a list: a string, or a number such as a user's.
fn item<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    match value {
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
        other => other.as_str(),
    }
}

/// The name in a table's header.
fn header(line: &str) -> Option<&str> {
    let inside = line.strip_prefix('[').filter(|_| line.contains(']'))?;
    inside.trim_start_matches('[').split(']').next().map(str::trim)
}

/// Why the parser refuses a file, in words of our own: its own repeat what they could not read.
fn syntax(message: &str) -> String {
    if message.starts_with("duplicate ") {
        return "is there twice".to_owned();
    }
    match SYNTAX.iter().find(|known| message.starts_with(**known)) {
        Some(known) => format!("not TOML: {known}"),
        None => "not TOML".to_owned(),
    }
}

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

const QUOTES_WANTED: &str = "; a value that is not a number, true or false stands in quotes";
const TABLE_WANTED: &str = "expected a table";
const LIST_WANTED: &str = "expected a string or a list of strings";
const TOP: &str = "(top)";
