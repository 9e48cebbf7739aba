//! The words that leasehold knows: what an error may repeat of a file or of the environment, and which of them was meant.
//! Floor 6.
//!
//! Anything else that stands in a key's place may be a secret.

use std::collections::BTreeSet;

use super::key::Setting;
use super::keys;
pub(super) use crate::nearest::nearest;

/// Tables of the file.
const TABLES: [&str; 8] = ["vault", "vault.auth", "limits", "cancel", "defaults", "route", "listener", "tls"];

/// A table's name, if it is one of leasehold's.
pub(super) fn table(name: &str) -> Option<&'static str> {
    TABLES.into_iter().find(|known| *known == name)
}

/// The keys that a table takes; the empty name is that of the top.
pub(super) fn keys_of(table: &str) -> impl Iterator<Item = &'static str> {
    let is_of = |setting: &&&Setting| {
        setting.key().is_some_and(|_| setting.table.name() == table) && setting.is_built()
    };
    let tables = if table.is_empty() { &TABLES[..] } else { &[] };
    let keys: Vec<&'static str> = keys::ALL.iter().filter(is_of).map(|setting| setting.name).collect();
    keys.into_iter().chain(tables.iter().copied())
}

/// That a key is not known in a table that takes `keys`, and what may have been meant: another key, the same in another
/// table, or one of all.
pub(super) fn unknown_key(key: &str, table: &str, keys: impl Iterator<Item = &'static str>) -> String {
    let keys: Vec<_> = keys.collect();
    if let Some(meant) = nearest(key, keys.iter().copied()) {
        return unknown("key", Some(meant));
    }
    let has = |other: &&'static str| *other != table && keys_of(other).any(|known| known == key);
    let elsewhere: Vec<_> = [""].into_iter().chain(TABLES).filter(has).map(place).collect();
    if elsewhere.is_empty() {
        format!("unknown key; known are {}", keys.join(", "))
    } else {
        format!("unknown key here; its place is {}", elsewhere.join(" or "))
    }
}

/// Where the keys of a table are written.
fn place(table: &'static str) -> String {
    match table {
        "" => "above the first [table]".to_owned(),
        "route" => "[[route]]".to_owned(),
        table => format!("[{table}]"),
    }
}

/// The variables of leasehold's own.
pub(super) fn variables() -> BTreeSet<String> {
    keys::ALL.iter().filter(|setting| setting.is_flag()).map(|setting| setting.variable()).collect()
}

/// That a word is not known, and which one may have been meant.
pub(super) fn unknown(what: &str, meant: Option<&str>) -> String {
    match meant {
        Some(meant) => format!("unknown {what}; did you mean {meant}?"),
        None => format!("unknown {what}"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_in_their_tables() {
        let of = |table| keys_of(table).collect::<Vec<_>>();
        assert!(of("").contains(&"listen") && of("").contains(&"vault") && !of("").contains(&"addr"));
        assert!(of("vault").contains(&"addr") && !of("vault").contains(&"method"));
        assert!(of("vault.auth").contains(&"secret_id_file"));
        assert_eq!(of("tls"), ["cert_file", "key_file", "client_ca_file"]);
        assert!(!of("route").contains(&"vault"), "none is offered that is not built");
        assert_eq!((table("vault.auth"), table("hvs")), (Some("vault.auth"), None));
    }

    #[test]
    fn an_unknown_key_is_told_its_place_or_what_is_known() {
        let said = |key, table| unknown_key(key, table, keys_of(table));
        assert_eq!(said("drian", "route"), "unknown key; did you mean drain?");
        assert_eq!(said("listen", "route"), "unknown key here; its place is above the first [table]");
        assert_eq!(said("vault_path", ""), "unknown key here; its place is [[route]]");
        assert_eq!(said("role_id", "vault"), "unknown key here; its place is [vault.auth]");
        assert_eq!(said("hvs.CAES", "tls"), "unknown key; known are cert_file, key_file, client_ca_file");
    }

    #[test]
    fn the_nearest_word_is_named_only_where_it_is_near() {
        let known = variables();
        let meant = |word| nearest(word, known.iter().map(String::as_str));
        assert_eq!(meant("LEASEHOLD_REQUIRE_AUHT"), Some("LEASEHOLD_REQUIRE_AUTH"));
        assert_eq!(meant("LEASEHOLD_VALT_ADDR"), Some("LEASEHOLD_VAULT_ADDR"));
        assert_eq!(meant("LEASEHOLD_SOMETHING_ELSE"), None);
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
