//! Vault itself, the login, and what the token may do. Floor 6.

use std::collections::BTreeMap;
use std::time::Duration;

use super::finding::{Finding, Outcome};
use super::{Checker, clocks, secret_file};
use crate::clock;
use crate::files::Shown;
use crate::policy::{self, Need, Rule};
use crate::vault::{Auth, Failure, Health, Kind, Login, SecretId, TokenFacts};

/// A login, and what is known of its token.
pub(super) struct VaultSession {
    pub(super) login: Login,
    pub(super) facts: Option<TokenFacts>,
    /// `None`: it could not be asked.
    capabilities: Option<BTreeMap<String, Vec<String>>>,
}

impl VaultSession {
    /// Whether the token may do this; true where it is not known, so that it is tried.
    pub(super) fn may(&self, path: &str, capability: &str) -> bool {
        self.capabilities
            .as_ref()
            .and_then(|all| all.get(path))
            .is_none_or(|has| has.iter().any(|word| word == capability || word == "root"))
    }
}

impl Checker {
    /// The bound on one request.
    pub(super) fn within(&self) -> Duration {
        self.config.vault.client_timeout
    }

    /// Reaches Vault and logs in. `None`: there is no token to go on with.
    pub(super) async fn log_in(&self, findings: &mut Vec<Finding>) -> Option<VaultSession> {
        let sent_at = clock::wall();
        let looked = self.vault.look(self.within()).await;
        let (health, date) = match looked {
            Ok(seen) => seen,
            Err(failure) => {
                findings.push(unreachable(&self.vault.addr(), &failure));
                self.look_at_secret_file(findings);
                return None;
            }
        };
        let state = state(&self.vault.addr(), health);
        let serves = matches!(health, Health::Active | Health::Standby | Health::PerformanceStandby);
        findings.push(state);
        if !serves {
            self.look_at_secret_file(findings);
            return None;
        }
        if let Some(date) = date {
            // Date is cut to whole seconds.
            findings.push(clocks("Vault", date, sent_at, Duration::from_secs(1)));
        }
        if self.stop.is_cancelled() {
            return None;
        }
        if let Auth::AppRole { secret_id: SecretId::Wrapped { .. }, .. } = &self.config.vault.auth {
            findings.push(Finding::warning(
                "login",
                "not tried: the wrapped secret_id can be used once, and run needs it",
                "run the check with a secret_id of its own (--vault-auth-secret-id-file)",
            ));
            return None;
        }
        let secret = self.config.vault.auth.secret_file().map(secret_file);
        if let Some(unreadable) = secret.filter(|finding| finding.outcome == Outcome::Error) {
            findings.push(unreadable);
            return None;
        }
        let login = match self.vault.log_in(self.within()).await {
            Ok(login) => login,
            Err(failure) => {
                findings.push(self.login_failed(&failure));
                return None;
            }
        };
        findings.push(Finding::ok("login", method(&self.config.vault.auth)));
        if login.num_uses > 0 {
            findings.push(Finding::warning(
                "login",
                format!("the token can be used {} times only", login.num_uses),
                "let the login give tokens without a limit (token_num_uses=0): renewals are uses too",
            ));
        }
        let counted = login.num_uses > 0;
        let facts = match counted {
            true => None,
            false => self.vault.look_up_token(&login.token, self.within()).await.ok(),
        };
        let capabilities = if counted { None } else { self.ask_capabilities(&login, findings).await };
        Some(VaultSession { login, facts, capabilities })
    }

    /// Where no login is tried, which would say it. That of a wrapped secret_id has been looked at already.
    fn look_at_secret_file(&self, findings: &mut Vec<Finding>) {
        let auth = &self.config.vault.auth;
        if !matches!(auth, Auth::AppRole { secret_id: SecretId::Wrapped { .. }, .. }) {
            findings.extend(auth.secret_file().map(secret_file));
        }
    }

    /// Asks for all paths at once, and reports what is missing.
    async fn ask_capabilities(
        &self,
        login: &Login,
        findings: &mut Vec<Finding>,
    ) -> Option<BTreeMap<String, Vec<String>>> {
        let rules = policy::rules(&self.config);
        let roles = self.config.routes.iter().filter_map(|route| route.vault_path.dynamic_role());
        let paths = rules.iter().map(|rule| rule.path.clone()).chain(roles).collect();
        let capabilities = match self.vault.capabilities(&login.token, paths, self.within()).await {
            Ok(capabilities) => capabilities,
            Err(failure) => {
                findings.push(Finding::ok(
                    "capability",
                    format!("cannot be asked for ({failure}), so what can be done is only tried"),
                ));
                return None;
            }
        };
        let has = |rule: &Rule| capabilities.get(&rule.path).is_some_and(|words| rule.is_among(words));
        let missing: Vec<_> = rules.iter().filter(|rule| !has(rule)).collect();
        let found: Vec<_> = missing.iter().filter_map(|rule| lacking(rule, login.handed)).collect();
        if found.is_empty() {
            findings.push(Finding::ok("capability", "the token may do what `leasehold policy` lists"));
        }
        findings.extend(found);
        Some(capabilities)
    }

