//! `[vault]`, with what the `bao` and `vault` command lines take from the environment. Floor 6.

use std::time::Duration;

use crate::files::FileSetting;
use crate::vault::{Auth, Config};

use super::Warning;
use super::auth;
use super::error::{Error, Origin};
use super::flags::VaultFlags;
use super::merge::{Found, Sources, parsed};
use super::values::{self, Bad};

/// The configuration of the vault module, and what should be said of it at start.
pub(super) fn merge(sources: &Sources<'_>, flags: &VaultFlags) -> Result<(Config, Vec<Warning>), Error> {
    let reader = Reader { sources };
    let file = &sources.file.vault;
    let addrs = reader
        .or_ambient(
            sources.pick("vault.addr", flags.vault_addr.as_ref(), file.addr.as_ref(), values::vault_addrs)?,
            "ADDR",
            |text| values::vault_addr(text).map(|addr| vec![addr]),
        )?
        .unwrap_or_else(|| Found {
            // What the `vault` and `bao` command lines take.
            value: vec!["https://127.0.0.1:8200".to_owned()],
            origin: Origin::Default("vault.addr".to_owned()),
        });
    if addrs.value.is_empty() {
        return Err(Error::invalid(addrs.origin, "at least one URL is needed"));
    }
    let namespace = reader.or_ambient(
        sources.pick(
            "vault.namespace",
            flags.vault_namespace.as_ref(),
            file.namespace.as_ref(),
            values::header_safe,
        )?,
        "NAMESPACE",
        values::header_safe,
    )?;
    let trust = reader.trust(flags)?;
    let (client_cert, client_key) = reader.client(flags)?;
    let tls_server_name = reader.or_ambient(
        sources.pick(
            "vault.tls_server_name",
            flags.vault_tls_server_name.as_ref(),
            file.tls_server_name.as_ref(),
            values::text,
        )?,
        "TLS_SERVER_NAME",
        values::text,
    )?;
    let skip_verify = reader.or_ambient(
        sources.pick(
            "vault.skip_verify",
            flags.vault_skip_verify.as_ref(),
            file.skip_verify.as_ref(),
            values::boolean,
        )?,
        "SKIP_VERIFY",
        values::boolean,
    )?;
    let client_timeout = reader.or_ambient(
        sources.pick(
            "vault.client_timeout",
            flags.vault_client_timeout.as_ref(),
            file.client_timeout.as_ref(),
            values::span,
        )?,
        "CLIENT_TIMEOUT",
        values::go_duration,
    )?;
    let warnings = warnings(&addrs, skip_verify.as_ref());
    let auth = auth::merge(sources, flags)?;
    if matches!(auth, Auth::Cert { .. }) {
        check_cert(&addrs, client_cert.as_ref())?;
    }
    let config = Config {
        addrs: addrs.value,
        namespace: namespace.map(|found| found.value),
        ca_cert: trust.cert,
        ca_cert_bytes: trust.cert_bytes,
        ca_path: trust.path,
        client_cert,
        client_key,
        tls_server_name: tls_server_name.map(|found| found.value),
        skip_verify: skip_verify.is_some_and(|found| found.value),
        // What the `vault` and `bao` command lines take.
        client_timeout: client_timeout.map_or(Duration::from_secs(60), |found| found.value),
        auth,
    };
    Ok((config, warnings))
}

/// A client certificate is shown in a TLS handshake, and there only.
fn check_cert(addrs: &Found<Vec<String>>, client_cert: Option<&FileSetting>) -> Result<(), Error> {
    if client_cert.is_none() {
        return Err(Error::Missing {
            key: "vault.client_cert".to_owned(),
            reason: "the method cert needs it".to_owned(),
        });
    }
    match addrs.value.iter().find(|addr| !addr.starts_with("https:")) {
        Some(addr) => {
            Err(Error::invalid(addrs.origin.clone(), format!("{addr}: the method cert needs https")))
        }
        None => Ok(()),
    }
}

