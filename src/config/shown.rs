//! The settings as they were written, for those who ask a running leasehold. Floor 6.

use super::error::Origin;
use super::key::{Setting, Table};
use super::keys;
use super::route::RouteConfig;
use super::sources::{Sources, Written};
use crate::console::ShownSetting;

/// Each setting of the process, and what was written for each route and listener. What identifies leasehold to Vault is not
/// shown, nor SQL.
pub(super) fn shown(sources: &Sources<'_>, routes: &[RouteConfig]) -> Vec<ShownSetting> {
    let built = || keys::ALL.iter().copied().filter(|setting| setting.is_built());
    let is_of_process = |table: Table| !table.is_route() && table != Table::Listener;
    let of_process = built().filter(move |setting| is_of_process(setting.table)).map(|setting| {
        let found = sources.written(setting).or_else(|| ambient(sources, setting));
        let (text, origin) = found.unwrap_or_else(|| (setting.default, Origin::Default(setting.path())));
        row(setting.path(), setting, text, &origin)
    });
    let tables = sources.routes();
    let place = |at: usize| tables.get(at).map_or(Written::ByFlags, Written::InFile);
    let of_routes = routes.iter().enumerate().flat_map(|(at, route)| {
        built().filter(|setting| setting.table.is_route()).filter_map(move |setting| {
            let (text, origin) = sources.written_of(place(at), setting)?;
            Some(row(format!("route.{}.{}", route.name, setting.name), setting, text, &origin))
        })
    });
    let of_listeners = sources.listeners().iter().enumerate().flat_map(|(at, listener)| {
        built().filter(|setting| setting.table == Table::Listener).filter_map(move |setting| {
            let (text, origin) = sources.written_of(Written::InFile(listener), setting)?;
            Some(row(format!("listener.{}.{}", at + 1, setting.name), setting, text, &origin))
        })
    });
    of_process.chain(of_routes).chain(of_listeners).collect()
}

/// The names that the `bao` and `vault` command lines have for settings of `[vault]`.
fn ambient<'a>(sources: &'a Sources<'_>, setting: &Setting) -> Option<(&'a str, Origin)> {
    let name = setting.name.to_ascii_uppercase().replace("CA_", "CA");
    if setting.table == Table::Vault { sources.ambient_text(&name) } else { None }
}

fn row(key: String, setting: &Setting, text: &str, origin: &Origin) -> ShownSetting {
    let hidden =
        [keys::AUTH_ROLE_ID.setting.path(), keys::PROBE_SQL.setting.path()].contains(&setting.path());
    let is_default = matches!(origin, Origin::Default(_));
    ShownSetting {
        key,
        value: if hidden && !is_default { "(set)".to_owned() } else { text.to_owned() },
        origin: match origin {
            Origin::Flag(name) | Origin::Env(name) => name.clone(),
            Origin::File { path, line, .. } => format!("{}:{line}", path.display()),
            Origin::Default(_) => "default".to_owned(),
        },
        on_reload: setting.on_reload(),
    }
}
