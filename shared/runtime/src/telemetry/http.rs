//! Requests as a server sees them: a histogram by route, and a span for each.
//!
//! Names are those of OpenTelemetry's semantic conventions. Invariant: labels
//! are bounded, whatever clients send.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};
use tracing::{Instrument as _, Span};

use super::trace;

/// Seconds from request to the head of the answer.
const BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// Counts requests. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Requests {
    duration: Histogram<f64>,
}

impl Requests {
    /// Counts in `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let duration = meter
            .f64_histogram("http.server.request.duration")
            .with_unit("s")
            .with_description("Time from a request to the head of its answer")
            .with_boundaries(BOUNDS.to_vec())
            .build();
        Self { duration }
    }

    /// Counts an answer to a request for `route`, which is one of few.
    pub fn count(&self, method: &Method, route: &str, status: u16, since: Instant) {
        let labels = [
            KeyValue::new("http.request.method", word(method)),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        self.duration.record(since.elapsed().as_secs_f64(), &labels);
    }

    /// A middleware for axum: counts, and runs the request in a span.
    pub async fn observe(self, request: Request, next: Next) -> Response {
        let began = Instant::now();
        let method = request.method().clone();
        let route = request.extensions().get::<MatchedPath>();
        let route = route.map_or("unmatched", MatchedPath::as_str).to_owned();
        let span = span(&method, &route, request.headers());
        let response = next.run(request).instrument(span.clone()).await;
        let status = response.status();
        span.record("http.response.status_code", status.as_u16());
        if status.is_server_error() {
            span.record("otel.status_code", "ERROR");
        }
        self.count(&method, &route, status.as_u16(), began);
        response
    }
}

/// The span of a request, in the trace that its headers name.
#[must_use]
pub fn span(method: &Method, route: &str, headers: &HeaderMap) -> Span {
    let span = tracing::info_span!(
        "request",
        otel.name = format!("{} {route}", word(method)),
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = word(method),
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        blob.digest = tracing::field::Empty,
    );
    trace::set_parent(&span, headers.get("traceparent").and_then(|value| value.to_str().ok()));
    span
}

/// The method, if it is one of HTTP's own.
fn word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "_OTHER",
    }
}
