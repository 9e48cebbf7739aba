//! What a reply grants that cannot be used, so that it can be given back. It is looked for in the text, since the reply may be
//! cut, or contain a field that cannot be parsed.

use std::time::Duration;

use crate::secret::Secret;
use crate::vault::lease::{Lease, Leftover};

/// The lease in a creds reply from `path`.
pub(in crate::vault) fn leftover(body: &[u8], path: &str) -> Option<Leftover> {
    let lease_id: String = value_of(body, "lease_id").filter(|id: &String| !id.is_empty())?;
    let seconds: Option<f64> = value_of(body, "lease_duration");
    Some(Leftover {
        lease: Lease::new(lease_id, path),
        username: value_of(body, "username").unwrap_or_default(),
        ttl: seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    })
}

/// The token in a login's reply that cannot be used.
pub(in crate::vault) fn unused_token(body: &[u8]) -> Option<Secret> {
    value_of::<Secret>(body, "client_token").filter(|token| !token.same(&Secret::new(String::new())))
}

/// The first value of this key in a JSON text that may be incomplete.
fn value_of<T: serde::de::DeserializeOwned>(body: &[u8], key: &str) -> Option<T> {
    let key = format!("\"{key}\"");
    let at = body.windows(key.len()).position(|window| window == key.as_bytes())?;
    let rest = body.get(at + key.len()..)?.trim_ascii_start().strip_prefix(b":")?;
    // A number at the very end may continue in the missing part.
    let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<T>();
    let value = values.next()?.ok()?;
    (values.byte_offset() < rest.len()).then_some(value)
}
