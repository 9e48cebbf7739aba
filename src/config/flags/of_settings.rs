//! The flags that are settings: how clap takes them, and what was given. Floor 6.

use std::collections::BTreeMap;
use std::fmt;

use clap::builder::ValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::config::key::{Form, Setting};
use crate::config::{Environment, keys};

/// Settings that were given as flags, by their paths.
///
/// A flag is no place for a secret, but a user may have put one there: Debug shows the names of the flags alone.
#[derive(Clone, Default)]
pub(in crate::config) struct Flags(BTreeMap<String, String>);

impl Flags {
    /// The text of one, if it was given; lists are joined by commas.
    pub(in crate::config) fn get(&self, setting: &Setting) -> Option<&str> {
        self.0.get(&setting.path()).map(String::as_str)
    }

    fn of(matches: &ArgMatches, settings: impl Iterator<Item = &'static Setting>) -> Self {
        let given = settings.filter_map(|setting| {
            let flag = setting.flag();
            let from_here = matches.value_source(&flag) == Some(ValueSource::CommandLine);
            let texts: Vec<String> = matches.get_many(&flag).filter(|_| from_here)?.cloned().collect();
            Some((setting.path(), texts.join(",")))
        });
        Self(given.collect())
    }
}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Everything that `run` takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunFlags(pub(in crate::config) Flags);

/// Where the file and the admin address are: what every command takes.
#[derive(Clone, Debug, Default)]
pub(crate) struct AdminFlags(pub(in crate::config) Flags);

impl RunFlags {
    /// As `--config FILE`.
    #[cfg(test)]
    pub(crate) fn of_file(path: &std::path::Path) -> Self {
        Self(Flags([("config".to_owned(), path.display().to_string())].into()))
    }

    /// The file that is named, here or by the variable.
    #[must_use]
    pub(crate) fn file<'a>(&'a self, env: &'a Environment) -> Option<&'a str> {
        self.0.get(keys::CONFIG.setting).or_else(|| env.get(&keys::CONFIG.setting.variable()))
    }

    fn settings() -> impl Iterator<Item = &'static Setting> {
        keys::ALL.iter().copied().filter(|setting| setting.is_flag())
    }
}

impl AdminFlags {
    fn settings() -> impl Iterator<Item = &'static Setting> {
        [keys::CONFIG.setting, keys::ADMIN.setting].into_iter()
    }
}

/// How clap takes a set of settings.
macro_rules! takes {
    ($flags:ident) => {
        impl Args for $flags {
            fn augment_args(command: clap::Command) -> clap::Command {
                Self::settings().fold(command, |command, setting| command.arg(argument(setting)))
            }

            fn augment_args_for_update(command: clap::Command) -> clap::Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $flags {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                Ok(Self(Flags::of(matches, Self::settings())))
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                *self = Self::from_arg_matches(matches)?;
                Ok(())
            }
        }
    };
}

takes!(RunFlags);
takes!(AdminFlags);

/// A setting as clap knows it. The value stays text; whether it can be read is found out here, so that a wrong flag is a
/// usage error.
fn argument(setting: &'static Setting) -> Arg {
    let check = if setting.form == Form::Unread { |_: &str| Ok(()) } else { setting.check };
    let read = move |text: &str| check(text).map(|()| text.to_owned());
    let default = setting.default();
    let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
    let help = format!("{} [env: {}]{default}", setting.help(), setting.variable());
    let argument = Arg::new(setting.flag())
        .long(setting.flag())
        .value_name(setting.placeholder)
        .value_parser(ValueParser::new(read))
        .help(help)
        .help_heading(setting.table.heading());
    match setting.form {
        Form::List => argument.action(ArgAction::Append),
        Form::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Form::Later => argument.hide(true).num_args(0..=1),
        Form::Text | Form::Unread | Form::Number => argument,
    }
}
