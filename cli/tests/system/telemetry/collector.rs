//! A collector of OTLP over HTTP, which keeps the spans that it gets.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1 as wire;
use prost::Message;
use tokio::sync::watch;

use crate::cluster::LIMIT;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty for the first span of a trace.
    pub parent: String,
    pub name: String,
    pub service: String,
    pub attributes: BTreeMap<String, String>,
    pub start: u64,
    pub end: u64,
    pub has_failed: bool,
}

impl Span {
    pub fn says(&self, key: &str, value: &str) -> bool {
        self.attributes.get(key).is_some_and(|known| known == value)
    }
}

#[derive(Debug, Clone, Default)]
struct Received {
    spans: Vec<Span>,
    /// Names of metrics by service.
    metrics: BTreeSet<(String, String)>,
}

/// The collector; it ends with the test's runtime.
pub struct Collector {
    pub url: String,
    received: watch::Receiver<Received>,
}

impl Collector {
    #[allow(clippy::disallowed_methods, reason = "it ends with the runtime of its test")]
    pub async fn start() -> Self {
        let (sender, received) = watch::channel(Received::default());
        let routes = Router::new()
            .route("/v1/traces", post(take_spans))
            .route("/v1/metrics", post(take_metrics))
            .with_state(sender);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, received }
    }

    /// Waits until `look` finds something in the spans so far.
    pub async fn spans<T>(&self, what: &str, mut look: impl FnMut(&[Span]) -> Option<T>) -> T {
        self.until(what, |received| look(&received.spans)).await
    }

    /// Waits until a process called `service` has sent a metric.
    pub async fn metric(&self, service: &str, name: &str) {
        let wanted = (service.to_owned(), name.to_owned());
        self.until(name, |received| received.metrics.contains(&wanted).then_some(())).await;
    }

    fn until<T>(
        &self,
        what: &str,
        mut look: impl FnMut(&Received) -> Option<T>,
    ) -> impl Future<Output = T> {
        let mut received = self.received.clone();
        async move {
            let mut found = None;
            let waited = {
                let looks = received.wait_for(|received| {
                    found = look(received);
                    found.is_some()
                });
                tokio::time::timeout(LIMIT, looks).await.is_ok()
            };
            if !waited {
                panic!("never: {what}; there were {}", tree(&received.borrow().spans));
            }
            found.unwrap()
        }
    }
}

/// The spans, one a line, for the message of a failed test.
fn tree(spans: &[Span]) -> String {
    let line = |span: &Span| {
        let Span { trace, id, parent, name, service, .. } = span;
        format!("\n{trace} {parent:16} > {id} {service} {name:?} {:?}", span.attributes)
    };
    spans.iter().map(line).collect()
}

async fn take_spans(
    State(sender): State<watch::Sender<Received>>,
    body: axum::body::Bytes,
) -> StatusCode {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    sender.send_modify(|received| {
        for resource in request.resource_spans {
            let service = service(resource.resource.map(|r| r.attributes).unwrap_or_default());
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.spans.extend(spans.map(|span| read(span, &service)));
        }
    });
    StatusCode::OK
}

async fn take_metrics(
    State(sender): State<watch::Sender<Received>>,
    body: axum::body::Bytes,
) -> StatusCode {
    let request = ExportMetricsServiceRequest::decode(body).unwrap();
    sender.send_modify(|received| {
        for resource in request.resource_metrics {
            let service = service(resource.resource.map(|r| r.attributes).unwrap_or_default());
            let metrics = resource.scope_metrics.into_iter().flat_map(|scope| scope.metrics);
            received.metrics.extend(metrics.map(|metric| (service.clone(), metric.name)));
        }
    });
    StatusCode::OK
}

fn service(attributes: Vec<KeyValue>) -> String {
    texts(attributes).remove("service.name").unwrap_or_default()
}

fn read(span: wire::Span, service: &str) -> Span {
    let error = wire::status::StatusCode::Error as i32;
    Span {
        trace: hex::encode(span.trace_id),
        id: hex::encode(span.span_id),
        parent: hex::encode(span.parent_span_id),
        name: span.name,
        service: service.to_owned(),
        attributes: texts(span.attributes),
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        has_failed: span.status.is_some_and(|status| status.code == error),
    }
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    attributes.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}

fn text(value: Option<AnyValue>) -> String {
    match value.and_then(|value| value.value) {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}
