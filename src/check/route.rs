//! One route: a real issue, its renewal, its session, and giving it back. Floor 6.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Checker;
use super::finding::Finding;
use super::server::{Credential, HostCheck, Standing};
use super::ttl::{self, Lease};
use super::vault::VaultSession;
use crate::clock;
use crate::config::RouteConfig;
use crate::postgres::upstream::Upstream;
use crate::time::Time;
use crate::vault::{Failure, Grant, Kind, RoleKind};

/// What a route came to.
#[derive(Default)]
pub(super) struct Examined {
    pub(super) findings: Vec<Finding>,
    /// A lease that could not be given back by itself.
    pub(super) held: Option<Held>,
}

/// A credential that goes with its token, if it does.
pub(super) struct Held {
    route: String,
    host: HostCheck,
    ttl: Duration,
    /// What Vault said to the lease's own revocation; `None`: it was not allowed, so not tried.
    failure: Option<String>,
}

impl Checker {
    /// Once it has issued, it always comes to the revocation: only what lies between heeds the wish to stop.
    pub(super) async fn examine(
        &self,
        index: usize,
        session: &VaultSession,
        upstream: Arc<Upstream>,
    ) -> Examined {
        let mut examined = Examined::default();
        let Some(route) = self.config.routes.get(index) else { return examined };
        if self.stop.is_cancelled() {
            return examined;
        }
        if !session.may(&route.vault_path.to_string(), "read") {
            examined.findings = self.reach(index, upstream).await;
            return examined;
        }
        match route.vault_path.kind() {
            RoleKind::Static => {
                self.examine_static(route, session, upstream, &mut examined.findings).await;
            }
            RoleKind::Dynamic => self.examine_dynamic(route, session, upstream, &mut examined).await,
        }
        for finding in &mut examined.findings {
            finding.route = Some(route.name.clone());
        }
        examined
    }

    /// What can be seen of a route's servers without a credential.
    pub(super) async fn reach(&self, index: usize, upstream: Arc<Upstream>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(route) = self.config.routes.get(index) else { return findings };
        self.unless_stopped(HostCheck::without_credential(route, upstream).reach(&mut findings)).await;
        findings.into_iter().map(|finding| finding.of(&route.name)).collect()
    }

    async fn examine_static(
        &self,
        route: &RouteConfig,
        session: &VaultSession,
        upstream: Arc<Upstream>,
        findings: &mut Vec<Finding>,
    ) {
        let token = &session.login.token;
        let credential = match self.vault.read_static(token, &route.vault_path, self.within()).await {
            Ok(credential) => credential,
            Err(failure) => {
                findings.push(not_issued(route, &failure));
                let host = HostCheck::without_credential(route, upstream);
                self.unless_stopped(host.reach(findings)).await;
                return;
            }
        };
        findings.push(Finding::ok("issue", format!("the static role is {}", credential.username)));
        let credential = Credential { username: credential.username, password: credential.password };
        let host = HostCheck::new(route, upstream, credential, true);
        self.unless_stopped(host.examine(findings)).await;
    }

    async fn examine_dynamic(
        &self,
        route: &RouteConfig,
        session: &VaultSession,
        upstream: Arc<Upstream>,
        examined: &mut Examined,
    ) {
        let token = &session.login.token;
        let sent_at = clock::now();
        self.out.asked(&route.name);
        let grant = match self.vault.issue(token, &route.vault_path, self.within()).await {
            Ok(grant) => grant,
            Err(failure) => {
                if !failure.outcome_unknown {
                    self.out.gone(&route.name);
                }
                if let Some(left) = &failure.left {
                    // A failure to revoke it is not the fault that is reported.
                    drop(self.vault.revoke(token, &left.lease, self.within()).await);
                }
                examined.findings.push(not_issued(route, &failure));
                let host = HostCheck::without_credential(route, upstream);
                self.unless_stopped(host.reach(&mut examined.findings)).await;
                return;
            }
        };
        self.out.until(&route.name, &grant.username, sent_at + grant.ttl);
        let span = humantime::format_duration(grant.ttl);
        examined.findings.push(Finding::ok("issue", format!("{} for {span}", grant.username)));
        let credential = Credential { username: grant.username.clone(), password: grant.password.clone() };
        let mut host = HostCheck::new(route, upstream, credential, false);
        let findings = &mut examined.findings;
        // Before any renewal, as `run` does it: a renewal sets VALID UNTIL, and would mend what is to be found.
        self.unless_stopped(host.examine(findings)).await;
        if !self.stop.is_cancelled() {
            let max = self.renew(route, session, (&grant, sent_at), findings).await;
            let lease = Lease { ttl: grant.ttl, max, renewable: grant.renewable };
            findings.extend(ttl::leased(route, lease, session.facts.as_ref(), session.login.handed));
        }
        host.left = self.unless_stopped(host.dependents()).await.unwrap_or_default();
        self.give_back(route, session, grant, host, examined).await;
    }

