//! Requests of any method, path and headers. Floor 5.

use http::header::{HOST, HeaderName, ORIGIN};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::guard;
use super::handler::{Endpoint, Query, Scope};
use crate::session::status::SessionFilter;

/// The method, the target and the headers, one a line.
pub(crate) fn request(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let Some(Ok(method)) = lines.next().map(Method::from_bytes) else { return };
    let Some(Ok(uri)) = lines.next().map(Uri::try_from) else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(100) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = HeaderName::from_bytes(parts.next().unwrap_or_default());
        let value = HeaderValue::from_bytes(parts.next().unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let authority = uri.authority().map(http::uri::Authority::as_str);
    let refused = guard::refusal(&headers, authority);
    assert!(refused.is_some() || !headers.contains_key(ORIGIN));
    assert!(refused.is_some() || headers.get_all(HOST).iter().count() == 1);
    let (open, all) = (Endpoint::at(uri.path(), Scope::Http), Endpoint::at(uri.path(), Scope::Admin));
    assert!(open.is_none() || open == all, "what is open is on both addresses");
    assert!(!open.is_some_and(Endpoint::is_command), "no command is open");
    if let Some(endpoint) = all {
        assert!(!endpoint.is_command() || !endpoint.takes(&method) || method == Method::POST);
        let named = endpoint.methods().split(", ").any(|known| known == method.as_str());
        assert_eq!(endpoint.takes(&method), named);
    }
    let query = uri.query().unwrap_or("");
    assert!(Query::of(query).route.is_none_or(|route| !route.is_empty()));
    let mut filter = SessionFilter::default();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if filter.and(&name, &value).is_err() {
            return;
        }
    }
}
