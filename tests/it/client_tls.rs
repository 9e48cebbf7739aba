//! TLS towards clients.

mod handshake;
mod libpq;

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::{Authority, Builder, ClientTls, Scene, Server, Spec, bench};

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
