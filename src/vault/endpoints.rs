//! The requests that vaultrs lacks, or whose replies it does not return completely. Floor 2.
//!
//! They are built like vaultrs' own requests and sent by our transport. All need `X-Vault-Token`, except the login and
//! the health.

use rustify_derive::Endpoint;

/// Issues a credential, which creates a lease.
///
/// * Path: `{mount}/creds/{role}`, as configured
/// * Method: GET
/// * Response: `lease_id`, `lease_duration`, `renewable`, `data.username`, `data.password`
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/secret/databases#generate-credentials>
#[derive(Endpoint)]
#[endpoint(path = "{self.path}")]
pub(super) struct Creds {
    #[endpoint(skip)]
    pub(super) path: String,
}

/// Reads a static role's password. No lease is created.
///
/// * Path: `{mount}/static-creds/{role}`, as configured
/// * Method: GET
/// * Response: `data.username`, `data.password`, `data.ttl`
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/secret/databases#get-static-credentials>
#[derive(Endpoint)]
#[endpoint(path = "{self.path}")]
pub(super) struct StaticCreds {
    #[endpoint(skip)]
    pub(super) path: String,
}

/// Renews a lease. It sends no increment, since a small increment would shorten the lease.
///
/// * Path: `[{namespace}/]sys/leases/renew`
/// * Method: PUT
/// * Response: `lease_id`, `lease_duration`, `renewable`; no `data`
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/leases#renew-lease>
#[derive(Endpoint)]
#[endpoint(path = "{self.path}", method = "PUT")]
pub(super) struct RenewLease {
    #[endpoint(skip)]
    pub(super) path: String,
    pub(super) lease_id: String,
}

/// Reads a dynamic role.
///
/// * Path: `{mount}/roles/{role}`
/// * Method: GET
/// * Response: `data.max_ttl` in seconds; 0 if the mount's value applies
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/secret/databases#read-role>
#[derive(Endpoint)]
#[endpoint(path = "{self.path}")]
pub(super) struct ReadRole {
    #[endpoint(skip)]
    pub(super) path: String,
}

/// Reads the token's capabilities on some paths.
///
/// * Path: `sys/capabilities-self`
/// * Method: POST
/// * Response: `data` with a list of capabilities for each path
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/capabilities-self>
#[derive(Endpoint)]
#[endpoint(path = "sys/capabilities-self", method = "POST")]
pub(super) struct CapabilitiesSelf {
    pub(super) paths: Vec<String>,
}

/// Looks a lease up. The default policy allows it.
///
/// * Path: `[{namespace}/]sys/leases/lookup`
/// * Method: PUT
/// * Response: `data` with `expire_time`, `ttl`; 400 `invalid lease` if it does not exist
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/leases#read-lease>
#[derive(Endpoint)]
#[endpoint(path = "{self.path}", method = "PUT")]
pub(super) struct LookUpLease {
    #[endpoint(skip)]
    pub(super) path: String,
    pub(super) lease_id: String,
}

/// Revokes a lease. With `sync` the answer comes after the revocation, so that its outcome is known.
///
/// * Path: `[{namespace}/]sys/leases/revoke`
/// * Method: PUT
/// * Response: none; 204 for an unknown lease as well
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/leases#revoke-lease>
#[derive(Endpoint)]
#[endpoint(path = "{self.path}", method = "PUT")]
pub(super) struct RevokeLease {
    #[endpoint(skip)]
    pub(super) path: String,
    pub(super) lease_id: String,
    pub(super) sync: bool,
}

/// Logs in with the client certificate of the connection. vaultrs' request has a field that Vault does not read.
///
/// * Path: `auth/{mount}/login`
/// * Method: POST
/// * Response: `auth`
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/auth/cert#login-with-tls-certificate-method>
#[derive(Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST")]
pub(super) struct LogInByCertificate {
    #[endpoint(skip)]
    pub(super) mount: String,
    /// Empty: Vault tries each certificate role.
    pub(super) name: String,
}

/// Reads the state of a node from the status of the answer: 200, 429, 472, 473, 501, 503.
///
/// * Path: `sys/health`
/// * Method: GET
/// * Response: not read, since OpenBao's lacks fields that vaultrs requires
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/health#read-health-information>
#[derive(Endpoint)]
#[endpoint(path = "sys/health")]
pub(super) struct ReadHealth {}
