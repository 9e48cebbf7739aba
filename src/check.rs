//! `leasehold check`, the doctor: it does once what `run` will do, says what went wrong and what mends it, and gives
//! everything back. Floor 6.
//!
//! | file | what is looked at |
//! |---|---|
//! | `vault` | Vault's state and clock, the login, the token's capabilities |
//! | `route` | a real issue, its renewal, its revocation |
//! | `server` | a real login at each host, and what the session can do |
//! | `stopping` | the signals that end it early, and what is then still out |
//! | `written` | what the configuration alone shows of the way to servers and from clients |
//! | `ports` | whether what `run` listens on is free |
//! | `ttl` | spans that cannot work together |
//! | `finding` | one result of the check, as a row of the table or as JSON |

mod finding;
mod ports;
mod route;
mod server;
mod stopping;
mod ttl;
mod vault;
mod written;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::acceptor::{self, InForce};
use crate::clock;
use crate::config::Config;
use crate::credentials::state::StateFile;
use crate::error::Chain;
use crate::files::{FileSetting, NoDirectory, Shown};
use crate::postgres::upstream::{self, Upstream};
use crate::upstreams;
use crate::vault::{self as vault_client, Auth, SecretId, Vault};

pub(crate) use finding::{Finding, Outcome, json, table};
pub(crate) use ports::ports;

use route::Examined;
use stopping::{Interrupts, Out};

