//! The least Vault policy for a configuration, as HCL. Pure. Floor 6.
//!
//! `leasehold policy` prints it; `leasehold check` asks Vault for the capabilities that it names.
//!
//! Source: <https://developer.hashicorp.com/vault/docs/concepts/policies>

use std::collections::BTreeSet;

use crate::config::Config;
use crate::vault::{Auth, RoleKind, VaultPath};

/// One path, and what may be done there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Without `v1/`.
    pub(crate) path: String,
    /// `read` or `update`.
    pub(crate) capability: &'static str,
    /// What it is for, and what happens without it.
    pub(crate) purpose: &'static str,
    /// How much it is needed.
    pub(crate) need: Need,
}

impl Rule {
    /// Whether a login lacks something without it. `handed`: the token is handed over.
    #[must_use]
    pub(crate) fn matters(&self, handed: bool) -> bool {
        match self.need {
            Need::Must | Need::Default => true,
            Need::May => handed,
            Need::Namespace => false,
        }
    }

    /// Whether these capabilities have it.
    #[must_use]
    pub(crate) fn is_among(&self, words: &[String]) -> bool {
        words.iter().any(|word| word == self.capability || word == "root")
    }
}

/// How much a rule is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Without it there is no credential.
    Must,
    /// leasehold works without it, though not as well; Vault's and OpenBao's `default` policy has it.
    Default,
    /// It improves something, and is no part of the least policy.
    May,
    /// It matters only if the front of the path is a namespace, which the configuration does not show; even then leasehold
    /// works without it.
    Namespace,
}

/// Whether the token is handed over, so that leasehold never revokes it.
#[must_use]
pub(crate) fn is_handed(auth: &Auth) -> bool {
    matches!(auth, Auth::Token { .. } | Auth::TokenFile { .. })
}

/// Every rule that matters for this configuration, each path once.
#[must_use]
pub(crate) fn rules(config: &Config) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for route in &config.routes {
        let path = route.vault_path.to_string();
        if rules.iter().all(|rule| rule.path != path) {
            rules.push(rule(&path, "read", Need::Must, "reads the credential"));
        }
    }
    let leases = config.routes.iter().any(|route| route.vault_path.kind() == RoleKind::Dynamic);
    let handed = is_handed(&config.vault.auth);
    if leases {
        rules.push(rule(
            "sys/leases/renew",
            "update",
            Need::Default,
            "renews leases; without it a credential is replaced at two thirds of its life",
        ));
    }
    rules.extend(of_token(handed));
    if leases && !handed {
        rules.push(rule(
            "sys/leases/lookup",
            "update",
            Need::Default,
            "tells whether a lease has gone with its token; without it one that stays is not noticed",
        ));
    }
    for namespace in possible_namespaces(config) {
        for (operation, purpose) in IN_NAMESPACE {
            rules.push(rule(&format!("{namespace}/{operation}"), "update", Need::Namespace, purpose));
        }
    }
    if leases {
        rules.push(rule(
            "sys/leases/revoke",
            "update",
            Need::May,
            if handed { REVOKES_HANDED } else { REVOKES },
        ));
    }
    rules
}

fn rule(path: &str, capability: &'static str, need: Need, purpose: &'static str) -> Rule {
    Rule { path: path.to_owned(), capability, purpose, need }
}

/// What leasehold does with its own token.
fn of_token(handed: bool) -> Vec<Rule> {
    let mut rules = vec![
        rule(
            "auth/token/lookup-self",
            "read",
            Need::Default,
            "tells when the token ends, and a dead token from a policy that says no",
        ),
        rule(
            "auth/token/renew-self",
            "update",
            Need::Default,
            "renews the token; without it leases end with the token's first TTL",
        ),
    ];
    if !handed {
        rules.push(rule(
            "auth/token/revoke-self",
            "update",
            Need::Default,
            "gives a token back, and with it its lease; without it both are left to lapse",
        ));
    }
    rules
}

/// What the paths of the dynamic roles may have as a namespace in front.
fn possible_namespaces(config: &Config) -> BTreeSet<&str> {
    let paths = config.routes.iter().map(|route| &route.vault_path);
    paths.filter(|path| path.kind() == RoleKind::Dynamic).flat_map(VaultPath::possible_namespaces).collect()
}

