//! Parses Vault's replies leniently: unknown fields are ignored, missing fields get a default. Floor 2.
//!
//! Secrets are read directly into a [`Secret`]. An error of the parser is dropped, since it may quote the text.

mod unused;

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::lease::Lease;
use crate::secret::Secret;
pub(super) use unused::{leftover, unused_token};

/// A credential and its lease.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) username: String,
    pub(crate) password: Secret,
    pub(crate) lease: Lease,
    /// `lease_duration` in whole seconds, from the sending of the request. The owning token may end earlier.
    pub(crate) ttl: Duration,
    /// Whether the lease can be renewed; it stays true until the lease's last second.
    pub(crate) renewable: bool,
}

/// The password of a static role.
#[derive(Clone, Debug)]
pub(crate) struct StaticCredential {
    pub(crate) username: String,
    pub(crate) password: Secret,
    /// The time until Vault's next rotation, from the sending of the request. The rotation may be some seconds later.
    pub(crate) ttl: Duration,
}

/// A lease or token after its renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewed {
    /// The TTL from the sending of the request; zero for a token without an end.
    pub(crate) ttl: Duration,
    /// Whether it may be renewed again.
    pub(crate) renewable: bool,
}

/// The properties of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TokenFacts {
    /// The TTL from the sending of the request. `None`: the token does not expire.
    pub(crate) ttl: Option<Duration>,
    /// Whether the token can be renewed.
    pub(crate) renewable: bool,
    /// A batch token can be neither renewed nor revoked.
    pub(crate) batch: bool,
    /// The remaining uses; 0 = without limit.
    pub(crate) num_uses: u64,
    /// The TTL that each renewal gives to a periodic token, which has no maximum TTL.
    pub(crate) period: Option<Duration>,
    /// The maximum TTL, from the token's creation. No renewal exceeds it.
    pub(crate) explicit_max_ttl: Option<Duration>,
    /// Whether the token outlives its parent token.
    pub(crate) orphan: bool,
}

/// The fields of the envelope that each reply has.
#[derive(Deserialize)]
pub(super) struct Envelope<T> {
    #[serde(default)]
    lease_id: Option<String>,
    #[serde(default)]
    lease_duration: Option<Seconds>,
    #[serde(default)]
    renewable: Option<bool>,
    #[serde(default = "nothing")]
    data: Option<T>,
    #[serde(default)]
    auth: Option<AuthReply>,
}

fn nothing<T>() -> Option<T> {
    None
}

/// `auth` of a login or of a token's renewal.
#[derive(Deserialize)]
pub(super) struct AuthReply {
    #[serde(default)]
    pub(super) client_token: Option<Secret>,
    #[serde(default)]
    lease_duration: Option<Seconds>,
    #[serde(default)]
    renewable: Option<bool>,
    #[serde(default)]
    token_type: Option<String>,
    #[serde(default)]
    num_uses: Option<u64>,
}

/// `data` of a creds reply. Other credential types have none of these fields.
#[derive(Deserialize)]
struct CredsData {
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<Secret>,
    /// Only for a static role; zero or less from the time of a rotation until it has happened.
    #[serde(default)]
    ttl: Option<i64>,
}

/// `data` of lookup-self, without the token that the reply repeats.
#[derive(Deserialize)]
struct LookUpData {
    #[serde(default)]
    ttl: Option<Seconds>,
    #[serde(default)]
    expire_time: Option<String>,
    #[serde(default)]
    renewable: Option<bool>,
    #[serde(default, rename = "type")]
    token_type: Option<String>,
    #[serde(default)]
    num_uses: Option<u64>,
    #[serde(default)]
    period: Option<Seconds>,
    #[serde(default)]
    explicit_max_ttl: Option<Seconds>,
    #[serde(default)]
    orphan: Option<bool>,
}

/// The capabilities of a token on each of some paths. If one path was requested, `data` also has a list under
/// `capabilities`.
pub(super) type Capabilities = std::collections::BTreeMap<String, Vec<String>>;
/// `data` of a looked-up wrapping token.
#[derive(Deserialize)]
struct WrappingData {
    #[serde(default)]
    creation_path: Option<String>,
}

/// `data` of an unwrapped secret_id.
#[derive(Deserialize)]
struct SecretIdData {
    #[serde(default)]
    secret_id: Option<Secret>,
}

/// The body of an error. Vault's own always has this list, which may be empty.
#[derive(Deserialize)]
struct Errors {
    #[serde(deserialize_with = "list")]
    errors: Vec<String>,
}

