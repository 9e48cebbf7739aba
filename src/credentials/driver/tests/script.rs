//! A Vault that answers as a test tells it to, and a clock that follows tokio's.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

use crate::clock::simulated;
use crate::credentials::client::{Answer, VaultClient};
use crate::credentials::{Deps, Proof, Route, RouteSettings, Servers, Serves, start};
use crate::lease::Settings;
use crate::metrics::RouteMetrics;
use crate::secret::Secret;
use crate::traces::Traces;
use crate::vault::{
    Bounds, Failure, Grant, Kind, Lease, Login, Operation, Priority, Renewed, StaticCredential, Turns,
    VaultPath,
};

pub(super) const LEASE: Duration = Duration::from_secs(60);
pub(super) const TOKEN: Duration = Duration::from_secs(3600);
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// A route with its driver.
pub(super) struct Simulation {
    pub(super) route: Arc<Route>,
    pub(super) vault: Arc<ScriptedVault>,
}

impl Simulation {
    /// A route that has its first credential.
    pub(super) async fn start() -> Self {
        Self::before_its_start().with_credential().await
    }

    /// A route that has its first credential, by a token that was handed to leasehold and ends after this time.
    pub(super) async fn start_with_token(ttl: Duration) -> Self {
        let simulation = Self::before_its_start();
        simulation.vault.hand_over(ttl);
        simulation.with_credential().await
    }

    async fn with_credential(self) -> Self {
        self.route.current(TIMEOUT).await.expect("a first credential");
        self
    }

    pub(super) fn before_its_start() -> Self {
        simulated::follow_tokio();
        let vault = Arc::new(ScriptedVault::default());
        let prover = Arc::clone(&vault);
        let servers = Servers {
            prove: Arc::new(move |username, _| {
                prover.say(format!("prove {}", username.trim_start_matches("v-app-")));
                Box::pin(std::future::ready(Proof::Accepted { address: "db:5432".to_owned(), full: None }))
            }),
            replica_grace: Arc::new(|| Duration::ZERO),
        };
        let settings = RouteSettings {
            name: "app".to_owned(),
            serves: Serves::default(),
            vault_path: VaultPath::parse("database/creds/app").expect("a path"),
            login: "approle".to_owned(),
            client_timeout: TIMEOUT,
            lease: Settings::new(0),
        };
        let client: Arc<dyn VaultClient> = Arc::clone(&vault) as _;
        let deps = Deps {
            vault: client,
            servers,
            metrics: RouteMetrics::new("app"),
            slot: None,
            traces: Traces::default(),
        };
        Self { route: start(settings, deps, &TaskTracker::new()), vault }
    }

    /// What was asked of Vault and the server since the last time, in order.
    pub(super) fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.vault.state().said)
    }

    /// Time goes on.
    pub(super) async fn pass(&self, span: Duration) {
        tokio::time::sleep(span).await;
    }
}

/// Grants what it is asked for: the n-th token is `token-n`, the n-th lease `database/creds/app/n`.
#[derive(Default)]
pub(super) struct ScriptedVault(Mutex<State>);

#[derive(Default)]
struct State {
    said: Vec<String>,
    /// The pace of logins.
    turns: Turns<&'static str, Instant>,
    /// When the token ends that was handed over, in place of logins.
    handed_until: Option<Instant>,
    is_away: bool,
    issues_take: Duration,
    tokens: u32,
    leases: u32,
    revoked: HashSet<String>,
}

impl ScriptedVault {
    /// Nothing is answered, and nothing done, until it is back.
    pub(super) fn go_away(&self, is_away: bool) {
        self.state().is_away = is_away;
    }

    pub(super) fn answer_issues_after(&self, span: Duration) {
        self.state().issues_take = span;
    }

    /// Somebody hands over a token that ends after this time and cannot be renewed. Logins find it from now on.
    pub(super) fn hand_over(&self, ttl: Duration) {
        let mut state = self.state();
        state.tokens += 1;
        state.handed_until = Some(Instant::now() + ttl);
    }

    /// Waits for the turn of a login, as the client of Vault does.
    async fn login_turn(&self) {
        let place = self.state().turns.queue(Priority::First(0), Some(LOGIN), true);
        loop {
            let taken = self.state().turns.take(place, Instant::now());
            match taken {
                Ok(turn) => return self.state().turns.done(&turn),
                Err(at) => sleep_until(at.expect("one login at a time")).await,
            }
        }
    }

    /// Somebody revokes the lease with this number.
    pub(super) fn revoke_by_hand(&self, lease: u32) {
        self.state().revoked.insert(format!("database/creds/app/{lease}"));
    }