    fn login_failed(&self, failure: &Failure) -> Finding {
        let vault = &self.config.vault;
        let mut remedy = if let Auth::Token { .. } = &vault.auth {
            "give a token that lives: BAO_TOKEN, VAULT_TOKEN or ~/.vault-token".to_owned()
        } else if let Auth::TokenFile { path } = &vault.auth {
            format!("let whoever writes {} put a token there that lives", Shown(path.path()))
        } else if let Auth::AppRole { mount, .. } = &vault.auth {
            format!(
                "compare role_id and the file of the secret_id with auth/{mount}/role/<role>; is the method mounted \
                 there, and has the secret_id uses and time left?"
            )
        } else if let Auth::Kubernetes { mount, role, .. } = &vault.auth {
            format!(
                "compare with auth/{mount}/role/{role}: bound service account and namespace, audience; and with \
                 auth/{mount}/config: can Vault reach the cluster?"
            )
        } else if let Auth::Jwt { mount, role, .. } = &vault.auth {
            format!(
                "compare with auth/{mount}/role/{role}: bound claims and audience, and the keys of auth/{mount}/config"
            )
        } else {
            "compare [vault.auth] with the method's mount and role in Vault".to_owned()
        };
        let mut detail = failure.to_string();
        if let Some(namespace) = &vault.namespace {
            detail.push_str(&format!(" (in the namespace {namespace})"));
            remedy = format!(
                "is there a namespace {namespace}, spelt like that, with this method in it? If so: {remedy}"
            );
        } else if matches!(failure.status, Some(403 | 404)) {
            remedy.push_str("; is it in a namespace (--vault-namespace)?");
        }
        Finding::error("login", detail, remedy)
    }

    /// Gives the token back, and with it all that was issued. True if it is gone.
    pub(super) async fn revoke_token(&self, session: &VaultSession, findings: &mut Vec<Finding>) -> bool {
        let login = &session.login;
        if login.handed || login.batch {
            return false;
        }
        match self.vault.revoke_token(&login.token, self.within()).await {
            Ok(()) => true,
            Err(failure) if failure.kind == Kind::TokenDead => true,
            Err(failure) => {
                findings.push(Finding::warning(
                    "revoke",
                    format!("the token of this check stays until its end: {failure}"),
                    "allow update on auth/token/revoke-self (Vault's default policy does)",
                ));
                false
            }
        }
    }
}

fn unreachable(addr: &str, failure: &Failure) -> Finding {
    let remedy = if failure.is_about_certificate() {
        "name the CA that signed Vault's certificate by --vault-ca-cert, and its name by --vault-tls-server-name if the URL has another"
    } else if failure.is_about_https() {
        "write https:// in --vault-addr"
    } else if failure.is_about_plain_http() {
        "have Vault listen with TLS, or write http:// in --vault-addr"
    } else {
        "is Vault up, is --vault-addr its address, and does the network let us through?"
    };
    Finding::error("vault", format!("{addr}: {failure}"), remedy)
}

fn state(addr: &str, health: Health) -> Finding {
    match health {
        Health::Active => Finding::ok("vault", format!("{addr} is unsealed and active")),
        Health::Standby | Health::PerformanceStandby => {
            Finding::ok("vault", format!("{addr} is an unsealed standby"))
        }
        Health::Sealed => Finding::error("vault", format!("{addr} is sealed"), "unseal it"),
        Health::Uninitialized => {
            Finding::error("vault", format!("{addr} is not initialized"), "initialize and unseal it")
        }
        Health::DisasterRecoverySecondary => Finding::error(
            "vault",
            format!("{addr} is a secondary for disaster recovery, which serves nothing"),
            "write the primary's address in --vault-addr",
        ),
    }
}

fn method(auth: &Auth) -> &'static str {
    if policy::is_handed(auth) { "the token that was handed over lives" } else { "Vault lets us in" }
}

fn lacking(rule: &Rule, handed: bool) -> Option<Finding> {
    let detail = format!("the token lacks {} on {}, which {}", rule.capability, rule.path, rule.purpose);
    let remedy = format!(
        "add: path \"{}\" {{ capabilities = [\"{}\"] }} (see `leasehold policy`)",
        rule.path, rule.capability
    );
    match rule.need {
        Need::Must => Some(Finding::error("capability", detail, remedy)),
        Need::Default => Some(Finding::warning("capability", detail, remedy)),
        // Whether there is such a namespace is seen from the credential's lease.
        Need::Namespace => None,
        Need::May => handed.then(|| Finding::warning("capability", detail, remedy)),
    }
}
