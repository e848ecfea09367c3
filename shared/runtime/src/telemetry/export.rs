//! Providers of spans and metrics, from the standard environment variables.
//!
//! The SDK reads the rest of them by itself: headers, timeouts, the sizes of the
//! batch queue (`OTEL_BSP_*`), the sampler, the interval of metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_otlp::{MetricExporter, SpanExporter as OtlpSpans};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SdkTracerProvider, SpanData, SpanExporter,
};

use super::trace;

/// Who sends: `OTEL_SERVICE_NAME`, else `service`, with `OTEL_RESOURCE_ATTRIBUTES`.
pub(super) fn resource(service: &'static str) -> Resource {
    let named = is_set("OTEL_SERVICE_NAME")
        || std::env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name="));
    let builder = Resource::builder();
    if named { builder.build() } else { builder.with_service_name(service).build() }
}

/// Spans, with ids even if they go nowhere: log lines and messages carry them.
/// With it, why they are not sent although they should be.
pub(super) fn traces(resource: Resource) -> (SdkTracerProvider, Option<String>) {
    let builder = SdkTracerProvider::builder().with_resource(resource).with_id_generator(Ids);
    if !is_wanted("TRACES") {
        return (builder.build(), None);
    }
    match OtlpSpans::builder().with_http().build() {
        // In batches from a thread of its own, out of a queue that drops what it
        // cannot hold.
        Ok(exporter) => (builder.with_batch_exporter(Observed::new(exporter)).build(), None),
        Err(error) => (builder.build(), Some(super::chain(&error))),
    }
}

/// Metrics for scrapes of `registry`, and sent if they should be.
pub(super) fn metrics(
    resource: Resource,
    registry: &prometheus::Registry,
) -> (SdkMeterProvider, Option<String>) {
    let mut problem = None;
    let mut builder = SdkMeterProvider::builder().with_resource(resource);
    let scrapes = opentelemetry_prometheus::exporter().with_registry(registry.clone());
    match scrapes.scope_info_enabled(false).build() {
        Ok(reader) => builder = builder.with_reader(reader),
        Err(error) => problem = Some(super::chain(&error)),
    }
    if is_wanted("METRICS") {
        match MetricExporter::builder().with_http().build() {
            Ok(exporter) => builder = builder.with_periodic_exporter(exporter),
            Err(error) => problem = Some(super::chain(&error)),
        }
    }
    (builder.build(), problem)
}

/// Whether a signal is to be sent. Without an address there is no collector: the
/// default of the specification, one on this machine, would only cost errors.
fn is_wanted(signal: &str) -> bool {
    let says = |name: &str, value: &str| {
        std::env::var(name).is_ok_and(|text| text.eq_ignore_ascii_case(value))
    };
    let addressed = is_set("OTEL_EXPORTER_OTLP_ENDPOINT")
        || is_set(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
    addressed
        && !says("OTEL_SDK_DISABLED", "true")
        && !says(&format!("OTEL_{signal}_EXPORTER"), "none")
}

fn is_set(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| !value.is_empty())
}

/// Random ids, but for a span whose place was promised before it was recorded.
#[derive(Debug)]
struct Ids;

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let promised = trace::promised().map(|(trace, _)| trace);
        promised.unwrap_or_else(|| RandomIdGenerator::default().new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        let promised = trace::promised().map(|(_, span)| span);
        promised.unwrap_or_else(|| RandomIdGenerator::default().new_span_id())
    }
}

/// Says once that a collector takes nothing, and once that it does again: a line
/// for each batch would bury the log.
#[derive(Debug)]
struct Observed<E> {
    exporter: E,
    is_failing: AtomicBool,
}

impl<E> Observed<E> {
    const fn new(exporter: E) -> Self {
        Self { exporter, is_failing: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Observed<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let outcome = self.exporter.export(batch).await;
        let was_failing = self.is_failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !was_failing => {
                let error = super::chain(error);
                tracing::warn!(error, "the collector takes no spans; they are dropped meanwhile");
            }
            Ok(()) if was_failing => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
