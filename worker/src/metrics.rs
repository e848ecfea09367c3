//! What a worker counts. Labels are kinds, outcomes and phases, never ids; which
//! worker it is, the scraper or the collector adds.

use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use slipway_bus::Bus;
use slipway_domain::failure::FailureKind;
use slipway_domain::spec::JobKind;
use tracing::Instrument as _;

/// Seconds, from a cached step to a huge image.
const BOUNDS: [f64; 16] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0,
    7200.0,
];

/// A part of an attempt's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Contexts are verified, credentials opened.
    Prepare,
    /// BuildKit works, its push included.
    Solve,
    /// BuildKit exports and pushes, a part of the solve.
    Push,
    /// The source registry is asked what the image is.
    Resolve,
    /// Layers are fetched.
    Fetch,
    /// The image is read back and linked.
    Publish,
}

impl Phase {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Solve => "solve",
            Self::Push => "push",
            Self::Resolve => "resolve",
            Self::Fetch => "fetch",
            Self::Publish => "publish",
        }
    }
}

/// The worker's instruments. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    running: UpDownCounter<i64>,
    claims: Counter<u64>,
    attempts: Histogram<f64>,
    phases: Histogram<f64>,
    lost: Counter<u64>,
    pulled: Counter<u64>,
}

impl Metrics {
    /// Counts in `meter`.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        let seconds = |name, text| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(text);
            histogram.with_boundaries(BOUNDS.to_vec()).build()
        };
        let running = meter.i64_up_down_counter("slipway.worker.running");
        let running = running.with_description("Attempts that run on this worker").build();
        // Shown as 0 before anything happens.
        running.add(0, &[]);
        let lost =
            counter("slipway.worker.leases.lost", "Attempts stopped since their lease was lost");
        lost.add(0, &[]);
        let pulled = counter("slipway.pull.bytes", "Bytes of layers fetched from registries");
        pulled.add(0, &[]);
        Self {
            running,
            claims: counter("slipway.worker.claims", "Deliveries, by what became of them"),
            attempts: seconds("slipway.attempt.duration", "From claim to end of an attempt"),
            phases: seconds("slipway.attempt.phase.duration", "Time in the phases of attempts"),
            lost,
            pulled,
        }
    }

    /// Shows the number of slots, and whether NATS is there.
    pub fn observe(meter: &Meter, slots: u32, bus: &Bus) {
        let gauge = meter.u64_observable_gauge("slipway.worker.slots");
        let gauge = gauge.with_description("Attempts that this worker runs at the same time");
        let _registered =
            gauge.with_callback(move |observer| observer.observe(slots.into(), &[])).build();
        let bus = bus.clone();
        let gauge = meter.u64_observable_gauge("slipway.nats.connected");
        let gauge = gauge.with_description("Whether this process has a NATS server, 0 or 1");
        let _registered = gauge
            .with_callback(move |observer| observer.observe(u64::from(bus.is_connected()), &[]))
            .build();
    }

    /// A delivery was `claimed`, `stale`, `failed` or `unreadable`.
    pub fn delivery(&self, result: &'static str) {
        self.claims.add(1, &[KeyValue::new("result", result)]);
    }

    /// An attempt runs until what this returns is dropped.
    #[must_use]
    pub fn runs(&self) -> Running {
        self.running.add(1, &[]);
        Running(self.running.clone())
    }

    /// An attempt ended: with an image, or why not.
    pub fn ended(&self, kind: JobKind, failure: Option<FailureKind>, took: Duration) {
        self.attempt(kind, failure.map_or("published", FailureKind::as_str), took);
    }

    /// An attempt was stopped since its lease was lost.
    pub fn lease_lost(&self, kind: JobKind, took: Duration) {
        self.lost.add(1, &[]);
        self.attempt(kind, "lease_lost", took);
    }

    fn attempt(&self, kind: JobKind, outcome: &'static str, took: Duration) {
        let labels = [KeyValue::new("kind", kind.as_str()), KeyValue::new("outcome", outcome)];
        self.attempts.record(took.as_secs_f64(), &labels);
    }

    /// A phase of an attempt is over.
    pub fn phase(&self, kind: JobKind, phase: Phase, took: Duration) {
        let labels = [KeyValue::new("kind", kind.as_str()), KeyValue::new("phase", phase.as_str())];
        self.phases.record(took.as_secs_f64(), &labels);
    }

    /// Runs `work` as a phase, in a span of its name; one that fails counts, too.
    pub async fn timed<F: Future>(&self, kind: JobKind, phase: Phase, work: F) -> F::Output {
        let began = Instant::now();
        let span = tracing::info_span!("phase", otel.name = phase.as_str());
        let output = work.instrument(span).await;
        self.phase(kind, phase, began.elapsed());
        output
    }

    /// Bytes came from a source registry.
    pub fn pulled(&self, bytes: u64) {
        self.pulled.add(bytes, &[]);
    }
}

/// An attempt that is counted as running.
#[derive(Debug)]
pub struct Running(UpDownCounter<i64>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.add(-1, &[]);
    }
}
