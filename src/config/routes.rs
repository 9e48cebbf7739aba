//! Where routes are written: by flags and environment, or in the file. Floor 6.

use std::time::Duration;

use toml::Spanned;

use super::error::{Error, Origin};
use super::file;
use super::flags::RouteFlags;
use super::merge::{Found, Sources, env_name, flag_name, parsed};
use super::route::{Match, Pattern, RouteConfig, UpstreamUri, validate_upstream};
use super::values::{self, Bad};
use crate::credentials::Kind;
use crate::postgres::protocol::auth::method::RequireAuth;
use crate::postgres::upstream::uri::Uri;

/// The routes of the file, or the one of flags and environment.
pub(super) fn merge(sources: &Sources<'_>, flags: &RouteFlags) -> Result<Vec<RouteConfig>, Error> {
    let reader = Reader { sources };
    let defaults = &sources.file.defaults;
    reader.refuse_unbuilt(defaults)?;
    if let Some(name) = &defaults.name {
        return Err(Error::invalid(
            sources.place(name, Some("defaults.name")),
            "a name is unique, so it is no default",
        ));
    }
    let tables = &sources.file.route;
    if tables.is_empty() {
        return reader.by_flags(flags).map(|route| vec![route]);
    }
    if let Some(origin) = reader.first_flag(flags) {
        return Err(Error::Usage {
            origin,
            reason: "a route by flags or environment does not go together with [[route]] in the file"
                .to_owned(),
        });
    }
    let mut routes: Vec<RouteConfig> = Vec::with_capacity(tables.len());
    for table in tables {
        let route = reader.by_table(table, tables.len() == 1)?;
        let place = |key| sources.place(table, Some(key));
        if routes.iter().any(|other| other.name == route.name) {
            return Err(Error::invalid(
                place("route.name"),
                format!("there are two routes named {}", route.name),
            ));
        }
        if let Some(other) = routes.iter().find(|other| other.matching == route.matching) {
            return Err(Error::invalid(
                place("route.user"),
                format!("routes {} and {} have the same user and database", other.name, route.name),
            ));
        }
        routes.push(route);
    }
    Ok(routes)
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
}

