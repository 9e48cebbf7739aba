//! Who may use a route: users and groups by number or name, names of certificates. Floor 6.

use std::fs;

use super::values::{self, Bad};
use crate::session::San;

/// A user or a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// By its number.
    Id(u32),
    /// By its name.
    Name(String),
}

/// The files that names of users and groups are looked up in. Both have the name in their first field and the number in
/// their third.
///
/// Sources: <https://man7.org/linux/man-pages/man5/passwd.5.html>, <https://man7.org/linux/man-pages/man5/group.5.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    Users,
    Groups,
}

impl Names {
    fn file(self) -> &'static str {
        match self {
            Self::Users => "/etc/passwd",
            Self::Groups => "/etc/group",
        }
    }

    /// The numbers of these owners.
    pub(super) fn resolve(self, owners: Vec<Owner>) -> Result<Vec<u32>, Bad> {
        let mut file = None;
        let id = |owner| match owner {
            Owner::Id(id) => Some(id),
            // A machine without the file has no name.
            Owner::Name(name) => {
                let text = file.get_or_insert_with(|| fs::read_to_string(self.file()).unwrap_or_default());
                id_of(text, &name)
            }
        };
        let ids: Option<Vec<u32>> = owners.into_iter().map(id).collect();
        ids.ok_or_else(|| Bad(format!("{} has no such name; write the number", self.file())))
    }
}

/// The number of a name in the text of such a file.
fn id_of(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':'));
    let mut fields = lines.find_map(|mut fields| (fields.next() == Some(name)).then_some(fields))?;
    fields.nth(1)?.parse().ok()
}

/// `1000,app`.
pub(super) fn owners(text: &str) -> Result<Vec<Owner>, Bad> {
    values::list(text).map(owner).collect()
}

fn owner(text: &str) -> Result<Owner, Bad> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        return text.parse().map(Owner::Id).map_err(|_| "a number beyond those of users and groups".into());
    }
    values::text(text).map(Owner::Name)
}

/// `spiffe://example/app`, `app.example`, `app@example`; or with the kind in front, as OpenSSL shows it: `DNS:app.example`.
pub(super) fn sans(text: &str) -> Result<Vec<San>, Bad> {
    values::list(text).map(san).collect()
}

fn san(text: &str) -> Result<San, Bad> {
    let named = |name: &str| values::header_safe(name);
    if text.contains('*') {
        return Err("a name is compared as a whole: '*' stands for nothing".into());
    }
    for (kind, make) in [("DNS:", San::Dns as fn(String) -> San), ("URI:", San::Uri), ("email:", San::Email)]
    {
        if let Some(name) = text.strip_prefix(kind) {
            return named(name).map(make);
        }
    }
    let make = match text {
        uri if uri.contains("://") => San::Uri,
        address if address.contains('@') => San::Email,
        _ => San::Dns,
    };
    named(text).map(make)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_numbers_or_names() {
        let name = |text: &str| Owner::Name(text.to_owned());
        assert_eq!(
            owners("0, 1000,app, 4294967295"),
            Ok(vec![Owner::Id(0), Owner::Id(1000), name("app"), Owner::Id(u32::MAX)])
        );
        assert!(owners("4294967296").is_err() && owners("").is_err() && owners("a,,b").is_err());
        assert_eq!(owners("-1"), Ok(vec![name("-1")]), "no name is a number below zero");
    }

    #[test]
    fn a_name_is_looked_up_by_its_whole_field() {
        let text = "root:x:0:0:root:/root:/bin/sh\n#app:x:1:1\napp2:x:7:7::/:\napp:x:1000:50::/:\nbroken\n";
        assert_eq!(id_of(text, "app"), Some(1000));
        assert_eq!(id_of(text, "root"), Some(0));
        for name in ["ap", "x", "broken", "", "App"] {
            assert_eq!(id_of(text, name), None, "{name}");
        }
    }

    #[test]
    fn a_name_of_a_certificate_says_its_kind_by_its_form() {
        let one = |text: &str| sans(text).map(|mut names| names.remove(0));
        let spiffe = San::Uri("spiffe://example/app".to_owned());
        assert_eq!(one("spiffe://example/app"), Ok(spiffe.clone()));
        assert_eq!(one("URI:spiffe://example/app"), Ok(spiffe));
        assert_eq!(one("app.example"), Ok(San::Dns("app.example".to_owned())));
        assert_eq!(one("URI:urn:app"), Ok(San::Uri("urn:app".to_owned())));
        assert_eq!(one("app@example"), Ok(San::Email("app@example".to_owned())));
        for wrong in ["", "a b", "DNS:", "*.example", "DNS:*.example", "spiffe://example/*"] {
            assert!(one(wrong).is_err(), "{wrong}");
        }
    }
}
