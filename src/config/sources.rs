//! The sources of a value: the flag, the variable, the file. Floor 6.

use std::path::PathBuf;

use super::env::Environment;
use super::error::{Error, Origin};
use super::file::{File, Repeated, Values};
use super::flags::Flags;
use super::key::{Key, Setting};
use super::keys;
use super::values::Bad;
use crate::files::FileSetting;

/// Flags, variables and the file, and the rest of the environment.
pub(super) struct Sources<'a> {
    flags: &'a Flags,
    pub(super) env: &'a Environment,
    file: File,
}

/// A value, and where it was found.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T> Found<T> {
    fn parsed(text: &str, origin: Origin, parse: impl Fn(&str) -> Result<T, Bad>) -> Result<Self, Error> {
        match parse(text) {
            Ok(value) => Ok(Self { value, origin }),
            // As clap says of the values that it may read.
            Err(Bad(reason)) if matches!(origin, Origin::Flag(_)) => Err(Error::Usage { origin, reason }),
            Err(reason) => Err(Error::invalid(origin, reason)),
        }
    }
}

impl Found<PathBuf> {
    /// The path with its place, for what opens it.
    pub(super) fn into_file(self) -> FileSetting {
        FileSetting::new(self.value, self.origin)
    }
}

/// Where a route or a listener is written.
#[derive(Clone, Copy)]
pub(super) enum Written<'a> {
    /// By flags and variables.
    ByFlags,
    /// In a `[[route]]` or a `[[listener]]`.
    InFile(&'a Repeated),
}

/// The value that was found, or the default that the table of settings has.
pub(super) fn or_default<T>(found: Option<Found<T>>, key: &Key<T>) -> Result<Found<T>, Error> {
    match found {
        Some(found) => Ok(found),
        None => Found::parsed(key.setting.default, Origin::Default(key.setting.path()), key.parse),
    }
}

impl<'a> Sources<'a> {
    /// Reads the file, if one is named.
    pub(super) fn open(flags: &'a Flags, env: &'a Environment) -> Result<Self, Error> {
        let mut sources = Self { flags, env, file: File::default() };
        if let Some(Found { value: path, origin }) = sources.find(&keys::CONFIG)? {
            sources.file = File::read(&path, &origin)?;
        }
        Ok(sources)
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn of_text(text: &str, flags: &'a Flags, env: &'a Environment) -> Result<Self, Error> {
        Ok(Self { flags, env, file: File::parse(std::path::Path::new("test.toml"), text.to_owned())? })
    }

    /// The error with the file that was read.
    pub(super) fn name_file(&self, error: Error) -> Error {
        match self.file.path() {
            Some(path) => error.in_file(path),
            None => error,
        }
    }

    /// A setting that belongs to no route.
    pub(super) fn find<T>(&self, key: &Key<T>) -> Result<Option<Found<T>>, Error> {
        let setting = key.setting;
        self.written(setting).map(|(text, origin)| Found::parsed(text, origin, key.parse)).transpose()
    }

    /// The text of a setting that belongs to no route, and its place.
    pub(super) fn written(&self, setting: &Setting) -> Option<(&str, Origin)> {
        self.given(setting).or_else(|| self.file.get(setting))
    }

    /// Where a setting that belongs to no route is written.
    pub(super) fn place(&self, setting: &Setting) -> Option<Origin> {
        self.written(setting).map(|(_, origin)| origin)
    }

    /// The same without its place, or `default` where the table of settings has none that is a value.
    pub(super) fn get_or<T>(&self, key: &Key<T>, default: T) -> Result<T, Error> {
        Ok(self.find(key)?.map_or(default, |found| found.value))
    }

    /// A setting that belongs to no route, or the default that the table of settings has for it.
    pub(super) fn get<T>(&self, key: &Key<T>) -> Result<T, Error> {
        or_default(self.find(key)?, key).map(|found| found.value)
    }

    /// A setting of a route or a listener; what is not written for a route is taken from `[defaults]`.
    pub(super) fn find_of<T>(&self, whose: Written<'_>, key: &Key<T>) -> Result<Option<Found<T>>, Error> {
        let found = self.written_of(whose, key.setting);
        found.map(|(text, origin)| Found::parsed(text, origin, key.parse)).transpose()
    }

    /// The same without its place, or the default that the table of settings has for it.
    pub(super) fn get_of<T>(&self, whose: Written<'_>, key: &Key<T>) -> Result<T, Error> {
        or_default(self.find_of(whose, key)?, key).map(|found| found.value)
    }

    /// The text of a setting of a route or a listener, and its place.
    pub(super) fn written_of<'b>(
        &'b self,
        whose: Written<'b>,
        setting: &Setting,
    ) -> Option<(&'b str, Origin)> {
        let own = match whose {
            Written::ByFlags => self.given(setting),
            Written::InFile(table) => self.file.get_of(&table.values, table.name, setting),
        };
        own.or_else(|| self.file.get_of(&self.file.defaults, "defaults", setting))
    }

