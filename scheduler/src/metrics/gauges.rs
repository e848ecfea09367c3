//! What is shown as it stands at the moment of a scrape.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use slipway_bus::Bus;
use slipway_domain::job::JobState;
use slipway_domain::{Class, Region};

use crate::view::View;

/// How long one look at all open jobs serves: longer than one scrape takes.
const FRESH: Duration = Duration::from_millis(500);

type Queue = (Region, Class);

/// Jobs of one region and class.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Backlog {
    pub(super) queued: u64,
    pub(super) running: u64,
    /// Seconds that the oldest queued job has waited since its submission.
    pub(super) oldest: f64,
}

/// Looks at open jobs, once for all the gauges of a scrape.
struct Looker {
    view: Arc<View>,
    queues: Vec<Queue>,
    last: Mutex<Option<(Instant, BTreeMap<Queue, Backlog>)>>,
}

/// Shows what `view` and `bus` hold, in `meter`. Every one of `queues` is shown,
/// also while nothing is in it.
pub fn observe(meter: &Meter, view: &Arc<View>, queues: Vec<Queue>, bus: &Bus) {
    let looker = Arc::new(Looker { view: view.clone(), queues, last: Mutex::default() });
    backlog_gauge(meter, &looker, "slipway.jobs.queued", "Jobs that wait for a worker", |b| {
        b.queued as f64
    });
    backlog_gauge(meter, &looker, "slipway.jobs.running", "Jobs that a worker holds", |b| {
        b.running as f64
    });
    let text = "Seconds that the oldest waiting job has waited since it was submitted";
    backlog_gauge(meter, &looker, "slipway.jobs.queue.age", text, |b| b.oldest);
    let seen = looker.clone();
    let workers = meter.u64_observable_gauge("slipway.workers");
    let workers = workers.with_description("Live workers, by region and whether they take jobs");
    let _registered = workers.with_callback(move |observer| seen.workers(observer, |_| 1)).build();
    let slots = meter.u64_observable_gauge("slipway.slots");
    let slots = slots.with_description("Slots of live workers");
    let _registered =
        slots.with_callback(move |observer| looker.workers(observer, u64::from)).build();
    let bus = bus.clone();
    let connected = meter.u64_observable_gauge("slipway.nats.connected");
    let connected = connected.with_description("Whether this process has a NATS server, 0 or 1");
    let _registered = connected
        .with_callback(move |observer| observer.observe(u64::from(bus.is_connected()), &[]))
        .build();
}

fn backlog_gauge(
    meter: &Meter,
    looker: &Arc<Looker>,
    name: &'static str,
    text: &'static str,
    value: fn(&Backlog) -> f64,
) {
    let looker = looker.clone();
    let gauge = meter.f64_observable_gauge(name).with_description(text);
    let gauge = if name.ends_with("age") { gauge.with_unit("s") } else { gauge };
    let _registered = gauge
        .with_callback(move |observer| {
            for ((region, class), backlog) in looker.look() {
                let labels = [
                    KeyValue::new("region", region.to_string()),
                    KeyValue::new("class", class.as_str()),
                ];
                observer.observe(value(&backlog), &labels);
            }
        })
        .build();
}

impl Looker {
    fn look(&self) -> BTreeMap<Queue, Backlog> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, backlogs)) = &*last
            && at.elapsed() < FRESH
        {
            return backlogs.clone();
        }
        let backlogs = backlogs(&self.view, &self.queues, Timestamp::now());
        *last = Some((Instant::now(), backlogs.clone()));
        backlogs
    }

    fn workers(&self, observer: &dyn AsyncInstrument<u64>, value: fn(u32) -> u64) {
        let mut sums: BTreeMap<(Region, bool), u64> = BTreeMap::new();
        for (region, _) in &self.queues {
            sums.insert((region.clone(), false), 0);
        }
        let fleet = self.view.fleet();
        for worker in fleet.workers() {
            let key = (worker.region.clone(), fleet.is_draining(worker));
            *sums.entry(key).or_default() += value(worker.slots);
        }
        for ((region, draining), sum) in sums {
            let labels =
                [KeyValue::new("region", region.to_string()), KeyValue::new("draining", draining)];
            observer.observe(sum, &labels);
        }
    }
}

/// Every one of `queues`, and those that have open jobs although the
/// configuration does not name them any more.
pub(super) fn backlogs(view: &View, queues: &[Queue], now: Timestamp) -> BTreeMap<Queue, Backlog> {
    let mut all: BTreeMap<Queue, Backlog> =
        queues.iter().map(|queue| (queue.clone(), Backlog::default())).collect();
    for job in view.records().open_jobs() {
        let job = &job.value;
        let entry = || (job.region.clone(), job.class);
        match &job.state {
            JobState::Queued { .. } => {
                let backlog = all.entry(entry()).or_default();
                backlog.queued += 1;
                backlog.oldest = backlog.oldest.max(super::seconds(job.created_at, now));
            }
            JobState::Running { .. } => all.entry(entry()).or_default().running += 1,
            JobState::Succeeded { .. }
            | JobState::Failed { .. }
            | JobState::Cancelled
            | JobState::Dead { .. } => {}
        }
    }
    all
}