/// Parses a list that must be present; null is an empty list.
fn list<'de, D: Deserializer<'de>>(reply: D) -> Result<Vec<String>, D::Error> {
    Option::deserialize(reply).map(Option::unwrap_or_default)
}

/// The keys that identify a successful reply as Vault's: each reply with a body has at least one of them.
#[derive(Deserialize)]
struct Shape {
    request_id: Option<Unread>,
    lease_id: Option<Unread>,
    data: Option<Unread>,
    auth: Option<Unread>,
    wrap_info: Option<Unread>,
    warnings: Option<Unread>,
}

/// `data` of a dynamic role.
#[derive(Deserialize)]
struct RoleData {
    #[serde(default)]
    max_ttl: Seconds,
}

/// The keys that identify a health answer as Vault's.
#[derive(Deserialize)]
struct HealthShape {
    #[serde(rename = "sealed")]
    _sealed: bool,
}

/// `data` that is not parsed.
type Unread = serde::de::IgnoredAny;

/// Vault's `errors`. `None`: the body is not Vault's, but comes from a server on the way.
pub(super) fn errors(body: &[u8]) -> Option<Vec<String>> {
    serde_json::from_slice::<Errors>(body).ok().map(|reply| reply.errors)
}

/// Whether a successful answer is Vault's: it has no body (204), or Vault's JSON.
pub(super) fn is_success(status: u16, body: &[u8]) -> bool {
    match serde_json::from_slice::<Shape>(body) {
        Ok(reply) => {
            let keys =
                [reply.request_id, reply.lease_id, reply.data, reply.auth, reply.wrap_info, reply.warnings];
            keys.iter().any(Option::is_some)
        }
        Err(_) => status == 204 && body.is_empty(),
    }
}

/// Whether a health answer is Vault's, whatever its status.
pub(super) fn is_health(body: &[u8]) -> bool {
    serde_json::from_slice::<HealthShape>(body).is_ok()
}

/// Parses a creds reply from `path`. The error says what is missing.
pub(super) fn grant(body: &[u8], path: &str) -> Result<Grant, Unusable> {
    let reply: Envelope<CredsData> = parse(body)?;
    let lease_id = reply.lease_id.filter(|id| !id.is_empty()).ok_or(Unusable::NoLease)?;
    let data = reply.data.ok_or(Unusable::NoPassword)?;
    let (Some(username), Some(password)) = (data.username, data.password) else {
        return Err(Unusable::NoPassword);
    };
    Ok(Grant {
        username,
        password,
        lease: Lease::new(lease_id, path),
        ttl: seconds(reply.lease_duration),
        renewable: reply.renewable.unwrap_or(false),
    })
}

/// Parses a static role's reply. The error says what is missing.
pub(super) fn static_credential(body: &[u8]) -> Result<StaticCredential, Unusable> {
    let reply: Envelope<CredsData> = parse(body)?;
    let data = reply.data.ok_or(Unusable::NoPassword)?;
    let (Some(username), Some(password)) = (data.username, data.password) else {
        return Err(Unusable::NoPassword);
    };
    let ttl = u64::try_from(data.ttl.unwrap_or(0)).unwrap_or(0);
    if ttl > MOST_SECONDS {
        return Err(Unusable::OtherShape);
    }
    Ok(StaticCredential { username, password, ttl: Duration::from_secs(ttl) })
}

/// Parses the reply to a lease renewal.
pub(super) fn renewed(body: &[u8]) -> Result<Renewed, Unusable> {
    let reply: Envelope<Unread> = parse(body)?;
    Ok(Renewed {
        ttl: reply.lease_duration.ok_or(Unusable::NoSpan)?.span(),
        renewable: reply.renewable.unwrap_or(false),
    })
}

/// Parses a dynamic role.
pub(super) fn role_max_ttl(body: &[u8]) -> Result<Option<Duration>, Unusable> {
    let role = parse::<Envelope<RoleData>>(body)?.data.ok_or(Unusable::NotJson)?;
    Ok(Some(role.max_ttl.span()).filter(|max| !max.is_zero()))
}

/// Parses a token's capabilities.
pub(super) fn capabilities(body: &[u8]) -> Result<Capabilities, Unusable> {
    parse::<Envelope<Capabilities>>(body)?.data.ok_or(Unusable::NotJson)
}

/// Parses the reply to a token renewal.
pub(super) fn renewed_token(body: &[u8]) -> Result<Renewed, Unusable> {
    let auth = login(body)?;
    Ok(Renewed { ttl: seconds(auth.lease_duration), renewable: auth.renewable.unwrap_or(false) })
}

