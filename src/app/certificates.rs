//! Finds out whether the content of the certificate files that the configuration names has changed. Floor 6.

use std::collections::BTreeMap;
use std::fs;

use crate::config::Config;
use crate::files::FileSetting;
use crate::postgres::upstream::uri::RootCert;

/// What was in each file: the place where it is named, and a fingerprint of its content.
#[derive(Default)]
pub(super) struct Certificates(BTreeMap<String, Option<u64>>);

impl Certificates {
    /// Reads them all. Blocks.
    pub(super) fn read(config: &Config) -> Self {
        let vault = [&config.vault.ca_cert, &config.vault.client_cert, &config.vault.client_key];
        let mut files: Vec<FileSetting> = vault.into_iter().flatten().cloned().collect();
        if let Some(directory) = &config.vault.ca_path {
            let found = fs::read_dir(directory.path()).into_iter().flatten().flatten();
            files.extend(found.map(|entry| directory.within(entry.path())));
        }
        if let Some(tls) = &config.tls {
            files.extend([&tls.cert, &tls.key].into_iter().chain(&tls.client_ca).cloned());
        }
        for tls in config.routes.iter().map(|route| &route.upstream.uri.tls) {
            if let Some(RootCert::File(file)) = &tls.root_cert {
                files.push(file.clone());
            }
            files.extend(tls.crl.clone());
            files.extend(tls.client.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
        }
        Self(files.into_iter().map(|file| (file.to_string(), file.fingerprint())).collect())
    }

    /// The changes since `before`, as a reload says them; `None` where there are none.
    pub(super) fn changes_since(&self, before: &Self) -> Option<String> {
        let changed: Vec<_> = self
            .0
            .iter()
            .filter(|(place, content)| before.0.get(*place).is_some_and(|earlier| earlier != *content))
            .map(|(place, _)| place.as_str())
            .collect();
        match (self.0.is_empty(), changed.is_empty()) {
            (true, _) => None,
            (false, true) => Some("certificate files read again, none changed".to_owned()),
            (false, false) => Some(format!("certificate files read again, changed: {}", changed.join("; "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_names_the_files_whose_content_has_changed() {
        let of = |files: &[(&str, u64)]| {
            Certificates(files.iter().map(|(name, content)| ((*name).to_owned(), Some(*content))).collect())
        };
        assert_eq!(of(&[]).changes_since(&of(&[])), None);
        let none = Some("certificate files read again, none changed".to_owned());
        assert_eq!(of(&[("ca", 1)]).changes_since(&of(&[("ca", 1)])), none);
        assert_eq!(
            of(&[("ca", 1), ("new", 1)]).changes_since(&of(&[("ca", 1)])),
            none,
            "it was not named before"
        );
        let changed = Some("certificate files read again, changed: ca; key".to_owned());
        let before = of(&[("ca", 1), ("cert", 2), ("key", 3)]);
        assert_eq!(of(&[("ca", 7), ("cert", 2), ("key", 8)]).changes_since(&before), changed);
    }
}
