//! The words that leasehold knows as keys and variables: what an error may repeat of a file or of the environment, and
//! which of them was meant. Floor 6.
//!
//! Anything else that stands in a key's place may be a secret.

use std::collections::BTreeSet;

use super::flags::command;
use super::merge::{env_name, flag_name};

/// Tables of the file.
const TABLES: [&str; 7] = ["vault", "vault.auth", "limits", "cancel", "defaults", "route", "tls"];

/// Keys of the file that are no flags.
const FILE_ONLY: [&str; 10] = [
    "name",
    "user",
    "database",
    "auth",
    "allow_uids",
    "allow_gids",
    "client_san",
    "hardening",
    "config",
    "reuse",
];

/// A table's name, if it is one of leasehold's.
pub(super) fn table(name: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|known| *known == name)
}

/// Whether this is a key, or a table, of leasehold's: `addr`, `vault.addr`.
pub(super) fn is_key(key: &str) -> bool {
    let longs = longs();
    let is_word = |word: &str| {
        FILE_ONLY.contains(&word)
            || TABLES.iter().any(|table| table.split('.').any(|part| part == word))
            || longs.contains(&flag_name(word))
            || TABLES.iter().any(|table| longs.contains(&flag_name(&format!("{table}.{word}"))))
    };
    key.split('.').all(|word| is_word(word.trim().trim_matches(['"', '\''])))
}

/// The variables of leasehold's own.
pub(super) fn variables() -> BTreeSet<String> {
    longs().iter().map(|long| env_name(&long.trim_start_matches('-').replace('-', "_"))).collect()
}

/// The known word that is most like this one, if any is like it.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = (word.chars().count() / 4).clamp(1, 3);
    let like = known.into_iter().map(|known| (strsim::damerau_levenshtein(word, known), known));
    like.filter(|(distance, _)| *distance <= most).min().map(|(_, known)| known)
}

/// Whether Kubernetes put this variable there, for a Service whose name begins with leasehold.
///
/// Source: <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>
pub(super) fn is_of_kubernetes(variable: &str) -> bool {
    let port = |rest: &str| {
        let mut words = rest.split('_');
        let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
        number && matches!(words.next(), Some("TCP" | "UDP" | "SCTP"))
    };
    variable.ends_with("_SERVICE_HOST")
        || variable.ends_with("_PORT")
        || variable.contains("_SERVICE_PORT")
        || variable.split_once("_PORT_").is_some_and(|(_, rest)| port(rest))
}

/// `--listen` and the like: all that `run` takes.
fn longs() -> BTreeSet<String> {
    let command = command();
    let run = command.get_subcommands().find(|command| command.get_name() == "run");
    let arguments = run.into_iter().flat_map(clap::Command::get_arguments);
    arguments.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_in_their_tables_and_secrets_are_not() {
        for key in [
            "listen",
            "addr",
            "vault.addr",
            "secret_id_file",
            "user",
            "probe_sql",
            "auth",
            "route.vault_path",
        ] {
            assert!(is_key(key), "{key}");
        }
        for key in ["hvs.CAESIJ", "password", "0b1c2d3e-1111", "addr.hvs", ""] {
            assert!(!is_key(key), "{key}");
        }
        assert_eq!((table("vault.auth"), table("hvs")), (Some("vault.auth"), None));
    }

    #[test]
    fn the_nearest_word_is_named_only_where_it_is_near() {
        let known = variables();
        let meant = |word| nearest(word, known.iter().map(String::as_str));
        assert_eq!(meant("LEASEHOLD_REQUIRE_AUHT"), Some("LEASEHOLD_REQUIRE_AUTH"));
        assert_eq!(meant("LEASEHOLD_VALT_ADDR"), Some("LEASEHOLD_VAULT_ADDR"));
        assert_eq!(meant("LEASEHOLD_SOMETHING_ELSE"), None);
        assert_eq!(nearest("hvs.CAESIJ", ["addr", "auth"]), None);
    }

    #[test]
    fn variables_of_a_service_in_kubernetes_are_recognised() {
        for variable in [
            "LEASEHOLD_SERVICE_HOST",
            "LEASEHOLD_SERVICE_PORT",
            "LEASEHOLD_SERVICE_PORT_POSTGRES",
            "LEASEHOLD_PORT",
            "LEASEHOLD_PORT_6432_TCP",
            "LEASEHOLD_PORT_6432_TCP_ADDR",
            "LEASEHOLD_SHARED_SERVICE_HOST",
        ] {
            assert!(is_of_kubernetes(variable), "{variable}");
        }
        for variable in ["LEASEHOLD_REQUIRE_AUHT", "LEASEHOLD_LISTEN_PUBLC", "LEASEHOLD_PORT_LIMIT"] {
            assert!(!is_of_kubernetes(variable), "{variable}");
        }
    }
}
