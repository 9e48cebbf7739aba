//! An OpenBao server, as its administrator sees it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reqwest::Method;
use serde_json::{Value, json};

use super::fault::Fault;
use super::http::{Http, Reply};
use super::postgres::Database;
use super::servers::Owned;
use super::{SOON, bench, eventually};

/// Where a server of a test's own keeps its data.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Storage {
    /// In memory: gone with a stop, kept over a seal.
    Memory,
    /// In memory, by https.
    MemoryTls,
    /// On disk: kept over a restart. It starts and unseals in a second or two.
    Raft,
}

/// A running server, with its root token.
#[derive(Clone)]
pub(crate) struct Vault {
    name: String,
    /// The URL.
    pub(crate) addr: String,
    pub(crate) port: u16,
    pub(crate) root_token: String,
    pub(crate) ca: Option<PathBuf>,
    unseal_key: Option<String>,
    http: Arc<Http>,
    _owned: Option<Arc<Owned>>,
}

impl Vault {
    pub(crate) fn new(coordinates: &Value) -> Self {
        let text = |key: &str| coordinates[key].as_str().map(str::to_owned);
        let ca = text("ca").map(PathBuf::from);
        Self {
            name: text("name").unwrap(),
            addr: text("addr").unwrap(),
            port: u16::try_from(coordinates["port"].as_u64().unwrap()).unwrap(),
            root_token: text("root_token").unwrap(),
            unseal_key: text("unseal_key"),
            http: Arc::new(Http::new(ca.as_deref())),
            ca,
            _owned: None,
        }
    }

    pub(crate) fn own(coordinates: Value) -> Self {
        let vault = Self::new(&coordinates);
        let owned = Some(Arc::new(Owned(vault.name.clone())));
        Self { _owned: owned, ..vault }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A forwarder before it.
    pub(crate) async fn forwarder(&self) -> Fault {
        Fault::before(&format!("127.0.0.1:{}", self.port)).await
    }

    /// The status of its health: 200 active, 429 standby, 503 sealed.
    pub(crate) async fn health(&self) -> u16 {
        self.request(Method::GET, "sys/health", "", None).await.status
    }

    /// A request with a token of the caller's, whatever comes of it.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<Value>,
    ) -> Reply {
        let url = format!("{}/v1/{path}", self.addr);
        self.http
            .send(method, &url, Some(token), body.as_ref())
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// Writes as root.
    pub(crate) async fn write(&self, path: &str, body: Value) -> Value {
        let reply = self.request(Method::POST, path, &self.root_token, Some(body)).await;
        assert!(reply.status < 300, "write {path}: {} {}", reply.status, reply.text);
        reply.json
    }

    /// Reads as root.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let reply = self.request(Method::GET, path, &self.root_token, None).await;
        assert!(reply.status < 300, "read {path}: {} {}", reply.status, reply.text);
        reply.json
    }

    /// Deletes as root.
    pub(crate) async fn delete(&self, path: &str) {
        let reply = self.request(Method::DELETE, path, &self.root_token, None).await;
        assert!(reply.status < 300, "delete {path}: {} {}", reply.status, reply.text);
    }

    /// Writes as root; the answer is behind the wrapping token that is returned.
    pub(crate) async fn wrap(&self, path: &str, body: Value) -> String {
        let url = format!("{}/v1/{path}", self.addr);
        let reply = self.http.wrap(&url, &self.root_token, &body).await.unwrap();
        reply.json["wrap_info"]["token"].as_str().unwrap().to_owned()
    }

    /// The lease as Vault has it, `None` once it is gone.
    pub(crate) async fn lease(&self, lease_id: &str) -> Option<Value> {
        let body = json!({"lease_id": lease_id});
        let reply = self.request(Method::POST, "sys/leases/lookup", &self.root_token, Some(body)).await;
        (reply.status == 200).then(|| reply.json["data"].clone())
    }

    /// The ids of all leases of `<mount>/creds/<role>`.
    pub(crate) async fn leases(&self, path: &str) -> Vec<String> {
        let list = Method::from_bytes(b"LIST").unwrap();
        let reply = self.request(list, &format!("sys/leases/lookup/{path}"), &self.root_token, None).await;
        let Some(keys) = reply.json["data"]["keys"].as_array() else { return Vec::new() };
        keys.iter().map(|key| format!("{path}/{}", key.as_str().unwrap())).collect()
    }

    /// Revokes a lease and waits until the role has been dropped.
    pub(crate) async fn revoke_lease(&self, lease_id: &str) {
        self.write("sys/leases/revoke", json!({"lease_id": lease_id, "sync": true})).await;
    }

    /// Revokes all leases below a path and waits for it.
    pub(crate) async fn revoke_prefix(&self, prefix: &str) {
        self.write(&format!("sys/leases/revoke-prefix/{prefix}"), json!({"sync": true})).await;
    }

