//! Routes that never get a credential, beside one that does: what Vault refuses one route must cost the others nothing.

use super::leasehold::Metrics;
use super::vault::Setup;

/// What the login may do beside its own: ask for a role that is not there.
pub(crate) const POLICY: &str = "path \"+/creds/missing\" { capabilities = [\"read\"] }\n";

/// A configuration with the route `app` of this setup, to which `keys` belong, and two broken ones: `missing` is a role that
/// Vault does not have, `forbidden` a path that the policy does not allow.
pub(crate) fn beside(setup: &Setup, upstream: impl std::fmt::Display, keys: &str) -> String {
    let route = |name: &str, path: &str, keys: &str| {
        format!(
            "[[route]]\nname = '{name}'\nuser = '{name}'\nvault_path = '{path}'\n\
             upstream = 'postgresql://{upstream}/?sslmode=disable'\n{keys}"
        )
    };
    route("app", &setup.path, keys)
        + &route("missing", &format!("{}/creds/missing", setup.mount()), "")
        + &route("forbidden", &format!("{}/creds/forbidden", setup.mount()), "")
}

/// Both were asked for, and refused.
pub(crate) fn were_refused(metrics: &Metrics) {
    for route in ["missing", "forbidden"] {
        let refused = metrics.get("issuances_total", &[("route", route), ("outcome", "refused")]);
        assert!(refused > 0.0, "{route}: {refused}");
    }
}