    /// Renews it really, as `run` will; how long it can live in all, where that can be known without asking for more than
    /// is wanted.
    async fn renew(
        &self,
        route: &RouteConfig,
        session: &VaultSession,
        (grant, issued_at): (&Grant, Time),
        findings: &mut Vec<Finding>,
    ) -> Option<Duration> {
        if !grant.renewable || !session.may(&grant.lease.path("sys/leases/renew"), "update") {
            return None;
        }
        let token = &session.login.token;
        let of_role = route.vault_path.dynamic_role().filter(|path| session.may(path, "read"));
        let of_role = match of_role {
            Some(path) => self.vault.role_max_ttl(token, &path, self.within()).await.ok().flatten(),
            None => None,
        };
        // Vault counts in whole seconds: only after one does a lease that cannot be extended get less than before.
        self.unless_stopped(sleep(A_SECOND.saturating_sub(clock::now().since(issued_at)))).await?;
        let sent_at = clock::now();
        let renewed = self.vault.renew(token, &grant.lease, &grant.username, self.within()).await;
        match renewed {
            Ok(renewed) => {
                self.out.until(&route.name, &grant.username, sent_at + renewed.ttl);
                findings.push(Finding::ok("renew", "the lease can be renewed"));
                let shortened = renewed.ttl < grant.ttl;
                let in_all = (sent_at.since(issued_at) + renewed.ttl).max(grant.ttl);
                return if shortened { Some(in_all) } else { of_role };
            }
            Err(failure) if failure.kind == Kind::Forbidden => {
                findings.push(Finding::warning(
                    "renew",
                    failure.to_string(),
                    format!(
                        "allow update on {}; until then credentials are replaced instead",
                        grant.lease.path("sys/leases/renew")
                    ),
                ));
            }
            Err(failure) => findings.push(Finding::error(
                "renew",
                failure.to_string(),
                "mend renew_statements of the role; Vault's user must be able to ALTER ROLE (CREATEROLE, and ADMIN on groups)",
            )),
        }
        of_role
    }

    /// Revokes the lease by itself where that may be, and sees whether its role is gone.
    async fn give_back(
        &self,
        route: &RouteConfig,
        session: &VaultSession,
        grant: Grant,
        host: HostCheck,
        examined: &mut Examined,
    ) {
        let name = route.name.clone();
        let mut held = Held { route: name, host, ttl: grant.ttl, failure: None };
        if session.may(&grant.lease.path("sys/leases/revoke"), "update") {
            match self.vault.revoke(&session.login.token, &grant.lease, self.within()).await {
                Ok(()) => {
                    self.out.gone(&held.route);
                    return examined.findings.push(self.verify_revoked(held, true).await);
                }
                Err(failure) if failure.kind == Kind::Forbidden => {}
                Err(failure) => held.failure = Some(failure.to_string()),
            }
        }
        if grant.lease.is_elsewhere() && held.failure.is_none() {
            let finding = Finding::warning(
                "revoke",
                format!(
                    "{} stays until its lease ends, in {}: it is in another namespace than the token that asked for it",
                    grant.username,
                    humantime::format_duration(grant.ttl)
                ),
                format!("allow update on {} (see `leasehold policy`)", grant.lease.path("sys/leases/revoke")),
            );
            return examined.findings.push(finding.of(&held.route));
        }
        examined.held = Some(held);
    }

