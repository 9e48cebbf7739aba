//! Handshakes with the servers of one upstream, with certificates whose files may change. Floor 2.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::files::Certificates;
use super::{Error, FileError, Level, Settings};

/// Makes TLS connections with these settings. Clones share the certificates.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Shared>);

struct Shared {
    settings: Settings,
    in_force: RwLock<Arc<Certificates>>,
    rereads: Mutex<Rereads>,
}

/// The state of the rereads that rejected certificates cause.
#[derive(Default)]
struct Rereads {
    /// The latest reread, if it hangs. No other is started beside it.
    under_way: Option<JoinHandle<Option<Certificates>>>,
    /// When a reread last ended, or a wait for it last timed out.
    done_at: Option<Instant>,
}

/// The certificates that were in force at some time, to compare with the present ones.
pub(crate) struct InForce(Arc<Certificates>);

impl Connector {
    /// Reads the files of the settings. Blocks on them.
    ///
    /// # Errors
    /// A file cannot be used, or the system's roots are needed and there are none.
    pub(crate) fn new(settings: Settings) -> Result<Self, FileError> {
        let in_force = RwLock::new(Arc::new(Certificates::read(&settings)?));
        Ok(Self(Arc::new(Shared { settings, in_force, rereads: Mutex::default() })))
    }

    /// Whether a trusted root must have signed the server's certificate.
    #[must_use]
    pub(crate) fn verifies(&self) -> bool {
        self.0.settings.level >= Level::Chain
    }

    /// The certificates that a handshake uses now.
    pub(crate) fn in_force(&self) -> InForce {
        InForce(Arc::clone(&self.0.in_force.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Whether a connection that the server closes without an alert may mean that it rejected our certificate: the
    /// alert is lost if the server closes before it has read all that we sent.
    #[must_use]
    pub(crate) fn shows_client(&self) -> bool {
        self.in_force().0.shows_client()
    }

    /// Whether the certificates in force are others than `used`, after the files were read again. They are read at most
    /// once in [`REREAD_EVERY`], and the wait is at most [`REREAD_WITHIN`]. Cancel safe.
    pub(crate) async fn has_other_than(&self, used: &InForce) -> bool {
        self.reread(used).await;
        self.is_other_than(used)
    }

    fn is_other_than(&self, used: &InForce) -> bool {
        !Arc::ptr_eq(&self.in_force().0, &used.0)
    }

    async fn reread(&self, used: &InForce) {
        let mut rereads = self.0.rereads.lock().await;
        if self.is_other_than(used) || rereads.done_at.is_some_and(|at| at.elapsed() < REREAD_EVERY) {
            return;
        }
        let reading = rereads.under_way.get_or_insert_with(|| {
            let (shared, before) = (Arc::clone(&self.0), self.in_force().0);
            spawn_blocking(move || before.reread(&shared.settings))
        });
        let read = timeout(REREAD_WITHIN, reading).await;
        rereads.done_at = Some(Instant::now());
        let Ok(read) = read else {
            tracing::warn!("reading the certificate files for the upstream server again takes too long");
            return;
        };
        rereads.under_way = None;
        if let Ok(Some(fresh)) = read {
            tracing::info!(
                "the certificate files for the upstream server were read again: they have changed"
            );
            *self.0.in_force.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
    }

    /// Performs the handshake. `host` is the text of the configuration. Not cancel safe.
    ///
    /// # Errors
    /// See [`Error`].
    pub(crate) async fn connect(&self, tcp: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, Error> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| Error::HostName)?;
        let connector = TlsConnector::from(self.in_force().0.config(host));
        Box::pin(connector.connect(name, tcp)).await.map_err(Error::of_handshake)
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

/// The least time between two rereads of the files while a certificate is rejected.
const REREAD_EVERY: Duration = Duration::from_secs(5);
/// How long a login waits for the files, since a file system may hang.
const REREAD_WITHIN: Duration = Duration::from_secs(2);
