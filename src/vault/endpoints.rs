//! The requests that vaultrs does not have, or whose replies it cuts short. Floor 2.
//!
//! They are built with the rest of vaultrs' requests and sent by our own transport. All need `X-Vault-Token`, except
//! health.

use rustify_derive::Endpoint;

/// Reads a credential, and with it makes a lease.
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

/// Reads a static role's password. No lease is made.
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

/// Renews a lease. No increment: a small one would shorten it.
///
/// * Path: `sys/leases/renew`
/// * Method: PUT
/// * Response: `lease_id`, `lease_duration`, `renewable`; no `data`
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/leases#renew-lease>
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/renew", method = "PUT")]
pub(super) struct RenewLease {
    pub(super) lease_id: String,
}

/// Revokes a lease. With `sync` the answer comes when it is done, so that its outcome is known.
///
/// * Path: `sys/leases/revoke`
/// * Method: PUT
/// * Response: none; 204 for an unknown lease as well
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/leases#revoke-lease>
#[derive(Endpoint)]
#[endpoint(path = "sys/leases/revoke", method = "PUT")]
pub(super) struct RevokeLease {
    pub(super) lease_id: String,
    pub(super) sync: bool,
}

/// Asks a node for its state, told by the status alone: 200, 429, 472, 473, 501, 503.
///
/// * Path: `sys/health`
/// * Method: GET
/// * Response: not read; OpenBao's lacks fields that vaultrs demands
/// * Reference: <https://developer.hashicorp.com/vault/api-docs/system/health#read-health-information>
#[derive(Endpoint)]
#[endpoint(path = "sys/health")]
pub(super) struct ReadHealth {}