/// What keeps `check` from looking: the configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("vault")]
    Vault(#[from] vault_client::Error),
    #[error(transparent)]
    Upstream(#[from] upstreams::Error),
    #[error(transparent)]
    Tls(#[from] acceptor::Error),
}

/// What mends that a file cannot be read, or only by root's capabilities.
pub(crate) const READABLE: &str = "let the file belong to the user that leasehold runs as, root too: it gives up its right to \
    read the files of others, which --hardening off keeps";

/// Looks at everything; with `offline` at the configuration and its files alone. `ports`: what was found of its addresses.
///
/// A first SIGINT, SIGTERM, SIGQUIT or SIGHUP stops looking and gives everything back; a second one ends it at once.
///
/// # Errors
/// What keeps `run` from starting keeps this from looking.
pub(crate) async fn check(config: Config, offline: bool, ports: Vec<Finding>) -> Result<Vec<Finding>, Error> {
    let vault = Vault::new(config.vault.clone())?;
    let upstreams = upstreams::build(&config, &upstream::Shared::default())?;
    let tls = config.tls.as_ref().map(InForce::read).transpose()?;
    let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
    let mut findings = vec![Finding::ok("config", format!("routes: {}", names.join(", ")))];
    for warning in &config.warnings {
        findings.push(Finding::warning("config", &warning.text, warning.remedy));
    }
    findings.extend(tls.iter().flat_map(client_tls));
    let auth = &config.vault.auth;
    // A login looks at the file first; where none is tried, it is looked at here.
    let untried = offline || matches!(auth, Auth::AppRole { secret_id: SecretId::Wrapped { .. }, .. });
    findings.extend(auth.secret_file().filter(|_| untried).map(secret_file));
    findings.extend(config.state_file.as_ref().map(state_file));
    findings.extend(config.audit_file.as_ref().and_then(no_directory));
    findings.extend(config.routes.iter().flat_map(ttl::written));
    findings.extend(written::open_to_others(&config));
    if offline {
        return Ok(findings);
    }
    findings.extend(ports);
    let mut interrupts = Interrupts::install();
    let checker = Arc::new(Checker { config, vault, stop: CancellationToken::new(), out: Out::default() });
    let mut host = pin!(Arc::clone(&checker).look(upstreams));
    let seen = tokio::select! {
        seen = &mut host => seen,
        () = interrupts.next() => {
            checker.stop.cancel();
            let interrupted = Finding::error("interrupted", "not everything was looked at", "run it again");
            let seen = tokio::select! {
                seen = &mut host => seen,
                () = interrupts.next() => checker.out.left(clock::now()),
            };
            seen.into_iter().chain([interrupted]).collect()
        }
    };
    findings.extend(seen);
    Ok(findings)
}

/// Whether clients can be shown the certificate; that its key is its own is known by now.
fn client_tls(read: &InForce) -> Vec<Finding> {
    let remedy = "have it renewed, or name another by --tls-cert-file; clients that verify it do not get in";
    let warnings =
        read.warnings().iter().map(|warning| Finding::error("client_tls", warning.to_string(), remedy));
    let warnings: Vec<_> = warnings.collect();
    if warnings.is_empty() {
        vec![Finding::ok(
            "client_tls",
            format!("clients are offered TLS, with a certificate {}", read.describe()),
        )]
    } else {
        warnings
    }
}

/// Whether the file of the login's secret can be read; what is in it only Vault can judge.
fn secret_file(file: &FileSetting) -> Finding {
    match file.secret() {
        Ok(_) => Finding::ok("login", format!("{} can be read", Shown(file.path()))),
        Err(error) => {
            Finding::error("login", error.to_string(), format!("put the secret into this file; {READABLE}"))
        }
    }
}

/// Whether the place is fit; a process that runs has the file itself.
fn state_file(file: &FileSetting) -> Finding {
    match StateFile::examine(file.path()) {
        Ok(()) => {
            Finding::ok("state_file", format!("{} is in memory, and for this user alone", Shown(file.path())))
        }
        Err(error) => Finding::error(
            "state_file",
            format!("{file}: {}", Chain(&error)),
            "name by --state-file a file of this user's own in a directory of tmpfs, where leasehold runs",
        ),
    }
}

/// Whether `run` can make the audit file.
fn no_directory(audit_file: &FileSetting) -> Option<Finding> {
    let missing = NoDirectory::of(audit_file.path())?;
    let remedy = format!("{}, or name another by --audit-file", NoDirectory::REMEDY);
    Some(Finding::error("audit_file", format!("{audit_file}: {}", missing.fact()), remedy))
}

/// What every part of a visit needs.
struct Checker {
    config: Config,
    vault: Vault,
    /// Cancelled when nothing new is to begin.
    stop: CancellationToken,
    /// What is to be given back.
    out: Out,
}

impl Checker {
    /// Without a token: what does not need one, all routes at once.
    async fn reach_all(self: &Arc<Self>, upstreams: Vec<Arc<Upstream>>, findings: &mut Vec<Finding>) {
        let mut routes = JoinSet::new();
        for (index, upstream) in upstreams.into_iter().enumerate() {
            let this = Arc::clone(self);
            routes.spawn(async move { (index, this.reach(index, upstream).await) });
        }
        let mut reached: Vec<(usize, Vec<Finding>)> = Vec::new();
        while let Some(done) = routes.join_next().await {
            // A task that panicked has printed why.
            reached.extend(done.ok());
        }
        reached.sort_by_key(|(index, _)| *index);
        findings.extend(reached.into_iter().flat_map(|(_, of_route)| of_route));
    }

    async fn look(self: Arc<Self>, upstreams: Vec<Arc<Upstream>>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let Some(session) = self.log_in(&mut findings).await else {
            self.reach_all(upstreams, &mut findings).await;
            return findings;
        };
        let session = Arc::new(session);
        let mut routes = JoinSet::new();
        for (index, upstream) in upstreams.into_iter().enumerate() {
            let (this, session) = (Arc::clone(&self), Arc::clone(&session));
            routes.spawn(async move { (index, this.examine(index, &session, upstream).await) });
        }
        let mut examined: Vec<(usize, Examined)> = Vec::new();
        while let Some(done) = routes.join_next().await {
            // A task that panicked has printed why; its lease goes with the token.
            examined.extend(done.ok());
        }
        examined.sort_by_key(|(index, _)| *index);
        let token_gone = self.revoke_token(&session, &mut findings).await;
        if token_gone {
            self.out.all_gone();
        }
        for (_, mut route) in examined {
            findings.append(&mut route.findings);
            if let Some(held) = route.held {
                findings.push(self.verify_revoked(held, token_gone).await);
            }
        }
        findings
    }
}

/// Whether two clocks are too far apart, and what to say then. `slack` is what the comparison itself may be off by.
fn clocks(whose: &str, theirs: SystemTime, ours: SystemTime, slack: Duration) -> Finding {
    let (apart, way) = match theirs.duration_since(ours) {
        Ok(ahead) => (ahead, "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if apart <= APART + slack {
        return Finding::ok("clock", format!("{whose} has our time"));
    }
    let detail = format!("the clock of {whose} is {}s {way} ours", apart.as_secs());
    Finding::warning(
        "clock",
        detail,
        "keep the time by NTP on all machines: VALID UNTIL of a role is Vault's time, judged by PostgreSQL's",
    )
}

/// As much as Vault adds to VALID UNTIL beyond the lease's end.
const APART: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_apart_by_more_than_five_seconds_are_told() {
        let ours = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let at = |theirs| clocks("PostgreSQL", theirs, ours, Duration::from_secs(1));
        assert_eq!(at(ours + Duration::from_secs(6)).outcome, Outcome::Ok);
        assert_eq!(at(ours - Duration::from_secs(6)).outcome, Outcome::Ok);
        assert_eq!(at(ours + Duration::from_secs(8)).detail, "the clock of PostgreSQL is 8s ahead of ours");
        assert_eq!(at(ours - Duration::from_secs(8)).detail, "the clock of PostgreSQL is 8s behind ours");
    }
}
