//! What the start says: how Vault is logged in to, which routes there are, and where clients connect once they can.
//! Floor 6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;
use url::form_urlencoded;

use crate::config::{Config, RouteConfig};
use crate::credentials::Route;
use crate::policy;
use crate::session::Match;
use crate::socket::Address;
use crate::vault::Vault;

/// One line for the login, one for each route. Nothing secret is among them, nor what a login is known by.
pub(super) fn say_what_is_served(config: &Config) {
    let vault = &config.vault;
    let addrs: Vec<String> = vault.addrs.iter().map(ToString::to_string).collect();
    let identity = vault.auth.identity();
    let mut words = identity.split(' ');
    let (method, mount) = (words.next().unwrap_or_default(), words.next());
    tracing::info!(
        vault.addr = addrs.join(","),
        vault.namespace = vault.namespace,
        auth.method = method,
        auth.mount = mount,
        "logs in to Vault"
    );
    for route in &config.routes {
        tracing::info!(
            route = route.name,
            user = name(&route.user),
            database = name(&route.database),
            upstream = hosts(route),
            vault.path = %route.vault_path,
            set_role = route.set_role,
            lazy = route.lazy.then_some(true),
            "serves a route"
        );
    }
}

/// Says what the policy does not allow, as soon as Vault is logged in to. It is asked for people alone: a fleet of sidecars
/// has `leasehold check` for that, and need not ask at each start.
pub(super) async fn say_what_is_not_allowed(config: Config, vault: Arc<Vault>) {
    if !config.log.is_for_people() {
        return;
    }
    let Ok(token) = vault.next_token().await else { return };
    let rules = policy::rules(&config);
    let paths = rules.iter().map(|rule| rule.path.clone()).collect();
    // A policy that does not let it ask says nothing.
    let Ok(capabilities) = vault.capabilities(&token, paths, config.vault.client_timeout).await else {
        return;
    };
    let handed = policy::is_handed(&config.vault.auth);
    for rule in rules.iter().filter(|rule| rule.matters(handed)) {
        let may = capabilities.get(&rule.path).is_some_and(|words| rule.is_among(words));
        if !may {
            tracing::warn!(
                vault.path = rule.path,
                capability = rule.capability,
                purpose = rule.purpose,
                "the policy does not allow it; `leasehold policy` prints one that does"
            );
        }
    }
}

/// Says of each route, once, where its clients connect: as soon as they get in, or at once of a lazy one.
pub(super) async fn say_when_ready(places: Vec<(Arc<Route>, String)>) {
    let waiting: JoinSet<()> = places.into_iter().map(|(route, place)| say_place(route, place)).collect();
    waiting.join_all().await;
}

async fn say_place(route: Arc<Route>, place: String) {
    if route.is_lazy() {
        tracing::info!(route = route.name(), "ready: {place} (its first session waits for a credential)");
        return;
    }
    while !gives_sessions(&route) {
        if route.has_ended() {
            return;
        }
        sleep(LOOK_EVERY).await;
    }
    tracing::info!(route = route.name(), "ready: {place}");
}

/// Whether a session gets in, as far as is known: a URL whose database is missing is no place to connect to.
fn gives_sessions(route: &Route) -> bool {
    route.is_ready() && route.status().upstream_error.is_none()
}

/// What an app of each route writes as its DATABASE_URL, as far as it is known here.
pub(super) fn places(config: &Config, listening: &[Address]) -> Vec<String> {
    let address =
        listening.iter().find(|address| matches!(address, Address::Tcp(_))).or_else(|| listening.first());
    let place = |route| address.map_or_else(String::new, |address| place(route, address));
    config.routes.iter().map(place).collect()
}

fn place(route: &RouteConfig, address: &Address) -> String {
    let user = match &route.user {
        Match::Any => "app".to_owned(),
        Match::Only(user) => escaped(user),
    };
    let database = match (&route.database, &route.upstream.uri.database) {
        (Match::Only(database), _) => escaped(database),
        (Match::Any, Some(database)) => escaped(database.as_bytes()),
        (Match::Any, None) => "<database>".to_owned(),
    };
    match address {
        Address::Tcp(address) if is_localhost(address.ip()) => {
            format!("postgresql://{user}@localhost:{}/{database}", address.port())
        }
        Address::Tcp(address) => format!("postgresql://{user}@{address}/{database}"),
        Address::Unix(path) => {
            let directory = path.parent().map(|path| path.display().to_string()).unwrap_or_default();
            let port = path.extension().map(|port| port.to_string_lossy().into_owned()).unwrap_or_default();
            format!("postgresql://{user}@/{database}?host={directory}&port={port}")
        }
    }
}

/// Whether `localhost` leads there.
fn is_localhost(ip: IpAddr) -> bool {
    ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST
}

/// A name as a URI has it.
fn escaped(name: &[u8]) -> String {
    form_urlencoded::byte_serialize(name).collect::<String>().replace('+', "%20")
}

fn name(name: &Match) -> String {
    match name {
        Match::Any => "*".to_owned(),
        Match::Only(name) => String::from_utf8_lossy(name).into_owned(),
    }
}

fn hosts(route: &RouteConfig) -> String {
    let hosts: Vec<String> = route.upstream.uri.hosts.iter().map(ToString::to_string).collect();
    hosts.join(",")
}

/// How often a route that is not ready yet is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, RunFlags};

    /// Where the clients of the only route of this file connect.
    fn place_of(route: &str, listening: &str) -> String {
        let path = std::env::temp_dir().join(format!("leasehold-greeting-{}.toml", std::process::id()));
        std::fs::write(&path, format!("[[route]]\nvault_path = \"database/creds/app\"\n{route}\n")).unwrap();
        let config = Config::load_without_token(&RunFlags::of_file(&path), &Environment::default()).unwrap();
        let listening = match listening.strip_prefix("unix:") {
            Some(path) => Address::Unix(path.into()),
            None => Address::Tcp(listening.parse().unwrap()),
        };
        places(&config, &[Address::Unix("/run/.s.PGSQL.1".into()), listening]).remove(0)
    }

    #[test]
    fn a_place_is_what_an_app_can_write() {
        let any = "upstream = \"postgresql://db/\"";
        let place = |listening| place_of(any, listening);
        assert_eq!(place("127.0.0.1:6432"), "postgresql://app@localhost:6432/<database>");
        assert_eq!(place("[::]:6432"), "postgresql://app@localhost:6432/<database>");
        assert_eq!(place("10.0.0.1:5432"), "postgresql://app@10.0.0.1:5432/<database>");
        assert_eq!(place("unix:/run/.s.PGSQL.2"), "postgresql://app@/<database>?host=/run&port=1");
        let named = "upstream = \"postgresql://db/orders\"\nuser = \"a b\"";
        assert_eq!(place_of(named, "127.0.0.1:1"), "postgresql://a%20b@localhost:1/orders");
        let both = "upstream = \"postgresql://db/\"\nuser = \"x\"\ndatabase = \"y\"";
        assert_eq!(place_of(both, "127.0.0.1:1"), "postgresql://x@localhost:1/y");
    }
}
