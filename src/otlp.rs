//! Sends spans to a collector by OTLP over HTTP, where OpenTelemetry's variables ask for it. Floor 5.
//!
//! Nothing waits for the collector: a span for which its queue has no room is lost, as is a batch that the collector does not take
//! in time, and both are counted. The crates of OpenTelemetry are there with the feature `otlp` alone; without it the variables are
//! still read, so that those who set them are told.

#[cfg(feature = "otlp")]
mod client;
#[cfg(feature = "otlp")]
mod error;
#[cfg(not(feature = "otlp"))]
mod nothing;
#[cfg(feature = "otlp")]
mod sender;
mod settings;
#[cfg(all(test, feature = "otlp"))]
mod tests;

#[cfg(not(feature = "otlp"))]
pub(crate) use nothing::{Sender, Sending};
#[cfg(feature = "otlp")]
pub(crate) use sender::{Sender, Sending};
pub(crate) use settings::{Settings, Unusable};

/// Whether leasehold was built with the feature.
pub(crate) const IS_BUILT: bool = cfg!(feature = "otlp");

/// What the variables ask for: `None` where it is nothing. `get` gives a variable that is set and not empty.
///
/// # Errors
/// See [`Unusable`].
pub(crate) fn read<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Option<Settings>, Unusable> {
    settings::read(&get, IS_BUILT)
}
