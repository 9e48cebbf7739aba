//! What OpenTelemetry's variables ask for. Floor 5.
//!
//! Source: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Headers, attributes of the resource, the
//! sampler and the limits of spans are read by OpenTelemetry's own crates; no value is repeated in what is said of it, as it may
//! be a secret.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::files::FileSetting;

/// Where spans are sent, and how.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// What spans are posted to.
    pub(super) endpoint: Url,
    /// How long a batch may take, its repetitions included.
    pub(super) timeout: Duration,
    /// How long a span waits for others.
    pub(super) delay: Duration,
    /// The roots that are trusted in place of the system's.
    pub(super) certificate: Option<FileSetting>,
    /// What leasehold shows: a certificate and its key.
    pub(super) identity: Option<(FileSetting, FileSetting)>,
}

impl Settings {
    /// The collector, without what else a URL may hold.
    pub(crate) fn origin(&self) -> String {
        self.endpoint.origin().ascii_serialization()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settings({})", self.origin())
    }
}

/// Why the variables cannot be followed: no spans are sent, and nothing else is the worse for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    variable: &'static str,
    reason: &'static str,
    /// How to mend it.
    pub(crate) remedy: &'static str,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}, so no spans are sent", self.variable, self.reason)
    }
}

impl Unusable {
    /// The variables ask for what this build does not have.
    pub(super) fn not_built<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Self {
        let (variable, _) = either(get, ENDPOINT).unwrap_or((EXPORTER, ""));
        Self {
            variable,
            reason: "this leasehold is built without the feature otlp",
            remedy: "build it with `cargo build --release --features otlp`, or set OTEL_SDK_DISABLED=true",
        }
    }
}

/// `None`: they ask for nothing.
pub(super) fn read<'a>(
    get: &impl Fn(&str) -> Option<&'a str>,
    is_built: bool,
) -> Result<Option<Settings>, Unusable> {
    if !is_wanted(get)? {
        return Ok(None);
    }
    // The rest would be to no avail.
    if !is_built {
        return Err(Unusable::not_built(get));
    }
    sampler(get)?;
    if let Some((variable, _)) = either(get, PROTOCOL).filter(|(_, value)| *value != "http/protobuf") {
        let remedy =
            "set OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf, with the collector's port for it (4318)";
        return Err(Unusable { variable, reason: "leasehold speaks http/protobuf alone", remedy });
    }
    if let Some((variable, _)) = either(get, COMPRESSION).filter(|(_, value)| *value != "none") {
        let remedy = "set OTEL_EXPORTER_OTLP_TRACES_COMPRESSION=none";
        return Err(Unusable { variable, reason: "leasehold does not compress", remedy });
    }
    let file = |names| either(get, names).map(|(variable, path)| FileSetting::new(path, variable));
    let identity = match (file(CLIENT_CERTIFICATE), file(CLIENT_KEY)) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => {
            let (variable, remedy) = (CLIENT_CERTIFICATE.general, "set both, or neither");
            return Err(Unusable { variable, reason: "a certificate and its key belong together", remedy });
        }
    };
    Ok(Some(Settings {
        endpoint: endpoint(get)?,
        timeout: milliseconds(either(get, TIMEOUT))?.unwrap_or(TIMEOUT_DEFAULT),
        delay: milliseconds(get(DELAY).map(|value| (DELAY, value)))?.unwrap_or(DELAY_DEFAULT),
        certificate: file(CERTIFICATE),
        identity,
    }))
}

/// OpenTelemetry sends spans to this machine by default. leasehold sends none unless it is told where, or told to.
fn is_wanted<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<bool, Unusable> {
    if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let Some(exporters) = get(EXPORTER) else { return Ok(either(get, ENDPOINT).is_some()) };
    let mut exporters = exporters.split(',').map(str::trim);
    if exporters.clone().any(|exporter| exporter == "otlp") {
        Ok(true)
    } else if exporters.all(|exporter| exporter == "none") {
        Ok(false)
    } else {
        let (variable, remedy) = (EXPORTER, "set it to otlp or none");
        Err(Unusable { variable, reason: "leasehold has no exporter but otlp", remedy })
    }
}

fn endpoint<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<Url, Unusable> {
    let (variable, written) = either(get, ENDPOINT).unwrap_or((ENDPOINT.general, ENDPOINT_DEFAULT));
    // The variable of all signals is a base, to which each signal appends its path.
    let whole = if variable == ENDPOINT.of_traces {
        written.to_owned()
    } else {
        format!("{}/v1/traces", written.trim_end_matches('/'))
    };
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let url = Url::parse(&whole).ok().filter(is_http).ok_or(Unusable {
        variable,
        reason: "is no URL of http or https",
        remedy: "write it as http://collector:4318",
    })?;
    if url.username().is_empty() && url.password().is_none() {
        return Ok(url);
    }
    let remedy = "put it into OTEL_EXPORTER_OTLP_HEADERS, as authorization=Basic%20…";
    Err(Unusable { variable, reason: "has a user or a password, which are not sent", remedy })
}

/// OpenTelemetry's crate takes a sampler that it does not know for `always_on`, without a word.
fn sampler<'a>(get: &impl Fn(&str) -> Option<&'a str>) -> Result<(), Unusable> {
    let Some(name) = get(SAMPLER) else { return Ok(()) };
    let kind = name.strip_prefix("parentbased_").unwrap_or(name);
    if !["always_on", "always_off", "traceidratio"].contains(&kind) {
        let remedy =
            "set it to always_on, always_off or traceidratio, with parentbased_ before it or without";
        return Err(Unusable { variable: SAMPLER, reason: "is no sampler that leasehold has", remedy });
    }
    let is_part = |ratio: &str| ratio.parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio));
    match get(SAMPLER_ARG).filter(|_| kind == "traceidratio") {
        Some(ratio) if !is_part(ratio) => {
            let remedy = "write it as 0.01 for one trace in a hundred";
            Err(Unusable { variable: SAMPLER_ARG, reason: "is no number from 0 to 1", remedy })
        }
        _ => Ok(()),
    }
}

