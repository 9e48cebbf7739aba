//! What goes wrong. Each act ends when its cause has been taken away again.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use reqwest::Method;
use rustix::process::Resource;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::stage::Stage;
use crate::harness::{Mode, Raw};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its process stands still.
    VaultStandsStill,
    VaultKilled,
    VaultSealed,
    /// Connections are accepted, and nothing passes.
    VaultBlackholed,
    /// Each request takes two seconds.
    VaultSlow,
    /// By a quota.
    VaultRateLimited,
    /// All tokens of leasehold's.
    TokensRevoked,
    /// The current one, by hand.
    LeaseRevoked,
    /// All, by their prefix.
    LeasesRevoked,
    /// To shorter leases, and back.
    VaultRoleChanged,
    VaultRoleDeleted,
    /// `creation_statements` make a role that cannot log in.
    RolesThatCannotLogIn,
    /// The current one, by a DBA.
    RoleDropped,
    /// The current one is set NOLOGIN by a DBA.
    RoleLockedOut,
    PostgresRestarted,
    PostgresKilled,
    /// No connection is left.
    PostgresFull,
    /// After some bytes of an answer.
    CutInAnAnswer,
    /// What the server answers does not arrive, then the connections break.
    CutToTheClient,
    /// What is sent to the server does not arrive, then the connections break.
    CutToTheServer,
    CutBothWays,
    LeaseholdStandsStill,
    LeaseholdKilled,
    /// For leasehold, and clients that say nothing take what there is for clients.
    FewDescriptors,
    /// In the middle of long answers.
    ClientsDie,
    /// Every session of the credentials so far, within a second.
    Drained,
}

impl Fault {
    pub(super) const ALL: [Self; 26] = [
        Self::VaultStandsStill,
        Self::VaultKilled,
        Self::VaultSealed,
        Self::VaultBlackholed,
        Self::VaultSlow,
        Self::VaultRateLimited,
        Self::TokensRevoked,
        Self::LeaseRevoked,
        Self::LeasesRevoked,
        Self::VaultRoleChanged,
        Self::VaultRoleDeleted,
        Self::RolesThatCannotLogIn,
        Self::RoleDropped,
        Self::RoleLockedOut,
        Self::PostgresRestarted,
        Self::PostgresKilled,
        Self::PostgresFull,
        Self::CutInAnAnswer,
        Self::CutToTheClient,
        Self::CutToTheServer,
        Self::CutBothWays,
        Self::LeaseholdStandsStill,
        Self::LeaseholdKilled,
        Self::FewDescriptors,
        Self::ClientsDie,
        Self::Drained,
    ];

    /// Whether no client may notice, since a usable credential is there all along.
    pub(super) fn is_vaults(self) -> bool {
        matches!(
            self,
            Self::VaultStandsStill
                | Self::VaultKilled
                | Self::VaultSealed
                | Self::VaultBlackholed
                | Self::VaultSlow
                | Self::VaultRateLimited
                | Self::VaultRoleChanged
                | Self::VaultRoleDeleted
                | Self::RolesThatCannotLogIn
        )
    }

