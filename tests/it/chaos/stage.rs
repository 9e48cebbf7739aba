//! What the faults are done to: a leasehold with a state file, and servers of its own, each behind a forwarder.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::HEALS_WITHIN;
use super::writers::Writers;
use crate::harness::{
    Backends, Fault, Forwarded, Leasehold, Memory, SOON, Spec, Storage, bench, broken_routes, eventually,
    same,
};
use crate::load::{Ledger, Session};

pub(super) struct Stage {
    backends: Forwarded,
    pub(super) to_postgres: Fault,
    leasehold: Option<Leasehold>,
    memory: Memory,
    pub(super) writers: Writers,
}

impl Deref for Stage {
    type Target = Forwarded;

    fn deref(&self) -> &Forwarded {
        &self.backends
    }
}

impl Stage {
    pub(super) async fn new() -> Self {
        // What was acknowledged is to outlive a kill.
        let conf = json!({"max_connections": "36", "synchronous_commit": "on"});
        let server = bench().own_postgres(json!({"version": "system", "conf": conf})).await;
        let db = server.database().await;
        db.admin.batch_execute(&format!("CREATE ROLE {FILLER} LOGIN PASSWORD '{FILLER}'")).await.unwrap();
        Ledger::create(&db, WRITERS).await;
        let vault = bench().own_vault(Storage::Raft).await;
        let spec = Spec::new("app").ttl(TTL, MAX_TTL).policy(Spec::MAY_REVOKE).policy(broken_routes::POLICY);
        let to_postgres = Fault::before(&server.addr()).await;
        let mut stage = Self {
            backends: Backends::of(db, vault, spec).await.forwarded().await,
            to_postgres,
            leasehold: None,
            memory: Memory::new(),
            writers: Writers::default(),
        };
        stage.start().await;
        for client in 0..WRITERS {
            stage.writers.add(client);
        }
        stage
    }

    pub(super) fn leasehold(&self) -> &Leasehold {
        self.leasehold.as_ref().expect("it is started with the stage")
    }

    /// Starts leasehold, for the first time or again.
    async fn start(&mut self) {
        let defaults = format!("rotate_after = '3s'\nprobe_database = '{}'\n", self.db.name());
        let started = self
            .backends
            .with_file(&broken_routes::beside(&self.setup, self.to_postgres.addr(), &defaults))
            .flag("--state-file", self.memory.file().to_str().unwrap())
            .flag("--limits-login-wait", "5s")
            .flag("--limits-issue-burst", "10")
            .flag("--limits-issue-interval", "2s")
            .start()
            .await;
        self.writers.reach(started.config("app", self.db.name()));
        self.leasehold = Some(started);
    }

    pub(super) async fn kill_leasehold(&mut self) {
        self.leasehold.as_mut().expect("it runs").kill9();
        self.start().await;
    }

    /// The database's own end of things, after its server was away.
    pub(super) async fn administer_again(&mut self) {
        let admin = self.db.server.superuser(self.db.name()).await;
        self.backends.db.admin = admin;
    }

    /// The role of new sessions, and the end of its lease_id.
    pub(super) async fn current(&self) -> (String, String) {
        eventually(HEALS_WITHIN, async || {
            let generations = self.leasehold().generations().await;
            let current = generations.iter().find(|generation| generation["state"] == "current");
            let text = |key: &str| current.and_then(|current| current[key].as_str()).map(str::to_owned);
            text("username").zip(text("lease_id")).ok_or(generations)
        })
        .await
    }

    /// Waits until all is well: ready, with time to run, a new session works, and so does each writer.
    pub(super) async fn healed(&self) {
        let (leasehold, config) = (self.leasehold(), self.leasehold().config("app", self.db.name()));
        eventually(HEALS_WITHIN, async || {
            let reply = leasehold.http("/readyz?route=app").await;
            if reply.status == 200 { Ok(()) } else { Err(reply.text) }
        })
        .await;
        eventually(HEALS_WITHIN, async || {
            let session = match tokio::time::timeout(SOON, Session::open(&config)).await {
                Ok(Ok(session)) => session,
                Ok(Err(error)) => return Err(format!("a login: {error:?}")),
                Err(_) => return Err("a login takes long".to_owned()),
            };
            let answer = session.client.query_one("SELECT count(*) FROM ledger", &[]).await;
            let role = session.role.clone();
            session.close().await;
            answer.map_err(|error| format!("{error:?}"))?;
            same(role, self.current().await.0)
        })
        .await;
        let before = self.writers.acknowledged();
        eventually(HEALS_WITHIN, async || {
            let now = self.writers.acknowledged();
            let wrote = before.iter().zip(&now).filter(|(before, now)| now > before).count();
            same(wrote, before.len())
        })
        .await;
        eventually(HEALS_WITHIN, async || {
            let status = leasehold.status().await;
            let runway = status["routes"][0]["runway_seconds"].as_f64().unwrap_or_default();
            if runway >= RUNWAY { Ok(()) } else { Err(status) }
        })
        .await;
    }

