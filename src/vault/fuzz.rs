//! Replies of any bytes to any request. Floor 2.

use super::classify::classify;
use super::failure::Failure;
use super::operation::Operation;
use super::outcome;
use super::transport::Reply;
use super::{Address, VaultPath, replies};
use crate::secret::Secret;

const TOKEN: &str = "hvs.a-token-of-ours";
const PATH: &str = "database/creds/app";
pub(super) const OPERATIONS: [Operation; 10] = [
    Operation::LogIn,
    Operation::Issue,
    Operation::Renew,
    Operation::RenewToken,
    Operation::LookUp,
    Operation::LookUpLease,
    Operation::Revoke,
    Operation::RevokeToken,
    Operation::Capabilities,
    Operation::Health,
];

/// The first byte chooses the request, the next two are the status, and the rest is the body.
pub(crate) fn reply(data: &[u8]) {
    let Some(([choice, high, low], body)) = data.split_first_chunk() else { return };
    let Some(operation) = OPERATIONS.get(usize::from(*choice) % OPERATIONS.len()) else { return };
    let status = 100 + u16::from_be_bytes([*high, *low]) % 500;
    let reply = Reply { status, retry_after: None, date: None, body: body.to_vec().into() };
    let is_vaults = outcome::is_vaults(*operation, &reply);
    let errors = replies::errors(body);
    let kind = classify(*operation, status, errors.as_deref(), "v-app");
    let said = errors.unwrap_or_default();
    let token = Secret::new(TOKEN.to_owned());
    let failure =
        Failure::answered(*operation, kind, status, said.first().map_or("", String::as_str), &[&token])
            .at(PATH);
    for text in [failure.to_string(), failure.reason(), failure.summary()] {
        assert!(!text.contains(TOKEN), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(text.chars().count() < 400, "{text}");
    }
    let result = Ok(reply);
    let _ = (outcome::standing(*operation, &result), outcome::about(*operation, &result));
    read(body);
    assert!(!is_vaults || status == 204 || !body.is_empty(), "an empty body is nobody's");
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = (Address::parse(text).is_ok(), VaultPath::parse(text).is_ok());
    }
}

/// All that a body may be read as. Whatever is granted can be given back.
fn read(body: &[u8]) {
    let left = replies::leftover(body, PATH);
    match replies::grant(body, PATH) {
        Ok(grant) => assert!(!grant.lease.id().is_empty()),
        Err(why) => assert!(!why.as_str().is_empty()),
    }
    assert!(left.is_none_or(|left| !left.lease.id().is_empty()));
    if let Ok(login) = replies::login(body) {
        let _ = login.facts();
    }
    let _ = (replies::static_credential(body).is_ok(), replies::renewed(body).is_ok());
    let _ = (replies::renewed_token(body).is_ok(), replies::token_facts(body).is_ok());
    let _ = (replies::role_max_ttl(body).is_ok(), replies::capabilities(body).is_ok());
    let _ = (replies::creation_path(body).is_ok(), replies::secret_id(body).is_ok());
    let _ = replies::is_health(body);
}