/// The policy, ready for `vault policy write`.
#[must_use]
pub(crate) fn hcl(config: &Config) -> String {
    let mut text =
        "# The least policy for leasehold with this configuration; made by `leasehold policy`.\n".to_owned();
    if let Some(namespace) = &config.vault.namespace {
        text.push_str(&format!("# Write it in the namespace {namespace}.\n"));
    }
    let rules = rules(config);
    let mut section = |title: &str, wanted: &[Need]| {
        let rules: Vec<_> = rules.iter().filter(|rule| wanted.contains(&rule.need)).collect();
        if rules.is_empty() {
            return;
        }
        text.push_str(&format!("\n{title}"));
        for rule in rules {
            let mark = if rule.need == Need::May { "# " } else { "" };
            text.push_str(&format!("# {}\n", capital(rule.purpose)));
            text.push_str(&format!(
                "{mark}path \"{}\" {{ capabilities = [\"{}\"] }}\n",
                rule.path, rule.capability
            ));
        }
    };
    section("", &[Need::Must]);
    section(
        "# Vault's default policy gives these; they stand here for tokens made without it.\n",
        &[Need::Default],
    );
    section(
        "# A lease in a namespace below is asked for there. Where the path has no namespace but a longer mount, these do nothing.\n",
        &[Need::Namespace],
    );
    section("# Not needed; take the mark away for what it buys.\n", &[Need::May]);
    text.push_str(
        "\n# Not needed to run: `leasehold check` asks for a token's capabilities. The default policy gives it.\n\
         # path \"sys/capabilities-self\" { capabilities = [\"update\"] }\n",
    );
    text
}

const REVOKES: &str = "gives a lease back by itself, and tells whether its role could be dropped; without it the token that \
                       asked for it is revoked, which takes the lease with it";
const REVOKES_HANDED: &str = "gives a lease back as soon as its last session has gone; without it the lease lapses, as a token \
                              that was handed over is not revoked";

/// What is asked for a lease in a namespace below that of the token.
const IN_NAMESPACE: [(&str, &str); 3] = [
    ("sys/leases/renew", "renews leases of that namespace; the default policy does not reach there"),
    ("sys/leases/revoke", "gives such a lease back; the revocation of its token would leave it"),
    ("sys/leases/lookup", "tells whether such a lease is gone"),
];

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, RunFlags};

    fn policy(file: &str) -> String {
        let path = std::env::temp_dir().join(format!(
            "leasehold-policy-{}-{:?}.toml",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&path, file).unwrap();
        let flags = RunFlags::of_file(&path);
        let config = Config::load_without_token(&flags, &Environment::default()).unwrap();
        std::fs::remove_file(path).unwrap();
        hcl(&config)
    }

    fn route(path: &str, user: &str) -> String {
        format!(
            "[[route]]\nname = '{user}'\nuser = '{user}'\nupstream = 'postgresql://db/'\nvault_path = '{path}'\n"
        )
    }

    const APPROLE: &str = "[vault.auth]\nmethod = 'approle'\nrole_id = 'r'\n";

    /// The lines that are in force.
    fn rules_of(text: &str) -> Vec<&str> {
        text.lines().filter(|line| line.starts_with("path")).collect()
    }

    #[test]
    fn each_path_stands_there_once_and_revoke_as_a_comment() {
        let routes = [route("db/creds/app", "a"), route("db/creds/app", "b"), route("x/y/creds/ro", "c")];
        let text = policy(&(APPROLE.to_owned() + &routes.concat()));
        let expected = [
            "path \"db/creds/app\" { capabilities = [\"read\"] }",
            "path \"x/y/creds/ro\" { capabilities = [\"read\"] }",
            "path \"sys/leases/renew\" { capabilities = [\"update\"] }",
            "path \"auth/token/lookup-self\" { capabilities = [\"read\"] }",
            "path \"auth/token/renew-self\" { capabilities = [\"update\"] }",
            "path \"auth/token/revoke-self\" { capabilities = [\"update\"] }",
            "path \"sys/leases/lookup\" { capabilities = [\"update\"] }",
            "path \"x/sys/leases/renew\" { capabilities = [\"update\"] }",
            "path \"x/sys/leases/revoke\" { capabilities = [\"update\"] }",
            "path \"x/sys/leases/lookup\" { capabilities = [\"update\"] }",
        ];
        assert_eq!(rules_of(&text), expected);
        assert!(text.contains("\n# path \"sys/leases/revoke\" { capabilities = [\"update\"] }\n"), "{text}");
    }

    #[test]
    fn a_static_role_has_no_lease_to_renew() {
        let text = policy(&(APPROLE.to_owned() + &route("db/static-creds/app", "a")));
        assert!(!text.contains("sys/leases"), "{text}");
    }

    #[test]
    fn a_token_that_is_handed_over_is_not_revoked_and_none_is_needed_to_print() {
        let text = policy(&("[vault]\nnamespace = 'team'\n".to_owned() + &route("db/creds/app", "a")));
        assert!(!text.contains("revoke-self"), "{text}");
        assert!(text.contains("in the namespace team"), "{text}");
    }
}
