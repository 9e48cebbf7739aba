//! Routes: by flags and variables, or in the file. Floor 6.

use std::time::Duration;

use super::access::{Names, Owner};
use super::error::{Error, Origin};
use super::file::Repeated;
use super::key::{Key, Setting};
use super::route::{RouteConfig, UpstreamUri};
use super::sources::{Found, Sources, Written};
use super::values::{self, Bad};
use super::{keys, listener};
use crate::postgres::upstream::uri::Uri;
use crate::session::Access;
use crate::vault::{RoleKind, VaultPath};

/// The routes of the file, or the one of flags and environment.
pub(super) fn merge(sources: &Sources<'_>) -> Result<Vec<RouteConfig>, Error> {
    if let Some(origin) = sources.default_of(keys::NAME.setting) {
        return Err(Error::invalid(origin, "a name is unique, so it is no default"));
    }
    let tables = sources.routes();
    if tables.is_empty() {
        return Reader { sources, written: Written::ByFlags }.route(missing).map(|route| vec![route]);
    }
    if let Some(origin) = first_given(sources) {
        return Err(Error::Usage {
            origin,
            reason: "a route by flags or environment does not go together with [[route]] in the file"
                .to_owned(),
        });
    }
    let mut routes: Vec<RouteConfig> = Vec::with_capacity(tables.len());
    for table in tables {
        let route = in_file(sources, table, tables.len() == 1)?;
        let refuse = |key, reason| Err(Error::invalid(sources.place_of(table, key), reason));
        if routes.iter().any(|other| other.name == route.name) {
            return refuse("name", format!("there are two routes named {}", route.name));
        }
        let same = |other: &&RouteConfig| other.user == route.user && other.database == route.database;
        if let Some(other) = routes.iter().find(same) {
            return refuse(
                "user",
                format!("routes {} and {} have the same user and database", other.name, route.name),
            );
        }
        routes.push(route);
    }
    Ok(routes)
}

/// A `[[route]]`; what it lacks is taken from `[defaults]`.
fn in_file(sources: &Sources<'_>, table: &Repeated, alone: bool) -> Result<RouteConfig, Error> {
    let reader = Reader { sources, written: Written::InFile(table) };
    if !alone && reader.find(&keys::USER)?.is_none() {
        return Err(Error::invalid(
            sources.place_of(table, "user"),
            "with several routes each needs the user that it is for, or \"*\"",
        ));
    }
    reader
        .route(|setting| Error::invalid(sources.place_of(table, setting.name), "is needed in each [[route]]"))
}

/// Reads one route.
struct Reader<'a> {
    sources: &'a Sources<'a>,
    written: Written<'a>,
}

impl Reader<'_> {
    fn find<T>(&self, key: &Key<T>) -> Result<Option<Found<T>>, Error> {
        self.sources.find_of(self.written, key)
    }

    fn get<T>(&self, key: &Key<T>) -> Result<Option<T>, Error> {
        Ok(self.find(key)?.map(|found| found.value))
    }

    fn get_or_default<T>(&self, key: &Key<T>) -> Result<T, Error> {
        self.sources.get_of(self.written, key)
    }

    /// `lacks` is the error that a setting is missing.
    fn route(&self, lacks: impl Fn(&Setting) -> Error) -> Result<RouteConfig, Error> {
        let upstream = self.find(&keys::UPSTREAM)?.ok_or_else(|| lacks(keys::UPSTREAM.setting))?;
        let vault_path = self.find(&keys::VAULT_PATH)?.ok_or_else(|| lacks(keys::VAULT_PATH.setting))?;
        let (rotate_after, max_age, drain) =
            (self.find(&keys::ROTATE_AFTER)?, self.find(&keys::MAX_AGE)?, self.find(&keys::DRAIN)?);
        shorter_than(max_age.as_ref(), rotate_after.as_ref(), "rotate_after")?;
        shorter_than(max_age.as_ref(), drain.as_ref(), "drain")?;
        let probe_database = self.get(&keys::PROBE_DATABASE)?;
        let probe_sql =
            in_its_database(self.find(&keys::PROBE_SQL)?, probe_database.as_deref(), &upstream.value)?;
        let lazy = self.find(&keys::LAZY)?;
        let standby = self.find(&keys::STANDBY)?;
        Ok(RouteConfig {
            name: match self.get(&keys::NAME)? {
                Some(name) => name,
                None => default_name(&vault_path)?,
            },
            user: self.get_or_default(&keys::USER)?,
            database: self.get_or_default(&keys::DATABASE)?,
            access: self.access()?,
            upstream: UpstreamUri { uri: upstream.value, origin: upstream.origin },
            rotate_after: rotate_after.map(|found| found.value),
            max_age: max_age.map(|found| found.value),
            drain: drain.map(|found| found.value),
            set_role: self.get(&keys::SET_ROLE)?,
            probe_database,
            probe_sql,
            max_sessions: self.get_or_default(&keys::MAX_SESSIONS)?,
            logins_per_second: self.get_or_default(&keys::LOGINS_PER_SECOND)?,
            warm: self.get_or_default(&keys::WARM)?,
            reuse: self.get(&keys::REUSE)?.unwrap_or_default(),
            tag_application_name: self.get(&keys::TAG_APPLICATION_NAME)?.unwrap_or_default(),
            lazy: of_a_dynamic_role(lazy, vault_path.value.kind(), "is never lazy")?,
            idle_after: self.get_or_default(&keys::IDLE_AFTER)?,
            standby: of_a_dynamic_role(
                standby,
                vault_path.value.kind(),
                "has one password, so nothing can stand by",
            )?,
            require_auth: self.get(&keys::REQUIRE_AUTH)?.unwrap_or_default(),
            vault_path: vault_path.value,
        })
    }

    fn access(&self) -> Result<Access, Error> {
        let [uids, gids] = [self.find(&keys::ALLOW_UIDS)?, self.find(&keys::ALLOW_GIDS)?];
        let sans = self.find(&keys::CLIENT_SAN)?;
        if let Some(found) = uids.as_ref().or(gids.as_ref())
            && !listener::listens_on_unix(self.sources)?
        {
            let reason = "needs a Unix socket in listen: over TCP nobody knows the user of a client";
            return Err(Error::invalid(found.origin.clone(), reason));
        }
        if let Some(found) = &sans
            && self.sources.place(keys::TLS_CLIENT_CA_FILE.setting).is_none()
        {
            let reason = "needs tls.client_ca_file: without it clients show no certificate";
            return Err(Error::invalid(found.origin.clone(), reason));
        }
        Ok(Access {
            uids: ids(Names::Users, uids)?,
            gids: ids(Names::Groups, gids)?,
            sans: sans.map(|found| found.value).unwrap_or_default(),
        })
    }
}