/// Parses the reply to a login. Without a `lease_duration` the token would be taken for one that has no end.
pub(super) fn login(body: &[u8]) -> Result<AuthReply, Unusable> {
    let auth = parse::<Envelope<Unread>>(body)?.auth.ok_or(Unusable::NoToken)?;
    if auth.lease_duration.is_none() { Err(Unusable::NoSpan) } else { Ok(auth) }
}

/// Parses a looked-up token.
pub(super) fn token_facts(body: &[u8]) -> Result<TokenFacts, Unusable> {
    let reply: Envelope<LookUpData> = parse(body)?;
    let data = reply.data.ok_or(Unusable::NotJson)?;
    let span = |number: Option<Seconds>| number.map(Seconds::span).filter(|span| !span.is_zero());
    Ok(TokenFacts {
        ttl: span(Some(data.ttl.ok_or(Unusable::NoSpan)?))
            .or_else(|| data.expire_time.map(|_| Duration::ZERO)),
        renewable: data.renewable.unwrap_or(false),
        batch: data.token_type.as_deref() == Some("batch"),
        num_uses: data.num_uses.unwrap_or(0),
        period: span(data.period),
        explicit_max_ttl: span(data.explicit_max_ttl),
        orphan: data.orphan.unwrap_or(false),
    })
}

/// The path of the request that made a wrapping token.
pub(super) fn creation_path(body: &[u8]) -> Result<String, Unusable> {
    let reply: Envelope<WrappingData> = parse(body)?;
    reply.data.and_then(|data| data.creation_path).ok_or(Unusable::NotJson)
}

/// Parses an unwrapped secret_id.
pub(super) fn secret_id(body: &[u8]) -> Result<Secret, Unusable> {
    let reply: Envelope<SecretIdData> = parse(body)?;
    reply.data.and_then(|data| data.secret_id).ok_or(Unusable::NoSecretId)
}

impl AuthReply {
    /// The token's properties by the login's reply itself. A `lease_duration` of 0 means no end.
    pub(super) fn facts(&self) -> TokenFacts {
        TokenFacts {
            ttl: self.lease_duration.map(Seconds::span).filter(|span| !span.is_zero()),
            renewable: self.renewable.unwrap_or(false),
            batch: self.token_type.as_deref() == Some("batch"),
            num_uses: self.num_uses.unwrap_or(0),
            period: None,
            explicit_max_ttl: None,
            orphan: false,
        }
    }
}

/// The reason why a successful reply cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    NotJson,
    OtherShape,
    NoLease,
    NoPassword,
    NoToken,
    NoSpan,
    NoSecretId,
}

impl Unusable {
    /// Whether the request of such a creds reply may have made a credential.
    pub(super) fn may_have_made(self) -> bool {
        !matches!(self, Self::NoLease)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::NotJson => "the reply is not what Vault sends",
            Self::OtherShape => "a field of the reply is not of the kind that Vault sends",
            Self::NoLease => "the reply has no lease_id: this path does not make dynamic credentials",
            Self::NoPassword => {
                "the reply has no username and password: other credential types are not supported"
            }
            Self::NoToken => "the reply has no token",
            Self::NoSpan => "the reply does not say how long what it grants lives",
            Self::NoSecretId => "what was wrapped holds no secret_id",
        }
    }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Unusable> {
    serde_json::from_slice(body)
        .map_err(|error| if error.is_data() { Unusable::OtherShape } else { Unusable::NotJson })
}

fn seconds(number: Option<Seconds>) -> Duration {
    number.unwrap_or_default().span()
}

/// A whole number of seconds, not negative, and at most [`MOST_SECONDS`].
#[derive(Clone, Copy, Default)]
struct Seconds(u64);

impl Seconds {
    fn span(self) -> Duration {
        Duration::from_secs(self.0)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(reply: D) -> Result<Self, D::Error> {
        let seconds = u64::deserialize(reply)?;
        if seconds > MOST_SECONDS {
            return Err(serde::de::Error::custom("more seconds than Vault can count"));
        }
        Ok(Self(seconds))
    }
}

/// Vault counts spans in nanoseconds, in 63 bits: 292 years. A reply with more would keep a credential for ever.
///
/// Source: <https://pkg.go.dev/time#Duration>
const MOST_SECONDS: u64 = i64::MAX.unsigned_abs() / 1_000_000_000;

#[cfg(test)]
mod tests;
