//! The environment, as a value. Floor 6.

use std::collections::BTreeMap;
use std::fmt;

use super::known;

/// The variables that leasehold reads, taken once. Tests make their own.
///
/// Holds tokens: it has no Debug of its content.
#[derive(Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// What this process was started with. A variable that is not UTF-8 counts as absent.
    #[must_use]
    pub(crate) fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The variables of leasehold's own that no setting reads, each with the one that may have been meant.
    pub(super) fn unknown(&self) -> Vec<(String, Option<String>)> {
        let known = known::variables();
        let ours = self.0.iter().filter(|(name, value)| name.starts_with("LEASEHOLD_") && !value.is_empty());
        let strange = ours.map(|(name, _)| name).filter(|name| !known.contains(*name));
        let strange = strange.filter(|name| !known::is_of_kubernetes(name));
        let meant = |name| known::nearest(name, known.iter().map(String::as_str)).map(str::to_owned);
        strange.map(|name| (name.clone(), meant(name))).collect()
    }

    /// Whether a terminal may be sent colours: `NO_COLOR` is not set, and it is not a dumb one.
    ///
    /// Source: <https://no-color.org/>
    #[must_use]
    pub(crate) fn wants_colours(&self) -> bool {
        self.get("NO_COLOR").is_none() && self.get("TERM").is_none_or(|term| term != "dumb")
    }

    /// A variable; an empty one counts as absent.
    #[must_use]
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl FromIterator<(String, String)> for Environment {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let ours = |name: &str| {
            OTHERS.contains(&name)
                || ["LEASEHOLD_", "BAO_", "VAULT_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix))
        };
        Self(variables.into_iter().filter(|(name, _)| ours(name)).collect())
    }
}

/// Variables that are not leasehold's own, nor Vault's.
const OTHERS: [&str; 6] = ["HOME", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "NO_COLOR", "TERM"];

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}
