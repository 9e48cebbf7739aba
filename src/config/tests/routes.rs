//! Routes: from the file and from flags, their defaults, and what each needs. Floor 6.

use super::*;

#[test]
fn a_static_role_is_neither_lazy_nor_has_one_to_stand_by() {
    let at = |flag: &str| {
        let path = "--vault-path=database/static-creds/app";
        complaint(load("", &["--upstream=postgresql://db:5432/", path, flag], &[]))
    };
    assert_eq!(at("--lazy"), "--lazy: a static role is never lazy");
    assert_eq!(at("--standby"), "--standby: a static role has one password, so nothing can stand by");
    let table =
        "[[route]]\nupstream = 'postgresql://h/'\nvault_path = 'database/static-creds/app'\nstandby = true\n";
    assert_eq!(
        complaint(load(table, &[], &[])),
        "FILE:4: route.standby: a static role has one password, so nothing can stand by"
    );
    assert!(load_route(&["--standby"], &[]).unwrap().routes[0].standby);
}

#[test]
fn probe_sql_needs_a_database_of_its_own() {
    let why =
        "probe_sql needs the database that it is meant for: write probe_database, or a database in upstream";
    let sql = ["--probe-sql", "SELECT 1"];
    let refused = load_route(&sql, &[]).unwrap_err();
    assert_eq!(refused.exit_code(), 78);
    assert_eq!(refused.to_string(), format!("--probe-sql: {why}"));
    let by_env = load_route(&[], &[("LEASEHOLD_PROBE_SQL", "SELECT 1")]);
    assert_eq!(complaint(by_env), format!("LEASEHOLD_PROBE_SQL: {why}"));
    let route = |upstream: &str| {
        format!("[[route]]\nupstream = \"{upstream}\"\nvault_path = \"database/creds/app\"\n")
    };
    let own = route("postgresql://db/") + "probe_sql = \"SELECT 1\"\n";
    assert_eq!(complaint(load(&own, &[], &[])), format!("FILE:4: route.probe_sql: {why}"));
    let default = "[defaults]\nprobe_sql = \"SELECT 1\"\n";
    let inherited = default.to_owned() + &route("postgresql://db/");
    assert_eq!(complaint(load(&inherited, &[], &[])), format!("FILE:2: defaults.probe_sql: {why}"));

    load_route(&["--probe-sql", "SELECT 1", "--probe-database", "app"], &[]).unwrap();
    let named = default.to_owned() + &route("postgresql://db/app");
    load(&named, &[], &[]).unwrap();
}

const TWO: &str = "\
[defaults]
drain = '2m'
[[route]]
name = 'readonly'
user = 'readonly'
upstream = 'postgresql://replica/'
vault_path = 'database/creds/readonly-role'
drain = '1m'
[[route]]
user = 'app'
database = 'shop'
upstream = 'postgresql://primary/'
vault_path = '/nested/mount/creds/app-role/'
set_role = 'app_owner'
max_sessions = 7
require_auth = 'scram-sha-256'
";

#[test]
fn routes_keep_their_order_and_stand_on_the_defaults() {
    let config = load(TWO, &[], &[]).unwrap();
    assert_eq!(config.routes[0].name, "readonly");
    assert_eq!(config.routes[0].drain, Some(Duration::from_secs(60)));
    assert_eq!(config.routes[1].name, "app-role");
    assert_eq!(config.routes[1].drain, Some(Duration::from_secs(120)));
    assert_eq!(config.routes[1].vault_path.to_string(), "nested/mount/creds/app-role");
    assert_eq!(config.routes[1].max_sessions, 7);
    assert_eq!(config.routes[0].require_auth, RequireAuth::default());
    assert_eq!(config.routes[1].require_auth, "scram-sha-256".parse().unwrap());
}

#[test]
fn several_routes_need_a_user_each_and_differ() {
    let with = |from: &str, to: &str| complaint(load(&TWO.replace(from, to), &[], &[]));
    assert_eq!(
        with("user = 'app'\n", ""),
        "FILE:9: route.user: with several routes each needs the user that it is for, or \"*\""
    );
    assert_eq!(
        with("user = 'app'\ndatabase = 'shop'", "user = 'readonly'"),
        "FILE:9: route.user: routes readonly and app-role have the same user and database"
    );
    assert_eq!(
        with("name = 'readonly'", "name = 'app-role'"),
        "FILE:9: route.name: there are two routes named app-role"
    );
}

#[test]
fn a_route_by_flags_and_one_by_file_exclude_each_other() {
    let by_flag = load(TWO, &["--drain=1m"], &[]).unwrap_err();
    assert_eq!(by_flag.exit_code(), 64);
    assert!(by_flag.to_string().starts_with("--drain: "), "{by_flag}");
    let by_env = load(TWO, &[], &[("LEASEHOLD_UPSTREAM", "postgresql://x/")]).unwrap_err();
    assert_eq!(by_env.exit_code(), 64);
    assert!(by_env.to_string().starts_with("LEASEHOLD_UPSTREAM: "), "{by_env}");
}

#[test]
fn a_route_by_flags_stands_on_the_defaults_of_the_file() {
    let config =
        load("[defaults]\ndrain = '3m'\nmax_age = '1h'\n", &[&ROUTE[..], &["--drain=1m"]].concat(), &[]);
    let route = &config.unwrap().routes[0];
    assert_eq!(route.drain, Some(Duration::from_secs(60)));
    assert_eq!(route.max_age, Some(Duration::from_secs(3_600)));
}

#[test]
fn a_route_is_needed_and_each_of_its_halves() {
    assert!(complaint(load("", &[], &[])).starts_with("upstream: is needed: --upstream, LEASEHOLD_UPSTREAM"));
    assert!(complaint(load("", &ROUTE[..2], &[])).starts_with("vault_path: is needed"));
    assert_eq!(
        complaint(load("[[route]]\nupstream = 'postgresql://x/'\n", &[], &[])),
        "FILE:1: route.vault_path: is needed in each [[route]]"
    );
}

#[test]
fn a_path_that_leads_to_no_credential_is_refused_by_its_line() {
    let refused = |path: &str| {
        let file = format!("[[route]]\nupstream = 'postgresql://db/'\nvault_path = '{path}'\n");
        complaint(load(&file, &[], &[]))
    };
    assert_eq!(
        refused("database/roles/app"),
        "FILE:3: route.vault_path: neither <mount>/creds/<role> nor <mount>/static-creds/<role>"
    );
    assert_eq!(refused("a//creds/x"), "FILE:3: route.vault_path: has an empty segment, '.' or '..'");
}

#[test]
fn ages_fit_together() {
    assert_eq!(
        complaint(load_route(&["--max-age=1h", "--drain=1h"], &[])),
        "--drain: drain is not shorter than max_age"
    );
    assert!(load_route(&["--max-age=1h", "--rotate-after=2h"], &[]).is_err());
    assert!(Cli::try_parse_from(["leasehold", "run", "--rotate-after=0s"]).is_err());
}

#[test]
fn a_password_in_the_upstream_is_refused_and_not_repeated() {
    let refused =
        load("", &["--upstream=postgresql://app:hunter2@db/", "--vault-path=db/creds/x"], &[]).unwrap_err();
    assert!(refused.to_string().starts_with("--upstream: "), "{refused}");
    assert!(!format!("{refused} {refused:?}").contains("hunter2"));
}