    /// Seals it: every request is answered with 503. For a server of the test's own.
    pub(crate) async fn seal(&self) {
        assert!(self._owned.is_some(), "a shared server is not sealed");
        self.write("sys/seal", json!({})).await;
    }

    /// Unseals a server with storage, and waits until it serves.
    pub(crate) async fn unseal(&self) {
        let key = self.unseal_key.as_deref().expect("only a server with storage tells its unseal key");
        self.write("sys/unseal", json!({"key": key})).await;
        eventually(SOON, async || {
            let reply = self.request(Method::GET, "sys/health", "", None).await;
            super::same(reply.status, 200)
        })
        .await;
    }

    /// Stops it: `TERM` or `KILL`.
    pub(crate) async fn stop(&self, signal: &str) {
        bench().command(json!({"stop": self.name, "signal": signal})).await;
    }

    /// Starts it again on the same port, unsealed. In memory, nothing is left of its data.
    pub(crate) async fn restart(&self) {
        bench().command(json!({"restart": self.name})).await;
    }

    /// Freezes it: connections are accepted by the kernel, and nothing answers.
    pub(crate) async fn pause(&self) {
        bench().command(json!({"pause": self.name})).await;
    }

    /// Ends [`Vault::pause`].
    pub(crate) async fn resume(&self) {
        bench().command(json!({"cont": self.name})).await;
    }

    /// Sets up a database engine, a role, a policy and an AppRole login for this database, apart from all others.
    pub(super) async fn setup(&self, db: &Database, spec: Spec) -> Setup {
        let id = format!("{}-{}", db.name(), bench().fresh_name("s"));
        let mount = format!("{}{id}", spec.below);
        let path = format!("{mount}/creds/{}", spec.role);
        let (user, password) = db.vault_user();
        let server = spec.database_addr.clone().unwrap_or_else(|| db.server.addr());

        self.write(&format!("sys/mounts/{mount}"), json!({"type": "database"})).await;
        let connection = json!({
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url":
                format!("postgresql://{{{{username}}}}:{{{{password}}}}@{server}/{}?sslmode=disable", db.name()),
            "username": user,
            "password": password,
        });
        self.write(&format!("{mount}/config/db"), connection).await;
        let setup =
            Setup { vault: self.clone(), mount, path, id, directory: bench().directory().await, spec };
        setup.write_role(db).await;
        setup.write_login().await;
        setup
    }
}

/// What a setup is to be. Spans are Vault's words (`20s`, `1h`).
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    role: String,
    ttl: String,
    max_ttl: String,
    creation_statements: Option<String>,
    database_addr: Option<String>,
    token: Value,
    policy: String,
    below: String,
}

impl Spec {
    /// A role of this name: leases of an hour, at most a day; a login whose token is periodic and never ends.
    pub(crate) fn new(role: &str) -> Self {
        Self {
            role: role.to_owned(),
            ttl: "1h".to_owned(),
            max_ttl: "24h".to_owned(),
            creation_statements: None,
            database_addr: None,
            token: json!({"token_period": "1h"}),
            policy: String::new(),
            below: String::new(),
        }
    }

    /// The lease's TTL, and the longest it can be renewed to.
    pub(crate) fn ttl(self, ttl: &str, max_ttl: &str) -> Self {
        Self { ttl: ttl.to_owned(), max_ttl: max_ttl.to_owned(), ..self }
    }

    /// Statements in place of `CREATE ROLE ... IN ROLE owner` and `SET role = owner`. `{{owner}}` is the owner group.
    pub(crate) fn creation_statements(self, statements: &str) -> Self {
        Self { creation_statements: Some(statements.to_owned()), ..self }
    }

    /// `host:port` by which Vault reaches the database, such as that of a [`super::Fault`].
    pub(crate) fn database_addr(self, addr: &str) -> Self {
        Self { database_addr: Some(addr.to_owned()), ..self }
    }

    /// The AppRole's own words, such as `{"token_ttl": "8s", "token_max_ttl": "8s"}`, in place of a periodic token.
    pub(crate) fn token(self, token: Value) -> Self {
        Self { token, ..self }
    }

    /// Where the engine is mounted, such as `team/a/`.
    pub(crate) fn below(self, prefix: &str) -> Self {
        Self { below: prefix.to_owned(), ..self }
    }

    /// More policy, as HCL, such as [`MAY_REVOKE`](Self::MAY_REVOKE).
    pub(crate) fn policy(mut self, hcl: &str) -> Self {
        self.policy.push_str(hcl);
        self
    }

    /// Lets leasehold revoke leases by their id.
    pub(crate) const MAY_REVOKE: &str = "path \"sys/leases/revoke\" { capabilities = [\"update\"] }\n";
}

