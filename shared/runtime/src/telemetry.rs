//! What a process says about itself: log lines, spans and metrics.
//!
//! Owns their set-up from the standard environment variables, and the one
//! handle that the parts make their instruments from. Refuses to know what the
//! parts measure. Invariant: what takes telemetry (a collector, a scraper) may
//! be absent, slow or wrong, and no work waits for it.

mod export;
mod format;
pub mod http;
mod scrape;
pub mod trace;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

pub use scrape::Error as ScrapeError;

/// How long the end of a process may wait for a collector.
const FLUSH: Duration = Duration::from_secs(2);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// A process's telemetry. Clones share it.
#[derive(Debug, Clone)]
pub struct Telemetry {
    meter: Meter,
    metrics: SdkMeterProvider,
    traces: SdkTracerProvider,
    registry: prometheus::Registry,
}

/// Starts logs, traces and metrics of a process that is called `service`
/// (`slipway-worker`) where `OTEL_SERVICE_NAME` says nothing else.
///
/// `RUST_LOG` decides what is logged; without it, `info` and above of Slipway and
/// warnings of everything else. Spans and metrics are sent by OTLP over HTTP if
/// `OTEL_EXPORTER_OTLP_ENDPOINT`, or its form for one signal, is set. Logging is
/// set up once in a process; a second call changes nothing there.
#[must_use]
pub fn init(format: Format, service: &'static str) -> Telemetry {
    let resource = export::resource(service);
    let (traces, trace_problem) = export::traces(resource.clone());
    let registry = prometheus::Registry::new();
    let (metrics, metric_problem) = export::metrics(resource, &registry);
    opentelemetry::global::set_tracer_provider(traces.clone());
    start_logs(format, &traces);
    for error in trace_problem.into_iter().chain(metric_problem) {
        tracing::error!(error, "telemetry is not sent: look at the variables OTEL_EXPORTER_OTLP_*");
    }
    Telemetry { meter: metrics.meter("slipway"), metrics, traces, registry }
}

/// Instruments that count for nobody, for tests and tools.
#[must_use]
pub fn no_meter() -> Meter {
    SdkMeterProvider::builder().build().meter("none")
}

impl Telemetry {
    /// What instruments are made from.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Sends what has not been sent yet, for `FLUSH` at most. For the end of a
    /// process, outside of its runtime.
    pub fn finish(self) {
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // The exporter has said what there is to say; nobody is left to act.
            let _traces = self.traces.shutdown_with_timeout(FLUSH);
            let _metrics = self.metrics.shutdown();
            let _late = done.send(());
        });
        let _late = wait.recv_timeout(FLUSH);
    }
}

fn start_logs(format: Format, traces: &SdkTracerProvider) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    // Spans are for traces. A log line has its own fields, and the span's ids.
    let lines = filter.and(filter_fn(|metadata| metadata.is_event()));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let logs = match format {
        Format::Text => layer
            .event_format(format::WithIds::text(
                tracing_subscriber::fmt::format().with_target(false).with_ansi(colours),
            ))
            .boxed(),
        Format::Json => layer
            .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
            .event_format(format::WithIds::json(
                tracing_subscriber::fmt::format().json().flatten_event(true),
            ))
            .boxed(),
    };
    let spans = tracing_opentelemetry::layer()
        .with_tracer(traces.tracer("slipway"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|metadata| {
            metadata.is_span()
                && *metadata.level() <= Level::INFO
                && metadata.target().starts_with("slipway")
        }));
    // A failure means that a subscriber is set already, as in tests.
    let _already_set =
        tracing_subscriber::registry().with(spans).with(logs.with_filter(lines)).try_init();
}

const DEFAULT_FILTER: &str = "warn,slipway=info,slipway_scheduler=info,slipway_worker=info,\
    slipway_bus=info,slipway_registry=info,slipway_buildkit=info,slipway_blobstore=info,\
    slipway_runtime=info";

/// An error with its whole chain on one line, as log lines show it.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