/// The numbers of users or groups that are written; none where nothing is.
fn ids(names: Names, found: Option<Found<Vec<Owner>>>) -> Result<Vec<u32>, Error> {
    let Some(Found { value, origin }) = found else { return Ok(Vec::new()) };
    names.resolve(value).map_err(|Bad(reason)| Error::invalid(origin, reason))
}

/// The first route flag or variable that is given.
fn first_given(sources: &Sources<'_>) -> Option<Origin> {
    let of_routes = keys::ALL.iter().filter(|setting| setting.table.is_route());
    of_routes.filter_map(|setting| sources.given(setting)).map(|(_, origin)| origin).next()
}

/// A static role has one password. It costs nothing to read ahead, as Vault keeps it anyway.
fn of_a_dynamic_role(found: Option<Found<bool>>, kind: RoleKind, why: &str) -> Result<bool, Error> {
    let Some(found) = found.filter(|found| found.value) else { return Ok(false) };
    match kind {
        RoleKind::Dynamic => Ok(true),
        RoleKind::Static => Err(Error::invalid(found.origin, format!("a static role {why}"))),
    }
}

/// Where no database is named, a credential is proved in one that a client has chosen, and there a statement that is meant
/// for the app's own database says nothing.
fn in_its_database(
    probe_sql: Option<Found<String>>,
    probe_database: Option<&str>,
    upstream: &Uri,
) -> Result<Option<String>, Error> {
    let Some(found) = probe_sql else { return Ok(None) };
    if probe_database.is_none() && upstream.database.is_none() {
        return Err(Error::invalid(
            found.origin,
            "probe_sql needs the database that it is meant for: write probe_database, or a database in upstream",
        ));
    }
    Ok(Some(found.value))
}

fn shorter_than(
    max_age: Option<&Found<Duration>>,
    span: Option<&Found<Duration>>,
    name: &str,
) -> Result<(), Error> {
    match (max_age, span) {
        (Some(max_age), Some(span)) if span.value >= max_age.value => {
            Err(Error::invalid(span.origin.clone(), format!("{name} is not shorter than max_age")))
        }
        _ => Ok(()),
    }
}

fn default_name(vault_path: &Found<VaultPath>) -> Result<String, Error> {
    values::route_name(vault_path.value.role()).map_err(|Bad(reason)| {
        Error::invalid(
            vault_path.origin.clone(),
            format!("its last segment is the route's name: {reason}; write a name"),
        )
    })
}

fn missing(setting: &Setting) -> Error {
    Error::Missing {
        key: setting.path(),
        reason: format!(
            "is needed: --{}, {}, or a [[route]] in the file",
            setting.flag(),
            setting.variable()
        ),
    }
}
