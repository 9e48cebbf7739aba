//! A collector for these tests, scripted: it says what no collector can be made to say at will. `tests/bench/collector.py` is the one
//! that decodes spans by OpenTelemetry's own messages for Python. Floor 5.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it answers a request with.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// A status, and nothing else.
    Status(u16),
    /// It has rejected so many spans, for this reason.
    Rejects(i64, &'static str),
}

/// It takes what is not in its script.
#[derive(Clone, Default)]
struct Seen {
    script: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<Vec<String>>>>,
}

/// The collector, until it is dropped.
pub(super) struct Collector {
    url: String,
    seen: Seen,
    task: JoinHandle<()>,
}

impl Collector {
    /// One that answers its first requests by this script.
    pub(super) async fn answering(script: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let seen = Seen { script: Arc::new(Mutex::new(script.iter().copied().collect())), ..Seen::default() };
        let task = tokio::spawn(serve(listener, seen.clone()));
        Self { url, seen, task }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The names of the spans of each request, whatever it was answered with.
    pub(super) fn requests(&self) -> Vec<Vec<String>> {
        self.seen.requests.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, seen: Seen) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = seen.clone();
        let service = service_fn(move |request| answer(request, seen.clone()));
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

async fn answer(request: Request<Incoming>, seen: Seen) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    let names = scopes.flat_map(|scope| scope.spans).map(|span| span.name).collect();
    seen.requests.lock().unwrap().push(names);
    let (status, partial_success) = match seen.script.lock().unwrap().pop_front() {
        Some(Answer::Status(status)) => (status, None),
        Some(Answer::Rejects(rejected_spans, reason)) => {
            (200, Some(ExportTracePartialSuccess { rejected_spans, error_message: reason.to_owned() }))
        }
        None => (200, None),
    };
    let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    Ok(Response::builder().status(status).body(Full::from(body)).unwrap())
}
