//! The manual pages and the completions of shells, made from the same definition as the help. Floor 6.

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Error;
use crate::config::Cli;

/// `leasehold completion`
#[must_use]
pub(crate) fn completion(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// `leasehold man`: the page of a command, or the one of leasehold that lists them.
///
/// # Errors
/// If there is no such command.
pub(crate) fn man(command: Option<&str>) -> Result<String, Error> {
    let mut all = Cli::command();
    all.build();
    let page = match command {
        None => all,
        Some(name) => match all.find_subcommand(name) {
            Some(found) => found.clone().name(format!("{NAME}-{name}")),
            None => return Err(Error::Negative("no such command; `leasehold --help` lists them".to_owned())),
        },
    };
    let mut out = Vec::new();
    Man::new(page).render(&mut out)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

const NAME: &str = "leasehold";
