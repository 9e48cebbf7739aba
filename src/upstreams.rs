//! Where each route of a configuration leads. Floor 6.

use std::sync::Arc;

use crate::config::Config;
use crate::postgres::upstream::{self, Shared, Upstream, tls};

/// Why a route's upstream cannot be used. `place`: the route, and where its upstream was written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{place}")]
    File { place: String, source: tls::FileError },
}

/// Where each route leads, in their order. Blocks on the files that the URIs name.
///
/// # Errors
/// At the first that cannot be used.
pub(crate) fn build(config: &Config, shared: &Shared) -> Result<Vec<Arc<Upstream>>, Error> {
    config
        .routes
        .iter()
        .map(|route| {
            let place = || format!("route {}: {}", route.name, route.upstream.origin);
            let settings = upstream::Settings {
                connect_timeout: config.limits.connect_timeout,
                require_auth: route.require_auth.clone(),
                replica_grace: config.limits.replica_grace,
                shared: shared.clone(),
            };
            let upstream = Upstream::new(route.upstream.uri.clone(), settings);
            upstream.map(Arc::new).map_err(|source| Error::File { place: place(), source })
        })
        .collect()
}