    fn say(&self, said: String) {
        self.state().said.push(said);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("a test has failed")
    }

    /// The request is sent; an error if nobody answers.
    async fn take(&self, bounds: &Bounds, said: String, operation: Operation) -> Result<(), Failure> {
        bounds.mark_sent();
        self.say(said);
        if self.state().is_away {
            tokio::time::sleep(TIMEOUT).await;
            return Err(Failure::gave_up(operation));
        }
        Ok(())
    }
}

/// The path of logins in the pace.
const LOGIN: &str = "login";

fn number(name: &str) -> &str {
    name.rsplit(['/', '-']).next().unwrap_or_default()
}

impl VaultClient for ScriptedVault {
    fn log_in(&self, bounds: Bounds) -> Answer<'_, Login> {
        Box::pin(async move {
            self.login_turn().await;
            self.take(&bounds, "log in".to_owned(), Operation::LogIn).await?;
            let mut state = self.state();
            let handed = state.handed_until;
            state.tokens += u32::from(handed.is_none());
            Ok(Login {
                token: Secret::new(format!("token-{}", state.tokens)),
                handed: handed.is_some(),
                ttl: Some(handed.map_or(TOKEN, |until| until.duration_since(Instant::now()))),
                ttl_known: true,
                renewable: handed.is_none(),
                batch: false,
                num_uses: 0,
            })
        })
    }

    fn issue<'a>(&'a self, token: &'a Secret, _: &'a VaultPath, bounds: Bounds) -> Answer<'a, Grant> {
        Box::pin(async move {
            let said = format!("issue {}", number(token.expose()));
            self.take(&bounds, said, Operation::Issue).await?;
            let issues_take = self.state().issues_take;
            tokio::time::sleep(issues_take).await;
            let mut state = self.state();
            state.leases += 1;
            Ok(Grant {
                username: format!("v-app-{}", state.leases),
                password: Secret::new("password".to_owned()),
                lease: Lease::new(format!("database/creds/app/{}", state.leases), "database/creds/app"),
                ttl: LEASE,
                renewable: true,
            })
        })
    }

    fn read_static<'a>(&'a self, _: &'a Secret, _: &'a VaultPath, _: Bounds) -> Answer<'a, StaticCredential> {
        unreachable!("the route's role is dynamic")
    }

    fn renew<'a>(
        &'a self,
        _: &'a Secret,
        lease: &'a Lease,
        _: &'a str,
        bounds: Bounds,
    ) -> Answer<'a, Renewed> {
        Box::pin(async move {
            self.take(&bounds, format!("renew {}", number(lease.id())), Operation::Renew).await?;
            if self.state().revoked.contains(lease.id()) {
                let mut gone = Failure::gave_up(Operation::Renew);
                (gone.kind, gone.outcome_unknown) = (Kind::Gone, false);
                return Err(gone);
            }
            Ok(Renewed { ttl: LEASE, renewable: true })
        })
    }

    fn renew_token<'a>(&'a self, token: &'a Secret, bounds: Bounds) -> Answer<'a, Renewed> {
        Box::pin(async move {
            let said = format!("renew token {}", number(token.expose()));
            self.take(&bounds, said, Operation::RenewToken).await?;
            Ok(Renewed { ttl: TOKEN, renewable: true })
        })
    }

    fn revoke<'a>(&'a self, _: &'a Secret, lease: &'a Lease, bounds: Bounds) -> Answer<'a, ()> {
        Box::pin(async move {
            self.take(&bounds, format!("revoke {}", number(lease.id())), Operation::Revoke).await
        })
    }

    fn revoke_token<'a>(&'a self, token: &'a Secret, bounds: Bounds) -> Answer<'a, ()> {
        Box::pin(async move {
            let said = format!("revoke token {}", number(token.expose()));
            self.take(&bounds, said, Operation::RevokeToken).await
        })
    }

    fn has_lease<'a>(&'a self, _: &'a Secret, lease: &'a Lease, bounds: Bounds) -> Answer<'a, bool> {
        Box::pin(async move {
            self.take(&bounds, format!("look up {}", number(lease.id())), Operation::LookUpLease).await?;
            Ok(!self.state().revoked.contains(lease.id()))
        })
    }

    fn retry_now(&self, _: &VaultPath) {}

    fn grant_was_of_use(&self, _: &VaultPath, _: bool) {}

    fn login_was_of_use(&self, of_use: bool) {
        self.state().turns.of_use(&LOGIN, of_use, Instant::now());
    }
}