    /// What has become of a credential. `revoked`: Vault has taken it back, or its token.
    pub(super) async fn verify_revoked(&self, held: Held, revoked: bool) -> Finding {
        let Held { route, host, ttl, failure } = held;
        let user = &host.credential.username;
        let finding = match failure {
            None if !revoked => Finding::warning(
                "revoke",
                format!(
                    "{user} stays until its lease ends, in {}: nothing here may revoke it",
                    humantime::format_duration(ttl)
                ),
                "allow update on sys/leases/revoke, or let leasehold log in by another method than a token",
            ),
            None => match timeout(GONE_WITHIN, host.until_out()).await {
                Ok(Standing::Out) => Finding::ok("revoke", format!("{user} is gone")),
                Ok(Standing::Unknown) => Finding::ok("revoke", format!("Vault has revoked {user}")),
                Ok(Standing::In) | Err(_) => stays(
                    &host,
                    "its lease is revoked, and it still logs in: revocation_statements do not drop it",
                ),
            },
            Some(said) => match host.standing().await {
                Standing::Out => Finding::warning("revoke", said, MAY_DROP),
                Standing::In | Standing::Unknown => stays(&host, &said),
            },
        };
        finding.of(&route)
    }

    async fn unless_stopped<T>(&self, part: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = part => Some(done),
            () = self.stop.cancelled() => None,
        }
    }
}

impl HostCheck {
    /// Waits until no host lets the credential in any more, or none can be asked.
    async fn until_out(&self) -> Standing {
        loop {
            match self.standing().await {
                Standing::In => sleep(AGAIN_AFTER).await,
                other => return other,
            }
        }
    }
}

fn stays(host: &HostCheck, why: &str) -> Finding {
    let user = &host.credential.username;
    let mut detail = format!("{why}; the role {user} stays");
    if !host.left.is_empty() {
        detail.push_str(&format!(": {}", host.left.join(", ")));
    }
    let now = format!(
        "{MAY_DROP}. Now, as an administrator: REASSIGN OWNED BY \"{user}\" TO …; DROP OWNED BY \"{user}\"; \
         DROP ROLE \"{user}\""
    );
    Finding::error("revoke", detail, now)
}

const MAY_DROP: &str = "grant rights to a group that the role is IN and does SET role to, so that it owns nothing and is granted \
                        nothing; or let revocation_statements say REASSIGN OWNED and DROP OWNED before DROP ROLE";

fn not_issued(route: &RouteConfig, failure: &Failure) -> Finding {
    let path = &route.vault_path;
    let said = failure.to_string();
    let lower = said.to_lowercase();
    let has = |pieces: &[&str]| pieces.iter().any(|piece| lower.contains(piece));
    let remedy = if failure.kind == Kind::Forbidden {
        format!(
            "allow read on {path} (see `leasehold policy`); or the mount is not there: a path that leads nowhere is forbidden too"
        )
    } else if has(&["unknown role", "unknown static role"]) {
        format!(
            "make the role that {path} names, or mend the last word of vault_path; `list` its mount's roles to see them"
        )
    } else if has(&["no handler", "unsupported path"]) {
        format!("mount a database engine there, or mend the first words of {path}")
    } else if has(&["not an allowed role"]) {
        "add the role to allowed_roles of the connection in Vault".to_owned()
    } else if has(&[
        "failed to connect",
        "unable to start transaction",
        "connection refused",
        "failed sasl",
        "verifying connection",
    ]) {
        "Vault cannot reach the database or log in to it: mend connection_url, username or password of the connection, and see the server's pg_hba.conf for Vault".to_owned()
    } else if has(&["sqlstate", "failed to execute query", "syntax error"]) {
        "mend creation_statements of the role: run them by hand as Vault's user; does it have CREATEROLE, and ADMIN on the groups?".to_owned()
    } else if failure.kind == Kind::Refused {
        format!("read the role of {path} in Vault: does it make a username and a password?")
    } else {
        "see Vault's own log for this request".to_owned()
    };
    Finding::error("issue", said, remedy)
}

/// And a little more.
const A_SECOND: Duration = Duration::from_millis(1_100);

/// A token's revocation goes through Vault's queue.
const GONE_WITHIN: Duration = Duration::from_secs(10);

const AGAIN_AFTER: Duration = Duration::from_millis(250);
