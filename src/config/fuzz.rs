//! A configuration file with any bytes in it. Floor 6.

use std::sync::LazyLock;

use clap::Parser as _;

use super::sources::Sources;
use super::{Cli, Command, Config, Environment, RunFlags};

/// A word that no key has and that stands for a secret.
const SECRET: &str = "pa55word";

/// It is read, or refused in one line that repeats no value.
pub(crate) fn file(data: &[u8]) {
    static FLAGS: LazyLock<Option<RunFlags>> =
        LazyLock::new(|| match Cli::try_parse_from(["leasehold", "run"]).ok()?.command {
            Command::Run(flags) => Some(*flags),
            _ => None,
        });
    let (Some(flags), Ok(text)) = (&*FLAGS, std::str::from_utf8(data)) else { return };
    let env = Environment::default();
    let read = Sources::of_text(text, &flags.0, &env).and_then(|sources| Config::of_sources(&sources, false));
    match read {
        Ok(config) => assert!(!config.routes.is_empty() && config.listen().next().is_some()),
        Err(error) => {
            let said = error.to_string();
            assert!(!said.contains('\n') && !said.contains(SECRET), "{said}");
        }
    }
}
