//! `[vault]`, with what the `bao` and `vault` command lines take from the environment. Floor 6.

use super::error::Error;
use super::sources::{Found, Sources, or_default};
use super::{Warning, auth, keys, values};
use crate::files::FileSetting;
use crate::vault::{Address, Auth, Config};

/// The configuration of the vault module, and the warnings about it at start.
pub(super) fn merge(sources: &Sources<'_>, with_token: bool) -> Result<(Config, Vec<Warning>), Error> {
    let addrs = addrs(sources)?;
    let namespace = sources.find_or_ambient(&keys::VAULT_NAMESPACE, "NAMESPACE", values::header_safe)?;
    let trust = trust(sources)?;
    let (client_cert, client_key) = client(sources)?;
    let tls_server_name =
        sources.find_or_ambient(&keys::VAULT_TLS_SERVER_NAME, "TLS_SERVER_NAME", values::text)?;
    let skip_verify = sources.find_or_ambient(&keys::VAULT_SKIP_VERIFY, "SKIP_VERIFY", values::boolean)?;
    let client_timeout =
        sources.find_or_ambient(&keys::VAULT_CLIENT_TIMEOUT, "CLIENT_TIMEOUT", values::go_duration)?;
    let warnings = warnings(&addrs, skip_verify.as_ref());
    let auth = auth::merge(sources, with_token)?;
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
        client_timeout: or_default(client_timeout, &keys::VAULT_CLIENT_TIMEOUT)?.value,
        auth,
    };
    Ok((config, warnings))
}

fn addrs(sources: &Sources<'_>) -> Result<Found<Vec<Address>>, Error> {
    let one = |text: &str| values::vault_addr(text).map(|addr| vec![addr]);
    or_default(sources.find_or_ambient(&keys::VAULT_ADDR, "ADDR", one)?, &keys::VAULT_ADDR)
}

/// A client certificate is shown in a TLS handshake, and there only.
fn check_cert(addrs: &Found<Vec<Address>>, client_cert: Option<&FileSetting>) -> Result<(), Error> {
    if client_cert.is_none() {
        return Err(Error::Missing {
            key: "vault.client_cert".to_owned(),
            reason: "the method cert needs it".to_owned(),
        });
    }
    match addrs.value.iter().find(|addr| !addr.is_https()) {
        Some(addr) => {
            Err(Error::invalid(addrs.origin.clone(), format!("{addr}: the method cert needs https")))
        }
        None => Ok(()),
    }
}

fn warnings(addrs: &Found<Vec<Address>>, skip_verify: Option<&Found<bool>>) -> Vec<Warning> {
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
        if !addr.is_https() && !addr.is_loopback() {
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

/// Reads which certificates are trusted.
struct Trust {
    cert: Option<FileSetting>,
    cert_bytes: Option<String>,
    path: Option<FileSetting>,
}

/// The three ways to name a CA are one setting: one that was written for leasehold beats all ambient ones, or a
/// `VAULT_CACERT` of the environment would quietly replace a written `ca_path`.
fn trust(sources: &Sources<'_>) -> Result<Trust, Error> {
    let (cert, path) = (sources.find(&keys::VAULT_CA_CERT)?, sources.find(&keys::VAULT_CA_PATH)?);
    if cert.is_some() || path.is_some() {
        let (cert, path) = (cert.map(Found::into_file), path.map(Found::into_file));
        return Ok(Trust { cert, path, cert_bytes: None });
    }
    let bytes = sources.ambient("CACERT_BYTES", |text| Ok(text.to_owned()))?;
    Ok(Trust {
        cert: sources.ambient("CACERT", values::path)?.map(Found::into_file),
        cert_bytes: bytes.map(|found| found.value),
        path: sources.ambient("CAPATH", values::path)?.map(Found::into_file),
    })
}

fn client(sources: &Sources<'_>) -> Result<(Option<FileSetting>, Option<FileSetting>), Error> {
    let cert = sources.find_or_ambient(&keys::VAULT_CLIENT_CERT, "CLIENT_CERT", values::path)?;
    let key = sources.find_or_ambient(&keys::VAULT_CLIENT_KEY, "CLIENT_KEY", values::path)?;
    match (cert, key) {
        (Some(cert), Some(key)) => Ok((Some(cert.into_file()), Some(key.into_file()))),
        (None, None) => Ok((None, None)),
        (Some(cert), None) => Err(Error::invalid(cert.origin, "needs vault.client_key with it")),
        (None, Some(key)) => Err(Error::invalid(key.origin, "needs vault.client_cert with it")),
    }
}