fn milliseconds(variable: Option<(&'static str, &str)>) -> Result<Option<Duration>, Unusable> {
    let Some((variable, value)) = variable else { return Ok(None) };
    let number = value.parse().map_err(|_| Unusable {
        variable,
        reason: "is no number of milliseconds",
        remedy: "write a number without a unit",
    })?;
    Ok(Some(Duration::from_millis(number).max(Duration::from_millis(1))))
}

/// A variable of all signals, and the one of traces, which goes first.
#[derive(Clone, Copy)]
struct Names {
    of_traces: &'static str,
    general: &'static str,
}

fn either<'a>(get: &impl Fn(&str) -> Option<&'a str>, names: Names) -> Option<(&'static str, &'a str)> {
    [names.of_traces, names.general].into_iter().find_map(|name| Some((name, get(name)?)))
}

macro_rules! names {
    ($($name:ident = $last:literal;)+) => {
        $(const $name: Names = Names {
            of_traces: concat!("OTEL_EXPORTER_OTLP_TRACES_", $last),
            general: concat!("OTEL_EXPORTER_OTLP_", $last),
        };)+
    };
}

names! {
    ENDPOINT = "ENDPOINT";
    PROTOCOL = "PROTOCOL";
    COMPRESSION = "COMPRESSION";
    TIMEOUT = "TIMEOUT";
    CERTIFICATE = "CERTIFICATE";
    CLIENT_CERTIFICATE = "CLIENT_CERTIFICATE";
    CLIENT_KEY = "CLIENT_KEY";
}

const EXPORTER: &str = "OTEL_TRACES_EXPORTER";
const DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";
const ENDPOINT_DEFAULT: &str = "http://localhost:4318";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
const DELAY_DEFAULT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&'static str, &'static str)]) -> Result<Option<Settings>, Unusable> {
        read(&get(variables), true)
    }

    fn get(variables: &[(&'static str, &'static str)]) -> impl Fn(&str) -> Option<&'static str> {
        |name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
    }

    fn endpoint(variables: &[(&'static str, &'static str)]) -> String {
        of(variables).unwrap().unwrap().endpoint.to_string()
    }

    #[test]
    fn nothing_is_sent_unless_it_is_asked_for() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("OTEL_SERVICE_NAME", "x")]), Ok(None));
        let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert_eq!(of(&[to, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(of(&[to, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert!(of(&[to, ("OTEL_SDK_DISABLED", "no")]).unwrap().is_some());
        assert!(of(&[("OTEL_TRACES_EXPORTER", "console, otlp")]).unwrap().is_some());
        assert!(of(&[to, ("OTEL_TRACES_EXPORTER", "zipkin")]).is_err());
    }

    #[test]
    fn the_endpoint_of_traces_is_whole_and_that_of_all_signals_gets_a_path() {
        assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp")]), "http://localhost:4318/v1/traces");
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c/otlp/");
        assert_eq!(endpoint(&[all]), "https://c/otlp/v1/traces");
        assert_eq!(endpoint(&[all, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:1/x")]), "http://t:1/x");
    }

    #[test]
    fn times_are_milliseconds_and_those_of_traces_go_first() {
        let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        let settings = of(&[to]).unwrap().unwrap();
        assert_eq!((settings.timeout, settings.delay), (TIMEOUT_DEFAULT, DELAY_DEFAULT));
        let times = [("OTEL_EXPORTER_OTLP_TIMEOUT", "1"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250")];
        let settings = of(&[to, times[0], times[1], ("OTEL_BSP_SCHEDULE_DELAY", "0")]).unwrap().unwrap();
        assert_eq!(settings.timeout, Duration::from_millis(250));
        assert_eq!(settings.delay, Duration::from_millis(1), "zero would spin");
    }

    #[test]
    fn what_cannot_be_followed_names_the_variable_and_never_its_value() {
        let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        for (variable, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://hunter2"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/hunter2"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://hunter2@c"),
            ("OTEL_TRACES_SAMPLER", "xray"),
        ] {
            let said = of(&[(variable, value), to]).unwrap_err().to_string();
            assert!(said.starts_with(variable) && !said.contains(value), "{said}");
        }
    }

    #[test]
    fn a_sampler_may_have_a_share() {
        let to = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c");
        let with = |share| {
            of(&[to, ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", share)])
        };
        assert!(with("0.01").unwrap().is_some());
        assert!(with("1%").unwrap_err().to_string().starts_with("OTEL_TRACES_SAMPLER_ARG: "));
        assert!(with("2").is_err());
        assert!(of(&[to, ("OTEL_TRACES_SAMPLER", "always_off")]).unwrap().is_some());
    }

    #[test]
    fn a_build_without_the_feature_says_nothing_else() {
        let asked = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        let said = read(&get(&asked), false).unwrap_err().to_string();
        assert!(said.contains("built without the feature otlp"), "{said}");
        assert_eq!(read(&get(&[]), false), Ok(None));
    }

    #[test]
    fn what_else_a_url_holds_is_not_shown() {
        let to = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c:4318/hunter2?key=hunter2");
        let settings = of(&[to]).unwrap().unwrap();
        assert_eq!(format!("{settings:?}"), "Settings(https://c:4318)");
    }
}
