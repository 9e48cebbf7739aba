//! What the configuration promises: what its tests share. Floor 6.

mod routes;
mod sources;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;

use super::key::Table;
use super::sources::Sources;
use super::*;
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::upstream::uri::Uri;
use crate::session::{Access, Match};
use crate::vault::{Address, VaultPath};

const ROUTE: [&str; 4] = ["--upstream", "postgresql://db:5432/", "--vault-path", "database/creds/app-role"];

fn env(variables: &[(&str, &str)]) -> Environment {
    [("VAULT_TOKEN", "hvs.ambient")]
        .iter()
        .chain(variables)
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(path: &str) -> FileSetting {
    FileSetting::new(path, "its place does not count")
}

fn flags(args: &[&str]) -> RunFlags {
    let cli = Cli::try_parse_from(["leasehold", "run"].iter().chain(args)).unwrap();
    match cli.command {
        Command::Run(flags) => *flags,
        other => panic!("{other:?}"),
    }
}

/// Loads with a file of this text.
fn load(text: &str, args: &[&str], variables: &[(&str, &str)]) -> Result<Config, Error> {
    let path = Temporary::new(text);
    let file = path.0.display().to_string();
    let args: Vec<_> =
        args.iter().copied().chain(["--config", &file].into_iter().filter(|_| !text.is_empty())).collect();
    Config::load(&flags(&args), &env(variables))
}

fn load_route(args: &[&str], variables: &[(&str, &str)]) -> Result<Config, Error> {
    let args: Vec<_> = ROUTE.iter().chain(args).copied().collect();
    load("", &args, variables)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// The error without the directory of the file.
fn complaint(result: Result<Config, Error>) -> String {
    let text = result.unwrap_err().to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    match text.split_once(".toml") {
        Some((path, rest)) if path.starts_with('/') => format!("FILE{rest}"),
        _ => text,
    }
}

struct Temporary(PathBuf);

impl Temporary {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path =
            std::env::temp_dir().join(format!("leasehold-config-{}-{number}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
