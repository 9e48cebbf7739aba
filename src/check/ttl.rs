//! Whether the spans of a route, its lease and its token can work together. Pure. Floor 6.

use std::time::Duration;

use humantime::format_duration;

use super::finding::Finding;
use crate::config::RouteConfig;
use crate::lease::schedule;
use crate::vault::TokenFacts;

/// The facts of a lease that was really issued.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lease {
    /// As issued.
    pub(super) ttl: Duration,
    /// The longest that it can be renewed to, counted from its issue; `None` where that could not be asked.
    pub(super) max: Option<Duration>,
    pub(super) renewable: bool,
}

/// The findings from the configuration alone.
pub(super) fn written(route: &RouteConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(after) = route.rotate_after.filter(|after| *after < SMALL) {
        findings.push(warning(
            format!("rotate_after is {}: each rotation makes a role and drops one", format_duration(after)),
            "set --rotate-after to half of the role's max_ttl or so, hours rather than seconds",
        ));
    }
    if let Some(age) = route.max_age.filter(|age| *age < SMALL) {
        findings.push(warning(
            format!("max_age is {}: a fresh role is made about as often", format_duration(age)),
            "set --max-age to hours, or leave it out and let max_ttl of the role decide",
        ));
    }
    if let (Some(drain), Some(after)) = (route.drain, route.rotate_after)
        && drain >= after
    {
        findings.push(warning(
            format!(
                "drain {} is not shorter than rotate_after {}",
                format_duration(drain),
                format_duration(after)
            ),
            "make --drain a small part of --rotate-after: sessions are closed during it",
        ));
    }
    findings.into_iter().map(|finding| finding.of(&route.name)).collect()
}

/// The findings from a real lease and its token.
pub(super) fn leased(
    route: &RouteConfig,
    lease: Lease,
    token: Option<&TokenFacts>,
    handed: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let usable = schedule::usable(lease.ttl, schedule::margin(lease.ttl));
    if usable < schedule::LEAST_USABLE {
        return vec![
            Finding::error(
                "ttl",
                format!(
                    "the lease has {}: less than 2s of it can be used, and it is given back",
                    text(lease.ttl)
                ),
                "raise default_ttl of the role, to 1h say",
            )
            .of(&route.name),
        ];
    }
    if lease.ttl < Duration::from_secs(10) {
        findings.push(warning(
            format!("the lease has {}, which leaves Vault no time to be away", text(lease.ttl)),
            "raise default_ttl of the role, to 1h say; under 10s is for tests",
        ));
    }
    if !lease.renewable {
        findings.push(warning(
            "the lease is not renewable: a fresh credential is issued at two thirds of each".to_owned(),
            "make the role's leases renewable, or choose default_ttl as long as the longest transaction needs",
        ));
    }
    findings.extend(lease.max.into_iter().flat_map(|max| capped(route, lease, max)));
    if let Some(drain) = route.drain.filter(|drain| *drain > usable / 4) {
        findings.push(warning(
            format!(
                "drain {} is cut to {}, a quarter of what the lease can be used",
                text(drain),
                text(usable / 4)
            ),
            "shorten drain (--drain), or raise default_ttl of the role",
        ));
    }
    if let Some(token) = token {
        findings.extend(owned(lease, token, handed));
    }
    findings.into_iter().map(|finding| finding.of(&route.name)).collect()
}

/// A lease is renewed up to `max`, counted from its issue.
fn capped(route: &RouteConfig, lease: Lease, max: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    if lease.renewable && max <= lease.ttl + schedule::CAP_SLACK {
        findings.push(warning(
            format!("max_ttl {} is no longer than the lease: it cannot be extended", text(max)),
            "raise max_ttl of the role (and of the mount) to several times default_ttl, such as 24h for 1h",
        ));
    }
    for (name, span) in [("rotate_after", route.rotate_after), ("max_age", route.max_age)] {
        if let Some(span) = span.filter(|span| *span >= max) {
            findings.push(warning(
                format!("{name} {} is not shorter than max_ttl {}, and has no effect", text(span), text(max)),
                "make it well shorter than max_ttl, or raise max_ttl of the role and of the mount",
            ));
        }
    }
    findings
}

fn warning(detail: String, remedy: &str) -> Finding {
    Finding::warning("ttl", detail, remedy)
}

/// A span in whole seconds.
fn text(span: Duration) -> String {
    format_duration(Duration::from_secs(span.as_secs())).to_string()
}

/// A lease dies with its token.
fn owned(lease: Lease, token: &TokenFacts, handed: bool) -> Option<Finding> {
    const PERIODIC: &str = "let the login give a periodic token, such as token_period=1h: it has no such end";
    let ttl = token.ttl?;
    let explicit = token.explicit_max_ttl.filter(|max| *max < lease.ttl);
    let detail = if token.batch {
        format!("the token is a batch token of {}: leases end with it, and are replaced before", text(ttl))
    } else if let Some(max) = explicit {
        format!(
            "explicit_max_ttl {} of the token is shorter than the lease {}, which ends with it",
            text(max),
            text(lease.ttl)
        )
    } else if !token.renewable && ttl < lease.ttl {
        format!(
            "the token ends in {} and cannot be renewed; its leases of {} end with it",
            text(ttl),
            text(lease.ttl)
        )
    } else if handed && token.period.is_none() {
        format!(
            "the token was handed over and is not periodic: nobody can ask for another when it ends, {} from now or at its maximum",
            text(ttl)
        )
    } else if ttl < Duration::from_secs(10) {
        format!("the token has {} at a time, which leaves Vault no time to be away", text(ttl))
    } else {
        return None;
    };
    Some(warning(detail, PERIODIC))
}

