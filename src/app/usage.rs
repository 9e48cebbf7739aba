//! The message about a command line that cannot be understood. Floor 6.
//!
//! clap's own texts repeat what they did not expect, and a user may have put a secret where none belongs. So they are
//! made anew from what clap found, of which only leasehold's own words are taken.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _, Error};

use crate::config::Cli;

/// The text for stderr. `None`: it is help or the version, which clap prints. `arguments`: those behind the program's
/// name.
pub(super) fn text(error: &Error, arguments: &[OsString]) -> Option<String> {
    let said = match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => return None,
        ErrorKind::UnknownArgument => {
            let position = position(error, ContextKind::InvalidArg, arguments);
            match position.and_then(|position| detached(position, arguments)) {
                Some(flag) => format!("{flag}: {EQUALS}"),
                None => format!("{} is unknown{}", place(position), meant(error, ContextKind::SuggestedArg)),
            }
        }
        ErrorKind::InvalidSubcommand => {
            let place = place(position(error, ContextKind::InvalidSubcommand, arguments));
            format!("{place} is not a command{}", meant(error, ContextKind::SuggestedSubcommand))
        }
        ErrorKind::InvalidUtf8 => "an argument is not text in UTF-8".to_owned(),
        kind => format!("{}: {}", own_flag(error), reason(kind, error)),
    };
    Some(format!("error: {said}\n\nFor more information, try '--help'."))
}

/// Why a flag of ours cannot be taken as it is.
fn reason(kind: ErrorKind, error: &Error) -> String {
    match kind {
        // The reason of our own parser, which does not repeat the value.
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            std::error::Error::source(error).map_or_else(|| "needs a value".to_owned(), ToString::to_string)
        }
        ErrorKind::NoEquals => EQUALS.to_owned(),
        ErrorKind::TooManyValues => "has a value too many".to_owned(),
        ErrorKind::TooFewValues | ErrorKind::WrongNumberOfValues => "needs a value".to_owned(),
        ErrorKind::ArgumentConflict => "can be there only once".to_owned(),
        ErrorKind::MissingRequiredArgument => "is needed".to_owned(),
        _ => "cannot be understood".to_owned(),
    }
}

/// The flag or argument in question, as the command line defines it.
fn own_flag(error: &Error) -> &str {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag,
        Some(ContextValue::Strings(flags)) => flags.first().map_or("an argument", String::as_str),
        _ => "an argument",
    }
}

/// The flag in front of the argument at this position, if that is its value and should be behind an equals sign.
fn detached(position: usize, arguments: &[OsString]) -> Option<String> {
    let before = arguments.get(position.checked_sub(1)?)?.to_str()?;
    let long = before.strip_prefix("--")?;
    let command = Cli::command();
    let mut flags = command.get_subcommands().flat_map(Command::get_arguments);
    flags.find(|flag| flag.is_require_equals_set() && flag.get_long() == Some(long))?;
    Some(before.to_owned())
}

/// An argument by its number, since it is not shown.
fn place(position: Option<usize>) -> String {
    position.map_or_else(|| "an argument".to_owned(), |position| format!("argument {}", position + 1))
}

/// Which of the arguments is in question.
fn position(error: &Error, kind: ContextKind, arguments: &[OsString]) -> Option<usize> {
    let Some(ContextValue::String(found)) = error.get(kind) else { return None };
    let is = |argument: &OsString| {
        let text = argument.to_string_lossy();
        // `--flag` of `--flag=value`, `-x` of `-xyz`.
        text.strip_prefix(found.as_str()).is_some_and(|rest| {
            rest.is_empty() || (rest.starts_with('=') && found.starts_with("--")) || found.len() == 2
        })
    };
    arguments.iter().position(is)
}

/// The word of ours that clap thinks was meant.
fn meant(error: &Error, kind: ContextKind) -> String {
    let word = match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word),
        // The one that is most alike comes last.
        Some(ContextValue::Strings(words)) => words.last(),
        _ => None,
    };
    word.map_or_else(String::new, |word| format!("; did you mean {word}?"))
}

const EQUALS: &str = "its value is written behind an equals sign";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn said(arguments: &[&str]) -> String {
        let words = ["leasehold"].iter().chain(arguments);
        let error = Cli::try_parse_from(words).unwrap_err();
        let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
        text(&error, &arguments).unwrap()
    }

    #[test]
    fn what_was_written_is_not_repeated() {
        for arguments in [
            &["run", "--hunter2-hidden"][..],
            &["run", "--hunter2=hidden"],
            &["run", "hunter2"],
            &["run", "--lazy=hunter2"],
            &["run", "--http", "hunter2"],
            &["run", "-xhidden"],
            &["hunter2"],
            &["rotate", "a", "hunter2"],
            &["check", "--offline=hunter2"],
            &["run", "--upstream=hunter2", "--upstream=hunter2"],
        ] {
            let text = said(arguments);
            assert!(!text.contains("hunter2") && !text.contains("hidden"), "{text}");
        }
    }

    #[test]
    fn the_place_and_the_word_that_was_meant_are_named() {
        assert!(
            said(&["run", "--vault-adr=x"])
                .starts_with("error: argument 2 is unknown; did you mean --vault-addr?\n")
        );
        assert!(said(&["run", "hvs.x"]).starts_with("error: argument 2 is unknown\n"));
        assert!(said(&["runn"]).starts_with("error: argument 1 is not a command; did you mean run?\n"));
        assert!(said(&["rotat"]).starts_with("error: argument 1 is not a command; did you mean rotate?\n"));
        let detached = said(&["rotate", "app", "--drain", "5s"]);
        assert!(
            detached.starts_with("error: --drain: its value is written behind an equals sign\n"),
            "{detached}"
        );
        assert!(said(&["run", "--lazy=x"]).starts_with("error: --lazy[=<BOOL>]: neither true nor false\n"));
    }
}
