//! TLS towards clients.

mod certificates;
mod handshake;
mod identity;
mod libpq;
mod pressure;
mod sessions;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::harness::{
    Authority, Builder, ClientTls, Frame, Raw, SOON, Scene, Server, Spec, bench, eventually, key, same, tags,
};

/// A connection within TLS.
type Secured = Raw<TlsStream<TcpStream>>;

/// A CA, and a PostgreSQL 18 and a leasehold that show the same certificate of it, so that each can be compared with the
/// other. The way between the two is without TLS.
struct Bed {
    scene: Scene,
    authority: Authority,
}

impl Bed {
    async fn new() -> Self {
        Self::with(|builder, _| builder).await
    }

    /// `describe` has the CA too.
    async fn with(describe: impl FnOnce(Builder, &Authority) -> Builder) -> Self {
        let authority = Authority::new(&bench().directory().await, "ca");
        let ours = authority.issue("ours", 1);
        let ssl = json!({"cert": ours.cert, "key": ours.key, "ca": authority.ca});
        let hba = ["host all app all trust"];
        let server = bench().own_postgres(json!({"version": "18", "ssl": ssl, "hba": hba})).await;
        let scene = Scene::with(&server, Spec::new("app"), |builder, db| {
            let builder = builder.upstream(db).flag("--tls-cert-file", shown(&ours.cert));
            describe(builder.flag("--tls-key-file", shown(&ours.key)), &authority)
        })
        .await;
        scene.db.admin.batch_execute("CREATE ROLE app LOGIN").await.unwrap();
        Self { scene, authority }
    }

    /// A session as `app` over TLS, with nothing left to read, and the key of its cancel.
    async fn session(&self, tls: &ClientTls) -> (Secured, Bytes) {
        let (raw, frames) = self.login(self.scene.leasehold.addr(), tls).await;
        assert!(tags(&frames).ends_with('Z'), "{frames:?}");
        (raw, key(&frames))
    }

    /// Logs in there over TLS.
    async fn login(&self, addr: SocketAddr, tls: &ClientTls) -> (Secured, Vec<Frame>) {
        let mut raw = Raw::secured(addr, tls).await.unwrap();
        raw.startup(Raw::PROTOCOL_3_0, &[("user", "app"), ("database", self.scene.db.name())]).await;
        let frames = raw.until("ZE").await;
        (raw, frames)
    }

    /// Waits until so many clients did not get as far as a startup message for this reason.
    async fn wait_failures(&self, reason: &str, wanted: f64) {
        let failures = async || {
            self.scene.leasehold.metrics().await.get("handshake_failures_total", &[("reason", reason)])
        };
        eventually(SOON, async || same(failures().await, wanted)).await;
    }

    /// The server and leasehold, to be asked the same.
    fn both(&self) -> [SocketAddr; 2] {
        [self.server().addr().parse().unwrap(), self.scene.leasehold.addr()]
    }

    fn server(&self) -> &Server {
        &self.scene.db.server
    }

    /// Trusts the CA.
    fn tls(&self) -> ClientTls {
        ClientTls::trusting(&self.authority.ca)
    }
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The directory of libpq 18.
async fn libpq_18(server: &Server) -> PathBuf {
    let superuser = server.superuser("postgres").await;
    PathBuf::from(superuser.value("SELECT setting FROM pg_config WHERE name = 'LIBDIR'").await)
}