    pub(super) async fn act(self, stage: &mut Stage, dice: &mut StdRng) {
        // Long enough for a rotation or a renewal to fall into it now and then, shorter than the runway.
        let span = Duration::from_millis(dice.random_range(800..3000));
        let pass = tokio::time::sleep(span);
        match self {
            Self::VaultStandsStill => {
                stage.vault.pause().await;
                pass.await;
                stage.vault.resume().await;
            }
            Self::VaultKilled => {
                stage.vault.stop("KILL").await;
                pass.await;
                stage.vault.restart().await;
            }
            Self::VaultSealed => {
                stage.vault.seal().await;
                pass.await;
                stage.vault.unseal().await;
            }
            Self::VaultBlackholed => {
                stage.fault.set(Mode::Blackhole).await;
                pass.await;
                stage.fault.set(Mode::Pass).await;
            }
            Self::VaultSlow => {
                stage.fault.set(Mode::Delay(Duration::from_secs(1))).await;
                tokio::time::sleep(span * 2).await;
                stage.fault.set(Mode::Pass).await;
            }
            Self::VaultRateLimited => {
                let quota = format!("sys/quotas/rate-limit/{}", stage.setup.mount());
                let limit =
                    json!({"path": format!("{}/", stage.setup.mount()), "rate": 0.1, "interval": "10s"});
                stage.vault.write(&quota, limit).await;
                stage.grows("issuances_total", &[("outcome", "failed")]).await;
                stage.vault.delete(&quota).await;
            }
            Self::TokensRevoked => {
                for accessor in stage.tokens().await {
                    let body = json!({"accessor": accessor});
                    let (path, root) = ("auth/token/revoke-accessor", stage.vault.root_token.clone());
                    // leasehold may have given one back meanwhile.
                    stage.vault.request(Method::POST, path, &root, Some(body)).await;
                }
            }
            Self::LeaseRevoked => {
                let (_, tail) = stage.current().await;
                for lease in stage.vault.leases(&stage.setup.path).await {
                    if lease.ends_with(&tail) {
                        stage.vault.revoke_lease(&lease).await;
                    }
                }
            }
            Self::LeasesRevoked => stage.vault.revoke_prefix(&stage.setup.path).await,
            Self::VaultRoleChanged => {
                stage.retune("12s", "20s").await;
                tokio::time::sleep(span * 2).await;
                stage.mend_role().await;
            }
            Self::VaultRoleDeleted => {
                stage.vault.delete(&format!("{}/roles/app", stage.setup.mount())).await;
                stage.grows("issuances_total", &[("outcome", "refused")]).await;
                stage.mend_role().await;
            }
            Self::RolesThatCannotLogIn => {
                let group = stage.db.owner();
                let statements = format!("CREATE ROLE \"{{{{name}}}}\" NOLOGIN IN ROLE \"{group}\"");
                stage.create_by(&statements).await;
                stage.grows("proofs_total", &[("outcome", "refused")]).await;
                stage.mend_role().await;
            }
            Self::RoleDropped => {
                let (role, _) = stage.current().await;
                // It may have been retired and dropped since.
                stage.db.admin.batch_execute(&format!("DROP ROLE IF EXISTS \"{role}\"")).await.unwrap();
            }
            Self::RoleLockedOut => {
                let (role, _) = stage.current().await;
                let lock = format!("ALTER ROLE \"{role}\" NOLOGIN");
                drop(stage.db.admin.batch_execute(&lock).await);
            }
            Self::PostgresRestarted => {
                stage.db.server.stop("fast").await;
                pass.await;
                stage.db.server.restart().await;
                stage.administer_again().await;
            }
            Self::PostgresKilled => {
                stage.db.server.stop("KILL").await;
                // Its children notice, and let go of its memory.
                tokio::time::sleep(span + Duration::from_secs(1)).await;
                stage.db.server.restart().await;
                stage.administer_again().await;
            }
            Self::PostgresFull => {
                let mut sessions = stage.fill().await;
                stage.writers.call();
                // Whoever lets go of a session does not get another one.
                let until = Instant::now() + span;
                while Instant::now() < until {
                    sessions.extend(stage.fill().await);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                for session in sessions {
                    session.close().await;
                }
            }
            Self::CutInAnAnswer => {
                stage.to_postgres.set(Mode::CutToClientAfter(dice.random_range(1..60))).await;
                pass.await;
                stage.to_postgres.set(Mode::Pass).await;
            }
            Self::CutToTheClient => cut(stage, Mode::HoldToClient, pass).await,
            Self::CutToTheServer => cut(stage, Mode::HoldToServer, pass).await,
            Self::CutBothWays => cut(stage, Mode::Blackhole, pass).await,
            Self::LeaseholdStandsStill => {
                stage.leasehold().suspend();
                tokio::time::sleep(span * 2).await;
                stage.leasehold().resume();
            }
            Self::LeaseholdKilled => stage.kill_leasehold().await,
            Self::ClientsDie => {
                let mut clients = Vec::new();
                for _ in 0..4 {
                    let addr = stage.leasehold().addr();
                    let (mut raw, _) = Raw::login(addr, "app", stage.db.name()).await;
                    drop(raw.try_write(&Raw::message('Q', ENDLESS)).await);
                    raw.until("DE").await;
                    clients.push(raw);
                }
                clients.into_iter().for_each(Raw::reset);
            }
            Self::Drained => {
                // A rotation may be under way; what counts is that sessions end.
                drop(stage.leasehold().command(&["rotate", "--drain=1s"]).await);
                pass.await;
            }
            Self::FewDescriptors => {
                stage.leasehold().limit(Resource::Nofile, Some(64));
                let mut silent = Vec::new();
                for _ in 0..60 {
                    silent.push(TcpStream::connect(stage.leasehold().addr()).await.unwrap());
                }
                stage.writers.call();
                // What keeps the leases alive does not wait for a descriptor.
                let rotated = stage.leasehold().command(&["rotate", "app"]).await;
                assert!(rotated.status.success(), "{rotated:?}");
                pass.await;
                stage.leasehold().limit(Resource::Nofile, None);
            }
        }
    }
}

/// Holds the bytes between leasehold and PostgreSQL, then breaks all connections; what was held is lost.
async fn cut(stage: &Stage, mode: Mode, pass: tokio::time::Sleep) {
    stage.to_postgres.set(mode).await;
    pass.await;
    stage.to_postgres.cut();
    stage.to_postgres.set(Mode::Pass).await;
}

/// Its answer never comes to an end.
const ENDLESS: &[u8] = b"SELECT repeat('x', 1000), generate_series(1, 100000000)\0";