    /// The most requests to Vault within a second.
    pub(super) fn most_requests(&self, from: Instant, until: Instant) -> usize {
        let (mut second, mut most) = (VecDeque::new(), 0);
        for at in self.fault.asked().into_iter().map(|asked| asked.at).filter(|at| (from..until).contains(at))
        {
            while second.front().is_some_and(|first| at - *first > Duration::from_secs(1)) {
                second.pop_front();
            }
            second.push_back(at);
            most = most.max(second.len());
        }
        most
    }

    /// Waits until this metric of leasehold's has grown.
    pub(super) async fn grows(&self, name: &str, labels: &[(&str, &str)]) {
        let look = async || self.leasehold().metrics().await.get(name, labels);
        let before = look().await;
        eventually(HEALS_WITHIN, async || {
            let now = look().await;
            if now > before { Ok(()) } else { Err(format!("{name} {labels:?}: {now}")) }
        })
        .await;
    }

    /// Between transactions, the books agree with the database.
    pub(super) async fn adds_up(&self) {
        let books = self.writers.books().await;
        Ledger::agrees(&self.db, books.iter().map(|book| &**book)).await;
    }

    /// The end: nobody writes any more, and what is left behind is given back.
    pub(super) async fn stop(mut self) {
        self.writers.stop().await;
        self.adds_up().await;
        broken_routes::were_refused(&self.leasehold().metrics().await);
        eprintln!("chaos: {} writes were acknowledged", self.writers.acknowledged().iter().sum::<u64>());
        let stopped = self.leasehold.as_mut().expect("it runs").stop().await;
        assert_eq!(stopped.code(), Some(0));
        eventually(HEALS_WITHIN, async || same(self.db.roles().await.len(), 0)).await;
    }

    /// Writes the role in Vault anew, with these creation statements.
    pub(super) async fn create_by(&self, statements: &str) {
        let role = json!({"creation_statements": [statements]});
        self.vault.write(&format!("{}/roles/app", self.setup.mount()), role).await;
    }

    pub(super) async fn retune(&mut self, ttl: &str, max_ttl: &str) {
        self.backends.retune(ttl, max_ttl).await;
    }

    /// Writes the role in Vault as it was.
    pub(super) async fn mend_role(&mut self) {
        self.retune(TTL, MAX_TTL).await;
    }

    /// Sessions of another role, until the server takes no more.
    pub(super) async fn fill(&self) -> Vec<crate::harness::Session> {
        let mut sessions = Vec::new();
        loop {
            match self.db.server.login(FILLER, FILLER, self.db.name()).await {
                Ok(session) => sessions.push(session),
                Err(error) => {
                    assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error:?}");
                    return sessions;
                }
            }
        }
    }

    /// The accessors of the tokens that leasehold has logged in to.
    pub(super) async fn tokens(&self) -> Vec<Value> {
        let list = reqwest::Method::from_bytes(b"LIST").unwrap();
        let all = self.vault.request(list, "auth/token/accessors", &self.vault.root_token, None).await;
        let mut found = Vec::new();
        for accessor in all.json["data"]["keys"].as_array().cloned().unwrap_or_default() {
            let body = json!({"accessor": accessor});
            let post = reqwest::Method::POST;
            let token = self
                .vault
                .request(post, "auth/token/lookup-accessor", &self.vault.root_token, Some(body))
                .await;
            if token.json["data"]["path"] == "auth/approle/login" {
                found.push(accessor);
            }
        }
        found
    }
}

pub(super) const TTL: &str = "30s";
pub(super) const MAX_TTL: &str = "10m";
const FILLER: &str = "filler";
const WRITERS: i32 = 8;
/// Seconds that a fault of Vault's, which is shorter, can be lived through.
const RUNWAY: f64 = 15.0;

/// What the writers share with the stage.
pub(super) type Gate<T> = Arc<tokio::sync::Mutex<T>>;