    /// What the `bao` and `vault` command lines take from the environment: `BAO_*`, or else `VAULT_*`.
    pub(super) fn ambient<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<Found<T>>, Error> {
        self.ambient_text(name).map(|(text, origin)| Found::parsed(text, origin, parse)).transpose()
    }

    /// The same as it was written.
    pub(super) fn ambient_text(&self, name: &str) -> Option<(&str, Origin)> {
        let mut variables = ["BAO_", "VAULT_"].iter().map(|prefix| format!("{prefix}{name}"));
        variables.find_map(|variable| Some((self.env.get(&variable)?, Origin::Env(variable))))
    }

    /// What was written for leasehold, or else what is [ambient](Self::ambient).
    pub(super) fn find_or_ambient<T>(
        &self,
        key: &Key<T>,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<Found<T>>, Error> {
        match self.find(key)? {
            Some(found) => Ok(Some(found)),
            None => self.ambient(name, parse),
        }
    }

    /// The `[[route]]` tables.
    pub(super) fn routes(&self) -> &[Repeated] {
        &self.file.routes
    }

    /// The `[[listener]]` tables.
    pub(super) fn listeners(&self) -> &[Repeated] {
        &self.file.listeners
    }

    /// Where such a table begins, for what it lacks.
    pub(super) fn place_of(&self, table: &Repeated, key: &str) -> Origin {
        self.file.place_of(table, key)
    }

    /// Where a setting stands in `[defaults]`.
    pub(super) fn default_of(&self, setting: &Setting) -> Option<Origin> {
        self.file.get_of(&self.file.defaults, "defaults", setting).map(|(_, origin)| origin)
    }

    /// The flag or variable that is given for a setting.
    pub(super) fn given(&self, setting: &Setting) -> Option<(&str, Origin)> {
        if let Some(text) = self.flags.get(setting) {
            return Some((text, Origin::Flag(format!("--{}", setting.flag()))));
        }
        let variable = setting.variable();
        let text = self.env.get(&variable).filter(|_| setting.is_flag())?;
        Some((text, Origin::Env(variable)))
    }

    /// Refuses what a later version will know.
    pub(super) fn refuse_later(&self) -> Result<(), Error> {
        for setting in keys::ALL.iter().filter(|setting| !setting.is_built()) {
            let of =
                |values: &Values, table| self.file.get_of(values, table, setting).map(|(_, origin)| origin);
            let routes = self.file.routes.iter().find_map(|route| of(&route.values, "route"));
            let Some(origin) = self.place(setting).or(routes).or_else(|| of(&self.file.defaults, "defaults"))
            else {
                continue;
            };
            let reason = "not supported yet".to_owned();
            return Err(match origin {
                Origin::Flag(_) => Error::Usage { origin, reason },
                _ => Error::Invalid { origin, reason },
            });
        }
        Ok(())
    }
}
