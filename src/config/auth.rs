//! `[vault.auth]`: how to log in. Floor 6.

use std::path::PathBuf;

use crate::files::FileSetting;
use crate::secret::Secret;
use crate::vault::{Auth, SecretId};

use super::error::{Error, Origin};
use super::key::{Key, Setting, Table};
use super::keys;
use super::method::Method;
use super::sources::{Found, Sources};
use super::values;

/// The method, and what it needs. Without `with_token` no token is read: nothing will be asked with it.
pub(super) fn merge(sources: &Sources<'_>, with_token: bool) -> Result<Auth, Error> {
    let method = sources.get(&keys::AUTH_METHOD)?;
    let reader = Reader { sources, method };
    reader.refuse_unread()?;
    match method {
        Method::Token => Ok(Auth::Token { token: if with_token { Some(token(sources)?) } else { None } }),
        Method::TokenFile => Ok(Auth::TokenFile { path: reader.needed(&keys::AUTH_TOKEN_FILE)?.into_file() }),
        Method::Kubernetes => {
            let file = sources.find(&keys::AUTH_JWT_FILE)?;
            Ok(Auth::Kubernetes {
                mount: reader.mount()?,
                role: reader.needed(&keys::AUTH_ROLE)?.value,
                jwt_file: file.map_or_else(service_account, Found::into_file),
            })
        }
        Method::Jwt => Ok(Auth::Jwt {
            mount: reader.mount()?,
            role: reader.needed(&keys::AUTH_ROLE)?.value,
            jwt_file: reader.needed(&keys::AUTH_JWT_FILE)?.into_file(),
        }),
        Method::AppRole => Ok(Auth::AppRole {
            mount: reader.mount()?,
            role_id: reader.needed(&keys::AUTH_ROLE_ID)?.value,
            secret_id: reader.secret_id()?,
        }),
        Method::Cert => Ok(Auth::Cert {
            mount: reader.mount()?,
            name: sources.find(&keys::AUTH_CERT_NAME)?.map(|found| found.value),
        }),
        Method::Userpass => Ok(Auth::Userpass {
            mount: reader.mount()?,
            username: reader.needed(&keys::AUTH_USERNAME)?.value,
            password_file: reader.needed(&keys::AUTH_PASSWORD_FILE)?.into_file(),
        }),
    }
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
    method: Method,
}

impl Reader<'_> {
    fn mount(&self) -> Result<String, Error> {
        let found = self.sources.find(&keys::AUTH_MOUNT)?;
        Ok(found.map_or_else(|| self.method.word().to_owned(), |found| found.value))
    }

    fn needed<T>(&self, key: &Key<T>) -> Result<Found<T>, Error> {
        self.sources.find(key)?.ok_or_else(|| Error::Missing {
            key: key.setting.path(),
            reason: format!("the method {} needs it", self.method.word()),
        })
    }

    fn secret_id(&self) -> Result<SecretId, Error> {
        let file = self.sources.find(&keys::AUTH_SECRET_ID_FILE)?.map(Found::into_file);
        match (self.wrapped()?, file) {
            (None, None) => Ok(SecretId::Absent),
            (None, Some(file)) => Ok(SecretId::File(file)),
            (Some(_), Some(file)) => {
                let role = self.sources.find(&keys::AUTH_ROLE)?.map(|found| found.value);
                Ok(SecretId::Wrapped { file, role })
            }
            (Some(wrapped), None) => {
                Err(Error::invalid(wrapped.origin, "needs vault.auth.secret_id_file with it"))
            }
        }
    }

    fn wrapped(&self) -> Result<Option<Found<bool>>, Error> {
        Ok(self.sources.find(&keys::AUTH_SECRET_ID_WRAPPED)?.filter(|found| found.value))
    }

    /// A key that the method does not read is a slip: `role` for `role_id` and the like. AppRole reads `role` only to
    /// check what a wrapped secret_id was made for.
    fn refuse_unread(&self) -> Result<(), Error> {
        let wrapped = self.method == Method::AppRole && self.wrapped()?.is_some();
        let reads = |setting: &Setting| {
            setting.name == "method" || self.method.reads(setting.name) || (wrapped && setting.name == "role")
        };
        let unread = keys::ALL.iter().filter(|setting| setting.table == Table::VaultAuth && !reads(setting));
        match unread.filter_map(|setting| Some((setting, self.sources.place(setting)?))).next() {
            Some((setting, origin)) => {
                let readers: Vec<_> =
                    Method::ALL.iter().filter(|method| method.reads(setting.name)).collect();
                let readers: Vec<_> = readers.iter().map(|method| method.word()).collect();
                let readers = readers.join(" or ");
                let reason = format!(
                    "the method {} does not read it; --{} names one that does: {readers}",
                    self.method.word(),
                    keys::AUTH_METHOD.setting.flag()
                );
                Err(Error::invalid(origin, reason))
            }
            None => Ok(()),
        }
    }
}

/// `BAO_TOKEN`, `VAULT_TOKEN`, then `~/.vault-token`.
fn token(sources: &Sources<'_>) -> Result<Secret, Error> {
    let secret = |text: &str| values::header_safe(text).map(Secret::new);
    if let Some(found) = sources.ambient("TOKEN", secret)? {
        return Ok(found.value);
    }
    let missing = || Error::Missing {
        key: "vault.auth.method".to_owned(),
        reason: "token: neither BAO_TOKEN nor VAULT_TOKEN nor ~/.vault-token holds one".to_owned(),
    };
    let path = PathBuf::from(sources.env.get("HOME").ok_or_else(missing)?).join(".vault-token");
    if !path.exists() {
        return Err(missing());
    }
    let text = FileSetting::new(path, "the token").secret().map_err(Error::File)?;
    secret(&text).map_err(|reason| Error::Missing {
        key: "vault.auth.method".to_owned(),
        reason: format!("token: ~/.vault-token {reason}"),
    })
}

fn service_account() -> FileSetting {
    FileSetting::new(SERVICE_ACCOUNT, Origin::Default("vault.auth.jwt_file".to_owned()))
}

/// Where Kubernetes mounts the service account's token.
///
/// Source: <https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/#directly-accessing-the-rest-api>
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
