//! The path at which the credential of a role is read. Pure. Floor 2.

use std::fmt;

/// The path of a credential: `{mount}/creds/{role}` or `{mount}/static-creds/{role}`.
///
/// A mount has one or more segments, and the first segments of the path may be a namespace. Only the lease_id of the
/// reply shows whether they are ([`Lease`](super::Lease)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VaultPath {
    mount: String,
    kind: RoleKind,
    role: String,
}

/// The kind of a role of Vault's database secrets engine.
///
/// Source: <https://developer.hashicorp.com/vault/docs/secrets/databases>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoleKind {
    /// Each read creates a user with a lease.
    Dynamic,
    /// The user stays, and Vault changes its password.
    Static,
}

/// The reason why a text is not a [`VaultPath`]. It does not repeat the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// It contains a character that needs escaping in a URL.
    #[error("holds a character that cannot stand in a path of Vault")]
    Character,
    /// It contains an empty segment, `.` or `..`.
    #[error("has an empty segment, '.' or '..'")]
    Segment,
    /// It is the path of something else.
    #[error("neither <mount>/creds/<role> nor <mount>/static-creds/<role>")]
    Shape,
}

impl VaultPath {
    /// Parses a path. White space and slashes around it are ignored.
    ///
    /// # Errors
    /// See [`PathError`].
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        let text = segments(text)?;
        let (front, role) = text.rsplit_once('/').ok_or(PathError::Shape)?;
        let (mount, kind) = front.rsplit_once('/').ok_or(PathError::Shape)?;
        let kind = RoleKind::of_segment(kind).ok_or(PathError::Shape)?;
        Ok(Self { mount: mount.to_owned(), kind, role: role.to_owned() })
    }

    /// Whether the role is dynamic or static.
    #[must_use]
    pub(crate) fn kind(&self) -> RoleKind {
        self.kind
    }

    /// The name of the role.
    #[must_use]
    pub(crate) fn role(&self) -> &str {
        &self.role
    }

    /// The path of the dynamic role's definition; `None` for a static role. The least policy does not allow to read it.
    #[must_use]
    pub(crate) fn dynamic_role(&self) -> Option<String> {
        (self.kind == RoleKind::Dynamic).then(|| format!("{}/roles/{}", self.mount, self.role))
    }

    /// The path that rotates the password of a static role.
    #[must_use]
    pub(crate) fn rotate_role(&self) -> String {
        format!("{}/rotate-role/{}", self.mount, self.role)
    }

    /// The possible namespaces before the mount, which keeps at least one segment; the shortest first.
    pub(crate) fn possible_namespaces(&self) -> impl Iterator<Item = &str> {
        self.mount.match_indices('/').filter_map(|(at, _)| self.mount.get(..at))
    }
}

impl fmt::Display for VaultPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.mount, self.kind.segment(), self.role)
    }
}

impl RoleKind {
    /// The name in the status.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dynamic => "dynamic",
            Self::Static => "static",
        }
    }

    fn segment(self) -> &'static str {
        match self {
            Self::Dynamic => "creds",
            Self::Static => "static-creds",
        }
    }

    fn of_segment(segment: &str) -> Option<Self> {
        [Self::Dynamic, Self::Static].into_iter().find(|kind| kind.segment() == segment)
    }
}

/// Parses the segments of a URL path that needs no escaping. White space and slashes around it are removed.
///
/// # Errors
/// All errors except [`PathError::Shape`].
pub(crate) fn segments(text: &str) -> Result<&str, PathError> {
    let text = text.trim().trim_matches('/');
    let is_plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/' | b'@');
    if !text.bytes().all(is_plain) {
        return Err(PathError::Character);
    }
    if text.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        return Err(PathError::Segment);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> VaultPath {
        VaultPath::parse(text).unwrap()
    }

    #[test]
    fn a_path_has_a_mount_a_kind_and_a_role() {
        for (text, shown, kind, role) in [
            ("database/creds/app-role", "database/creds/app-role", RoleKind::Dynamic, "app-role"),
            (" /nested/mount/creds/app/ ", "nested/mount/creds/app", RoleKind::Dynamic, "app"),
            ("team/static-creds/creds/app", "team/static-creds/creds/app", RoleKind::Dynamic, "app"),
            ("team/a/db/static-creds/app", "team/a/db/static-creds/app", RoleKind::Static, "app"),
        ] {
            let path = path(text);
            assert_eq!((path.to_string().as_str(), path.kind(), path.role()), (shown, kind, role));
        }
        for (bad, error) in [
            ("", PathError::Segment),
            ("creds/app", PathError::Shape),
            ("app", PathError::Shape),
            ("database/roles/app", PathError::Shape),
            ("database/creds/app/more", PathError::Shape),
            ("database//creds/app", PathError::Segment),
            ("database/creds/..", PathError::Segment),
            ("database/creds/a?b", PathError::Character),
            ("database/creds/a b", PathError::Character),
        ] {
            assert_eq!(VaultPath::parse(bad), Err(error), "{bad}");
        }
    }

    #[test]
    fn other_paths_of_a_role_are_beside_it() {
        assert_eq!(path("team/db/creds/app").dynamic_role().as_deref(), Some("team/db/roles/app"));
        assert_eq!(path("db/static-creds/app").dynamic_role(), None);
        assert_eq!(path("x/static-creds/static-creds/app").rotate_role(), "x/static-creds/rotate-role/app");
    }

    #[test]
    fn all_but_the_last_segment_of_a_mount_may_be_a_namespace() {
        let path = path("ns1/sub/db/creds/app");
        assert_eq!(path.possible_namespaces().collect::<Vec<_>>(), ["ns1", "ns1/sub"]);
        assert_eq!(VaultPath::parse("db/creds/app").unwrap().possible_namespaces().count(), 0);
    }
}