impl Reader<'_> {
    /// The route of flags and environment; `[defaults]` stands below them.
    fn by_flags(&self, flags: &RouteFlags) -> Result<RouteConfig, Error> {
        let (sources, file) = (self.sources, &self.sources.file.defaults);
        // Not read by clap, which would repeat a password in its error.
        let upstream = sources
            .pick("upstream", flags.upstream.as_ref(), file.upstream.as_ref(), values::text)?
            .map(|found| parsed(&found.value, found.origin, validate_upstream))
            .transpose()?;
        let vault_path = sources.pick(
            "vault_path",
            flags.vault_path.as_ref(),
            file.vault_path.as_ref(),
            values::vault_path,
        )?;
        let ages = Ages {
            rotate_after: sources.pick(
                "rotate_after",
                flags.rotate_after.as_ref(),
                file.rotate_after.as_ref(),
                values::span,
            )?,
            max_age: sources.pick("max_age", flags.max_age.as_ref(), file.max_age.as_ref(), values::span)?,
            drain: sources.pick("drain", flags.drain.as_ref(), file.drain.as_ref(), values::duration)?,
        };
        ages.check()?;
        let probe_sql =
            sources.pick("probe_sql", flags.probe_sql.as_ref(), file.probe_sql.as_ref(), values::sql)?;
        let probe_database = sources.value(
            "probe_database",
            flags.probe_database.as_ref(),
            file.probe_database.as_ref(),
            values::text,
        )?;
        let upstream = upstream.ok_or_else(|| missing("upstream"))?;
        let probe_sql = in_its_database(probe_sql, probe_database.as_deref(), &upstream.value)?;
        let vault_path = vault_path.ok_or_else(|| missing("vault_path"))?;
        Ok(RouteConfig {
            name: default_name(&vault_path)?,
            matching: Match {
                user: self.of_file("user", &file.user, Pattern::parse)?.unwrap_or(Pattern::Any),
                database: self.of_file("database", &file.database, Pattern::parse)?.unwrap_or(Pattern::Any),
            },
            upstream: UpstreamUri { text: upstream.value, origin: upstream.origin },
            rotate_after: ages.rotate_after.map(|found| found.value),
            max_age: ages.max_age.map(|found| found.value),
            drain: ages.drain.map(|found| found.value),
            set_role: sources.value(
                "set_role",
                flags.set_role.as_ref(),
                file.set_role.as_ref(),
                values::text,
            )?,
            probe_database,
            probe_sql,
            max_sessions: sources.pick_or(
                "max_sessions",
                flags.max_sessions.as_ref(),
                file.max_sessions.as_ref(),
                values::count,
                0,
            )?,
            lazy: sources
                .pick("lazy", flags.lazy.as_ref(), file.lazy.as_ref(), values::boolean)?
                .map_or(Ok(false), |found| fits_kind(found, &vault_path.value, "is never lazy"))?,
            idle_after: sources.pick_or(
                "idle_after",
                flags.idle_after.as_ref(),
                file.idle_after.as_ref(),
                values::span,
                IDLE_AFTER,
            )?,
            standby: sources
                .pick("standby", flags.standby.as_ref(), file.standby.as_ref(), values::boolean)?
                .map_or(Ok(false), |found| fits_kind(found, &vault_path.value, NO_STANDBY))?,
            vault_path: vault_path.value,
            require_auth: sources.pick_or(
                "require_auth",
                flags.require_auth.as_ref(),
                file.require_auth.as_ref(),
                values::require_auth,
                RequireAuth::default(),
            )?,
        })
    }

    /// A `[[route]]`; what it lacks is taken from `[defaults]`.
    fn by_table(&self, table: &Spanned<file::Route>, alone: bool) -> Result<RouteConfig, Error> {
        let (route, defaults) = (table.as_ref(), &self.sources.file.defaults);
        self.refuse_unbuilt(route)?;
        let lacks = |key: &str| {
            Error::invalid(
                self.sources.place(table, Some(&format!("route.{key}"))),
                "is needed in each [[route]]",
            )
        };
        let upstream = self
            .either("upstream", &route.upstream, &defaults.upstream, validate_upstream)?
            .ok_or_else(|| lacks("upstream"))?;
        let vault_path = self
            .either("vault_path", &route.vault_path, &defaults.vault_path, values::vault_path)?
            .ok_or_else(|| lacks("vault_path"))?;
        let user = self.either("user", &route.user, &defaults.user, Pattern::parse)?;
        if user.is_none() && !alone {
            return Err(Error::invalid(
                self.sources.place(table, Some("route.user")),
                "with several routes each needs the user that it is for, or \"*\"",
            ));
        }
        let ages = Ages {
            rotate_after: self.either(
                "rotate_after",
                &route.rotate_after,
                &defaults.rotate_after,
                values::span,
            )?,
            max_age: self.either("max_age", &route.max_age, &defaults.max_age, values::span)?,
            drain: self.either("drain", &route.drain, &defaults.drain, values::duration)?,
        };
        ages.check()?;
        let value = |key, own, default, parse: fn(&str) -> Result<String, Bad>| {
            Ok(self.either(key, own, default, parse)?.map(|found| found.value))
        };
        let probe_database =
            value("probe_database", &route.probe_database, &defaults.probe_database, values::text)?;
        Ok(RouteConfig {
            name: match self.of_file("route.name", &route.name, values::route_name)? {
                Some(name) => name,
                None => default_name(&vault_path)?,
            },
            matching: Match {
                user: user.map_or(Pattern::Any, |found| found.value),
                database: self
                    .either("database", &route.database, &defaults.database, Pattern::parse)?
                    .map_or(Pattern::Any, |found| found.value),
            },
            rotate_after: ages.rotate_after.map(|found| found.value),
            max_age: ages.max_age.map(|found| found.value),
            drain: ages.drain.map(|found| found.value),
            set_role: value("set_role", &route.set_role, &defaults.set_role, values::text)?,
            probe_sql: in_its_database(
                self.either("probe_sql", &route.probe_sql, &defaults.probe_sql, values::sql)?,
                probe_database.as_deref(),
                &upstream.value,
            )?,
            probe_database,
            upstream: UpstreamUri { text: upstream.value, origin: upstream.origin },
            max_sessions: self
                .either_number("max_sessions", &route.max_sessions, &defaults.max_sessions)?
                .unwrap_or(0),
            lazy: self
                .either_bool("lazy", &route.lazy, &defaults.lazy)
                .map_or(Ok(false), |found| fits_kind(found, &vault_path.value, "is never lazy"))?,
            idle_after: self
                .either("idle_after", &route.idle_after, &defaults.idle_after, values::span)?
                .map_or(IDLE_AFTER, |found| found.value),
            standby: self
                .either_bool("standby", &route.standby, &defaults.standby)
                .map_or(Ok(false), |found| fits_kind(found, &vault_path.value, NO_STANDBY))?,
            vault_path: vault_path.value,
            require_auth: self
                .either("require_auth", &route.require_auth, &defaults.require_auth, values::require_auth)?
                .map(|found| found.value)
                .unwrap_or_default(),
        })
    }

    fn either_bool(
        &self,
        key: &str,
        own: &Option<Spanned<bool>>,
        default: &Option<Spanned<bool>>,
    ) -> Option<Found<bool>> {
        let value = own.as_ref().or(default.as_ref())?;
        let origin = self.sources.place(value, Some(&format!("route.{key}")));
        Some(Found { value: *value.as_ref(), origin })
    }

    fn either<T>(
        &self,
        key: &str,
        own: &Option<Spanned<String>>,
        default: &Option<Spanned<String>>,
        parse: fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<Found<T>>, Error> {
        let (table, value) = match (own, default) {
            (Some(own), _) => ("route", own),
            (None, Some(default)) => ("defaults", default),
            (None, None) => return Ok(None),
        };
        let origin = self.sources.place(value, Some(&format!("{table}.{key}")));
        parsed(value.as_ref(), origin, parse).map(Some)
    }

    fn either_number(
        &self,
        key: &str,
        own: &Option<Spanned<u32>>,
        default: &Option<Spanned<u32>>,
    ) -> Result<Option<usize>, Error> {
        let Some(value) = own.as_ref().or(default.as_ref()) else {
            return Ok(None);
        };
        let origin = self.sources.place(value, Some(&format!("route.{key}")));
        parsed(&value.as_ref().to_string(), origin, values::count).map(|found| Some(found.value))
    }

    fn of_file<T>(
        &self,
        key: &str,
        value: &Option<Spanned<String>>,
        parse: fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = value else { return Ok(None) };
        let origin = self.sources.place(value, Some(key));
        parsed(value.as_ref(), origin, parse).map(|found| Some(found.value))
    }

    /// The first route flag or variable that is set.
    fn first_flag(&self, flags: &RouteFlags) -> Option<Origin> {
        let given = [
            ("upstream", flags.upstream.is_some()),
            ("vault_path", flags.vault_path.is_some()),
            ("rotate_after", flags.rotate_after.is_some()),
            ("max_age", flags.max_age.is_some()),
            ("drain", flags.drain.is_some()),
            ("set_role", flags.set_role.is_some()),
            ("probe_database", flags.probe_database.is_some()),
            ("probe_sql", flags.probe_sql.is_some()),
            ("max_sessions", flags.max_sessions.is_some()),
            ("lazy", flags.lazy.is_some()),
            ("idle_after", flags.idle_after.is_some()),
            ("standby", flags.standby.is_some()),
            ("require_auth", flags.require_auth.is_some()),
        ];
        given.into_iter().find_map(|(key, set)| {
            if set {
                return Some(Origin::Flag(flag_name(key)));
            }
            let variable = env_name(key);
            self.sources.env.get(&variable)?;
            Some(Origin::Env(variable))
        })
    }

    fn refuse_unbuilt(&self, route: &file::Route) -> Result<(), Error> {
        self.sources.refuse_keys([
            ("warm", &route.warm),
            ("reuse", &route.reuse),
            ("tag_application_name", &route.tag_application_name),
            ("route.vault", &route.vault),
        ])
    }
}

