//! DNS lookups: at most one at a time for each name, and the addresses that they have found. Floor 2.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// The lookups of all configured names. All hosts share one value.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups(Arc<Mutex<HashMap<String, Lookup>>>);

/// The lookup of one name.
#[derive(Debug)]
struct Lookup {
    /// The result of the latest lookup.
    answer: watch::Receiver<Answer>,
    /// The first two different addresses that were found.
    seen: Vec<IpAddr>,
}

type Answer = Option<Result<Vec<IpAddr>, (io::ErrorKind, String)>>;

impl Lookups {
    /// Resolves a name with the system's resolver, which cannot be cancelled: a lookup continues after its caller stops
    /// waiting. So there is at most one lookup for each name, and all callers wait for its result. A resolver that does
    /// not answer can then exhaust neither the blocking threads nor the memory. The caller bounds the wait.
    pub(super) async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = name.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let mut answer = self.under_way(name);
        let found = answer.wait_for(Option::is_some).await.map_err(io::Error::other)?.clone();
        match found {
            Some(Ok(addresses)) => {
                Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
            }
            Some(Err((kind, text))) => Err(io::Error::new(kind, text)),
            None => Err(io::ErrorKind::Other.into()),
        }
    }

    /// Whether more than one address has been found for this name, in one lookup or in several: a name of several
    /// servers may resolve to each of them in turn.
    pub(super) fn have_found_several(&self, name: &str) -> bool {
        self.lock().get(name).is_some_and(|lookup| lookup.seen.len() > 1)
    }

    /// The lookup of this name that is running, or a new one.
    fn under_way(&self, name: &str) -> watch::Receiver<Answer> {
        let mut lookups = self.lock();
        // A lookup whose sender was dropped without a result is over.
        let open = |lookup: &&Lookup| lookup.answer.borrow().is_none() && lookup.answer.has_changed().is_ok();
        if let Some(lookup) = lookups.get(name).filter(open) {
            return lookup.answer.clone();
        }
        let (tell, answer) = watch::channel(None);
        match lookups.get_mut(name) {
            Some(lookup) => lookup.answer = answer.clone(),
            None => {
                lookups.insert(name.to_owned(), Lookup { answer: answer.clone(), seen: Vec::new() });
            }
        }
        let (name, all) = (name.to_owned(), self.clone());
        spawn_blocking(move || {
            let found = (name.as_str(), 0).to_socket_addrs();
            let found = found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
            all.note(&name, found.as_deref().unwrap_or_default());
            tell.send_replace(Some(found.map_err(|error| (error.kind(), error.to_string()))));
        });
        answer
    }

    /// Records the addresses of a name. Two are enough to know that there are several.
    fn note(&self, name: &str, found: &[IpAddr]) {
        let mut lookups = self.lock();
        let Some(lookup) = lookups.get_mut(name) else { return };
        for address in found {
            if lookup.seen.len() < 2 && !lookup.seen.contains(address) {
                lookup.seen.push(*address);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Lookup>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_does_not_end_holds_up_only_those_of_the_same_name() {
        let lookups = Lookups::default();
        let (tell, stuck) = watch::channel(None);
        let lookup = Lookup { answer: stuck, seen: Vec::new() };
        lookups.lock().insert("stuck.invalid".to_owned(), lookup);
        let waited = timeout(Duration::from_secs(10), lookups.resolve("stuck.invalid", 5432)).await;
        assert!(waited.is_err(), "it waits for its turn, within the caller's bound");
        assert!(!lookups.resolve("localhost", 5432).await.unwrap().is_empty());
        // A caller that waits for the lookup gets its result. The name is resolved again after that.
        let (found, _) = tokio::join!(lookups.resolve("stuck.invalid", 5432), async {
            tokio::task::yield_now().await;
            tell.send_replace(Some(Ok(vec!["127.0.0.9".parse().unwrap()])));
        });
        assert_eq!(found.unwrap(), ["127.0.0.9:5432".parse().unwrap()]);
        assert!(lookups.under_way("stuck.invalid").borrow().is_none());
        assert_eq!(lookups.resolve("::1", 5432).await.unwrap(), ["[::1]:5432".parse().unwrap()]);
    }

    #[test]
    fn a_name_that_resolves_to_one_address_after_the_other_has_several() {
        let lookups = Lookups::default();
        let [first, second] = ["10.0.0.1", "10.0.0.2"].map(|address| address.parse::<IpAddr>().unwrap());
        let (_, answer) = watch::channel(None);
        lookups.lock().insert("rotating.invalid".to_owned(), Lookup { answer, seen: Vec::new() });
        assert!(!lookups.have_found_several("rotating.invalid"));
        lookups.note("rotating.invalid", &[first, first]);
        lookups.note("rotating.invalid", &[first]);
        assert!(!lookups.have_found_several("rotating.invalid"));
        lookups.note("rotating.invalid", &[second]);
        assert!(lookups.have_found_several("rotating.invalid"));
        assert!(!lookups.have_found_several("never-asked.invalid"));
    }
}