/// Below it making roles is most of what is done.
const SMALL: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Origin, UpstreamUri};
    use crate::postgres::protocol::auth::method::RequireAuth;
    use crate::postgres::upstream::uri::Uri;
    use crate::session::{Access, Match};
    use crate::vault::VaultPath;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn route() -> RouteConfig {
        RouteConfig {
            name: "app".to_owned(),
            user: Match::Any,
            access: Access::default(),
            database: Match::Any,
            upstream: UpstreamUri {
                uri: Uri::parse("postgresql://db/").unwrap(),
                origin: Origin::Default(String::new()),
            },
            vault_path: VaultPath::parse("db/creds/app").unwrap(),
            rotate_after: None,
            max_age: None,
            drain: None,
            set_role: None,
            probe_database: None,
            probe_sql: None,
            max_sessions: 0,
            logins_per_second: 0,
            warm: 0,
            reuse: false,
            tag_application_name: false,
            lazy: false,
            standby: false,
            idle_after: secs(300),
            require_auth: RequireAuth::default(),
        }
    }

    fn lease(ttl: u64, max: u64) -> Lease {
        Lease { ttl: secs(ttl), max: Some(secs(max)), renewable: true }
    }

    const PERIODIC: TokenFacts = TokenFacts {
        ttl: Some(secs(3_600)),
        renewable: true,
        batch: false,
        num_uses: 0,
        period: Some(secs(3_600)),
        explicit_max_ttl: None,
        orphan: true,
    };

    fn details(route: &RouteConfig, lease: Lease, token: &TokenFacts, handed: bool) -> Vec<String> {
        leased(route, lease, Some(token), handed).into_iter().map(|finding| finding.detail).collect()
    }

    #[track_caller]
    fn only(found: &[String], wanted: &str) {
        assert!(found.len() == 1 && found[0].contains(wanted), "{found:?}, not {wanted}");
    }

    #[test]
    fn what_the_documentation_recommends_is_well() {
        assert_eq!(details(&route(), lease(3_600, 86_400), &PERIODIC, true), Vec::<String>::new());
        assert_eq!(written(&route()), []);
    }

    #[test]
    fn a_lease_that_is_too_short_is_told() {
        only(&details(&route(), lease(9, 600), &PERIODIC, false), "no time to be away");
        only(&details(&route(), lease(4, 600), &PERIODIC, false), "it is given back");
    }

    #[test]
    fn a_lease_that_cannot_be_extended_is_told() {
        only(&details(&route(), lease(60, 60), &PERIODIC, false), "max_ttl 1m is no longer than the lease");
        let fixed = Lease { renewable: false, ..lease(60, 60) };
        only(&details(&route(), fixed, &PERIODIC, false), "not renewable");
    }

    #[test]
    fn spans_of_the_route_that_have_no_effect_are_told() {
        let late = RouteConfig { rotate_after: Some(secs(90_000)), ..route() };
        only(&details(&late, lease(3_600, 86_400), &PERIODIC, false), "rotate_after 1day 1h is not shorter");
        let long = RouteConfig { drain: Some(secs(1_800)), ..route() };
        only(&details(&long, lease(3_600, 86_400), &PERIODIC, false), "drain 30m is cut to 14m");
    }

    #[test]
    fn spans_that_the_file_alone_shows_to_be_wrong_are_told() {
        let busy = RouteConfig {
            rotate_after: Some(secs(5)),
            max_age: Some(secs(20)),
            drain: Some(secs(6)),
            ..route()
        };
        assert_eq!(written(&busy).len(), 3);
    }

    #[test]
    fn a_token_that_takes_its_leases_along_is_told() {
        let long = lease(3_600, 86_400);
        let batch = TokenFacts { batch: true, renewable: false, ..PERIODIC };
        only(&details(&route(), long, &batch, false), "batch token");
        let capped = TokenFacts { explicit_max_ttl: Some(secs(600)), ..PERIODIC };
        only(&details(&route(), long, &capped, false), "explicit_max_ttl 10m");
        let fixed = TokenFacts { renewable: false, ttl: Some(secs(60)), ..PERIODIC };
        only(&details(&route(), long, &fixed, false), "ends in 1m");
        let handed = TokenFacts { period: None, ..PERIODIC };
        only(&details(&route(), long, &handed, true), "handed over");
        assert!(details(&route(), long, &handed, false).is_empty(), "it can log in again");
        let short = TokenFacts { ttl: Some(secs(8)), ..PERIODIC };
        only(&details(&route(), long, &short, false), "8s at a time");
    }
}
