//! Why no spans are sent, though the variables can be read. Floor 5.

use crate::files;

/// Why no spans are sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    File(#[from] files::Error),
    #[error(
        "there are no root certificates: neither the machine's nor in the file of OTEL_EXPORTER_OTLP_CERTIFICATE"
    )]
    NoRoots,
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
    /// Its own text may repeat a variable.
    #[error("OpenTelemetry's exporter does not take its variables")]
    Exporter,
}
