//! A whole scene at once: a database, a role in the shared OpenBao, a leasehold in between.

use super::backends::Backends;
use super::leasehold::{Builder, Leasehold};
use super::postgres::{Database, Server, Session};
use super::raw::{Frame, Raw};
use super::vault::{Setup, Spec};
use super::{SOON, eventually, same};

/// A running leasehold with one route, ready.
pub(crate) struct Scene {
    pub(crate) db: Database,
    pub(crate) setup: Setup,
    pub(crate) leasehold: Leasehold,
}

impl Scene {
    /// With nothing special.
    pub(crate) async fn on(server: &Server) -> Self {
        Self::with(server, Spec::new("app"), Builder::upstream).await
    }

    /// `describe` says at least where the upstream is.
    pub(crate) async fn with(
        server: &Server,
        spec: Spec,
        describe: impl FnOnce(Builder, &Database) -> Builder,
    ) -> Self {
        let scene = Self::started(server, spec, describe).await;
        scene.leasehold.wait_ready().await;
        scene
    }

    /// The same without readiness, where no session may be able to log in: it has a credential.
    pub(crate) async fn started(
        server: &Server,
        spec: Spec,
        describe: impl FnOnce(Builder, &Database) -> Builder,
    ) -> Self {
        let backends = Backends::on(server, spec).await;
        let leasehold = describe(backends.without_upstream(), &backends.db).start().await;
        eventually(SOON, async || same(leasehold.http("/startup").await.status, 200)).await;
        let Backends { db, setup, .. } = backends;
        Self { db, setup, leasehold }
    }

    /// A session as `app`.
    pub(crate) async fn session(&self) -> Session {
        self.leasehold.connect("app", self.db.name()).await
    }

    /// A session as `app`, byte by byte, with nothing left to read.
    pub(crate) async fn raw(&self) -> Raw {
        self.raw_with(Raw::PROTOCOL_3_0, &[]).await.0
    }

    /// The same with parameters more, and what the server said up to its first ReadyForQuery.
    pub(crate) async fn raw_with(&self, protocol: i32, parameters: &[(&str, &str)]) -> (Raw, Vec<Frame>) {
        let mut raw = self.leasehold.connect_raw().await;
        let all = [&[("user", "app"), ("database", self.db.name())], parameters].concat();
        raw.startup(protocol, &all).await;
        let frames = raw.until("ZE").await;
        assert_eq!(frames.last().map(|frame| frame.tag), Some('Z'), "{frames:?}");
        (raw, frames)
    }

    /// `rotate`, with its flags.
    pub(crate) async fn rotate(&self, flags: &[&str]) {
        let rotated = self.leasehold.command(&[&["rotate"], flags].concat()).await;
        assert!(rotated.status.success(), "{rotated:?}");
    }

    /// The sessions that leasehold counts.
    pub(crate) async fn sessions(&self) -> f64 {
        self.leasehold.metrics().await.get("sessions", &[])
    }

    /// Waits until leasehold counts so many sessions, and the server has as many.
    pub(crate) async fn wait_sessions(&self, wanted: u32) {
        eventually(SOON, async || {
            let seen = (self.sessions().await, self.db.backends().await.len());
            same(seen, (f64::from(wanted), wanted as usize))
        })
        .await;
    }

    /// Waits until so many backends are in this state, `active` or `idle in transaction`.
    pub(crate) async fn wait_state(&self, state: &str, wanted: usize) {
        eventually(SOON, async || same(self.in_state(state).await, wanted)).await;
    }

    /// How many backends are in this state.
    pub(crate) async fn in_state(&self, state: &str) -> usize {
        self.backends_where(&format!("state = '{state}'")).await
    }

    /// Waits until so many backends have sent all they have to say and wait for their client.
    pub(crate) async fn wait_read(&self, wanted: usize) {
        let sql = "state = 'idle' AND wait_event = 'ClientRead'";
        eventually(SOON, async || same(self.backends_where(sql).await, wanted)).await;
    }

    async fn backends_where(&self, condition: &str) -> usize {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{}' AND {condition}
                AND pid <> pg_backend_pid() AND usename <> '{}'",
            self.db.name(),
            self.db.vault_user().0
        );
        self.db.admin.value(&sql).await.parse().unwrap()
    }

    /// How many sessions were closed for this cause.
    pub(crate) async fn closed(&self, cause: &str) -> f64 {
        self.leasehold.metrics().await.get("sessions_closed_total", &[("cause", cause)])
    }
}