/// A static role has one password. It costs nothing to read ahead, as Vault keeps it anyway.
fn fits_kind(found: Found<bool>, vault_path: &str, why: &str) -> Result<bool, Error> {
    if found.value && Kind::of_path(vault_path) == Kind::Static {
        return Err(Error::invalid(found.origin, format!("a static role {why}")));
    }
    Ok(found.value)
}

/// Where no database is named, a credential is proved in one that a client has chosen, and there a statement that is meant
/// for the app's own database says nothing.
fn in_its_database(
    probe_sql: Option<Found<String>>,
    probe_database: Option<&str>,
    upstream: &str,
) -> Result<Option<String>, Error> {
    let Some(found) = probe_sql else { return Ok(None) };
    let of_upstream = Uri::parse(upstream).ok().and_then(|uri| uri.database);
    if probe_database.is_none() && of_upstream.is_none() {
        return Err(Error::invalid(
            found.origin,
            "probe_sql needs the database that it is meant for: write probe_database, or a database in upstream",
        ));
    }
    Ok(Some(found.value))
}

const NO_STANDBY: &str = "has one password, so nothing can stand by";

/// A route used by fits and starts keeps its credential over a coffee.
const IDLE_AFTER: Duration = Duration::from_mins(5);

/// The three spans that must fit together.
struct Ages {
    rotate_after: Option<Found<Duration>>,
    max_age: Option<Found<Duration>>,
    drain: Option<Found<Duration>>,
}

impl Ages {
    fn check(&self) -> Result<(), Error> {
        let Some(max_age) = &self.max_age else {
            return Ok(());
        };
        for (span, name) in [(&self.rotate_after, "rotate_after"), (&self.drain, "drain")] {
            if let Some(span) = span
                && span.value >= max_age.value
            {
                return Err(Error::invalid(
                    span.origin.clone(),
                    format!("{name} is not shorter than max_age"),
                ));
            }
        }
        Ok(())
    }
}

fn default_name(vault_path: &Found<String>) -> Result<String, Error> {
    let role = vault_path.value.rsplit('/').next().unwrap_or("");
    values::route_name(role).map_err(|reason| {
        Error::invalid(
            vault_path.origin.clone(),
            format!("its last segment is the route's name: {reason}; write a name"),
        )
    })
}

fn missing(key: &str) -> Error {
    Error::Missing {
        key: key.to_owned(),
        reason: format!("is needed: {}, {}, or a [[route]] in the file", flag_name(key), env_name(key)),
    }
}