fn warnings(addrs: &Found<Vec<String>>, skip_verify: Option<&Found<bool>>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if let Some(found) = skip_verify
        && found.value
    {
        warnings.push(Warning {
            text: format!(
                "{}: Vault's certificate is not verified; anybody in between reads the credentials",
                found.origin
            ),
            remedy: "verify it by its CA: ca_cert",
        });
    }
    for addr in &addrs.value {
        if let Ok(url) = url::Url::parse(addr)
            && url.scheme() == "http"
            && !is_loopback(&url)
        {
            warnings.push(Warning {
                text: format!(
                    "{}: {addr} is not encrypted; anybody in between reads the credentials",
                    addrs.origin
                ),
                remedy: "use https, and verify its certificate by its CA",
            });
        }
    }
    warnings
}

fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// Which certificates are trusted.
#[derive(Default)]
struct Trust {
    cert: Option<FileSetting>,
    cert_bytes: Option<String>,
    path: Option<FileSetting>,
}

struct Reader<'a> {
    sources: &'a Sources<'a>,
}

impl Reader<'_> {
    /// What was written for leasehold, or else `BAO_*`, or else `VAULT_*`.
    fn or_ambient<T>(
        &self,
        written: Option<Found<T>>,
        name: &str,
        parse: impl Fn(&str) -> Result<T, Bad>,
    ) -> Result<Option<Found<T>>, Error> {
        match written {
            Some(found) => Ok(Some(found)),
            None => ambient(self.sources, name, parse),
        }
    }

    /// The three ways to name a CA are one setting: one that was written for leasehold beats all ambient ones, or a
    /// `VAULT_CACERT` of the environment would quietly replace a written `ca_path`.
    fn trust(&self, flags: &VaultFlags) -> Result<Trust, Error> {
        let file = &self.sources.file.vault;
        let cert = self.sources.pick(
            "vault.ca_cert",
            flags.vault_ca_cert.as_ref(),
            file.ca_cert.as_ref(),
            values::path,
        )?;
        let path = self.sources.pick(
            "vault.ca_path",
            flags.vault_ca_path.as_ref(),
            file.ca_path.as_ref(),
            values::path,
        )?;
        if cert.is_some() || path.is_some() {
            return Ok(Trust {
                cert: cert.map(Found::into_file),
                path: path.map(Found::into_file),
                ..Trust::default()
            });
        }
        Ok(Trust {
            cert: ambient(self.sources, "CACERT", values::path)?.map(Found::into_file),
            cert_bytes: ambient(self.sources, "CACERT_BYTES", |text| Ok(text.to_owned()))?
                .map(|found| found.value),
            path: ambient(self.sources, "CAPATH", values::path)?.map(Found::into_file),
        })
    }

    fn client(&self, flags: &VaultFlags) -> Result<(Option<FileSetting>, Option<FileSetting>), Error> {
        let file = &self.sources.file.vault;
        let cert = self.or_ambient(
            self.sources.pick(
                "vault.client_cert",
                flags.vault_client_cert.as_ref(),
                file.client_cert.as_ref(),
                values::path,
            )?,
            "CLIENT_CERT",
            values::path,
        )?;
        let key = self.or_ambient(
            self.sources.pick(
                "vault.client_key",
                flags.vault_client_key.as_ref(),
                file.client_key.as_ref(),
                values::path,
            )?,
            "CLIENT_KEY",
            values::path,
        )?;
        match (cert, key) {
            (Some(cert), Some(key)) => Ok((Some(cert.into_file()), Some(key.into_file()))),
            (None, None) => Ok((None, None)),
            (Some(cert), None) => Err(Error::invalid(cert.origin, "needs vault.client_key with it")),
            (None, Some(key)) => Err(Error::invalid(key.origin, "needs vault.client_cert with it")),
        }
    }
}

/// `BAO_*`, or else `VAULT_*`.
pub(super) fn ambient<T>(
    sources: &Sources<'_>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, Bad>,
) -> Result<Option<Found<T>>, Error> {
    for prefix in ["BAO_", "VAULT_"] {
        let variable = format!("{prefix}{name}");
        if let Some(text) = sources.env.get(&variable) {
            return parsed(text, Origin::Env(variable), parse).map(Some);
        }
    }
    Ok(None)
}