/// A role in Vault, and a login that may read its credentials and renew its leases.
pub(crate) struct Setup {
    vault: Vault,
    mount: String,
    /// `<mount>/creds/<role>`.
    pub(crate) path: String,
    id: String,
    directory: PathBuf,
    spec: Spec,
}

impl Setup {
    /// The mount of its database engine.
    pub(crate) fn mount(&self) -> &str {
        &self.mount
    }

    /// The name of its policy and of its AppRole.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its own directory, for files of secrets.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Enables an auth method at a mount of its own, and says which: `team/<id>/<method>`.
    pub(crate) async fn enable(&self, method: &str) -> String {
        let mount = format!("team/{}/{method}", self.id);
        self.vault.write(&format!("sys/auth/{mount}"), json!({"type": method})).await;
        mount
    }

    pub(crate) fn role_id(&self) -> String {
        std::fs::read_to_string(self.directory.join("role_id")).unwrap()
    }

    pub(crate) fn secret_id_file(&self) -> PathBuf {
        self.directory.join("secret_id")
    }

    /// Logs in, as leasehold does.
    pub(crate) async fn token(&self) -> String {
        let secret_id = std::fs::read_to_string(self.secret_id_file()).unwrap();
        let body = json!({"role_id": self.role_id(), "secret_id": secret_id});
        let reply = self.vault.write("auth/approle/login", body).await;
        reply["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// Makes a static role of the Vault user's database, and lets the login read it. Gives its path.
    pub(crate) async fn static_role(&self, username: &str, period: &str) -> String {
        let role = json!({"db_name": "db", "username": username, "rotation_period": period});
        self.vault.write(&format!("{}/static-roles/fixed", self.mount), role).await;
        let path = format!("{}/static-creds/fixed", self.mount);
        let policy = format!("path \"{path}\" {{ capabilities = [\"read\"] }}");
        self.vault.write(&format!("sys/policies/acl/{}", self.id), json!({"policy": policy})).await;
        path
    }

    /// Rotates the password of the static role now, as an operator does by hand.
    pub(crate) async fn rotate_static_role(&self) {
        self.vault.write(&format!("{}/rotate-role/fixed", self.mount), json!({})).await;
    }

    /// Changes the TTLs of the role; a lease feels it at its next renewal.
    pub(super) async fn retune(&mut self, db: &Database, ttl: &str, max_ttl: &str) {
        self.spec = self.spec.clone().ttl(ttl, max_ttl);
        self.write_role(db).await;
    }

    /// Puts the usual creation statements in place of those it was made with.
    pub(super) async fn recreate(&mut self, db: &Database) {
        self.spec.creation_statements = None;
        self.write_role(db).await;
    }

    async fn write_role(&self, db: &Database) {
        let statements =
            self.spec.creation_statements.as_deref().unwrap_or(CREATION).replace("{{owner}}", &db.owner());
        let role = json!({
            "db_name": "db",
            "default_ttl": self.spec.ttl,
            "max_ttl": self.spec.max_ttl,
            "creation_statements": [statements],
            "revocation_statements": ["DROP ROLE IF EXISTS \"{{name}}\";"],
        });
        self.vault.write(&format!("{}/roles/{}", self.mount, self.spec.role), role).await;
    }

    async fn write_login(&self) {
        let policy = format!(
            "path \"{}\" {{ capabilities = [\"read\"] }}
             path \"sys/leases/renew\" {{ capabilities = [\"update\"] }}
             {}",
            self.path, self.spec.policy
        );
        self.vault.write(&format!("sys/policies/acl/{}", self.id), json!({"policy": policy})).await;
        let enable = json!({"type": "approle"});
        // Tests that share a server may both be the first; the second is told that the path is in use.
        drop(
            self.vault.request(Method::POST, "sys/auth/approle", &self.vault.root_token, Some(enable)).await,
        );
        let login = format!("auth/approle/role/{}", self.id);
        let mut body = self.spec.token.clone();
        body["token_policies"] = json!([self.id]);
        self.vault.write(&login, body).await;
        let role_id = self.vault.read(&format!("{login}/role-id")).await["data"]["role_id"].clone();
        let secret_id =
            self.vault.write(&format!("{login}/secret-id"), json!({})).await["data"]["secret_id"].clone();
        write_secret(&self.directory.join("role_id"), role_id.as_str().unwrap());
        write_secret(&self.directory.join("secret_id"), secret_id.as_str().unwrap());
    }
}

/// The same server, reached by way of a forwarder.
pub(crate) fn through(vault: &Vault, fault: &Fault) -> Vault {
    Vault { addr: format!("http://{}", fault.addr()), ..vault.clone() }
}

fn write_secret(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

const CREATION: &str = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'
                          NOINHERIT IN ROLE \"{{owner}}\";
                        ALTER ROLE \"{{name}}\" SET role = '{{owner}}';";
