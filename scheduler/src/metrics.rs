//! What the scheduler counts and shows.
//!
//! Labels are regions, classes, kinds and reasons, never ids. Counters count what
//! this replica stored itself, so that the sum over replicas is the truth; gauges
//! show what this replica sees, which is the same for all of them.

mod gauges;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use slipway_domain::Region;
use slipway_domain::job::{AttemptRecord, JobRecord, JobState};
use slipway_domain::spec::JobKind;

pub use gauges::observe;

/// Seconds that a job waits or takes: from a cached build to a huge image.
const BOUNDS: [f64; 16] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 1800.0, 3600.0,
    7200.0,
];

/// The scheduler's instruments. Clones share them.
#[derive(Debug, Clone)]
pub struct Metrics {
    submitted: Counter<u64>,
    attempts: Counter<u64>,
    ended: Counter<u64>,
    waited: Histogram<f64>,
    took: Histogram<f64>,
    steps: Counter<u64>,
    bytes: Counter<u64>,
    lost: Counter<u64>,
    events: Counter<u64>,
}

impl Metrics {
    /// Counts in `meter`. What must be noticed when it first happens is shown as 0
    /// for each of `regions` until then.
    #[must_use]
    pub fn new<'a>(meter: &Meter, regions: impl Iterator<Item = &'a Region>) -> Self {
        let counter = |name, text| meter.u64_counter(name).with_description(text).build();
        let seconds = |name, text| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(text);
            histogram.with_boundaries(BOUNDS.to_vec()).build()
        };
        let lost = counter("slipway.leases.lost", "Claims whose lease was lost");
        regions.for_each(|region| lost.add(0, &[KeyValue::new("region", region.to_string())]));
        Self {
            submitted: counter("slipway.jobs.submitted", "Jobs that were stored"),
            attempts: counter(
                "slipway.attempts.ended",
                "Attempts that ended, by what came of them",
            ),
            ended: counter("slipway.jobs.ended", "Jobs that are over, by state and reason"),
            waited: seconds("slipway.job.queue.wait", "From the queue to a worker, per attempt"),
            took: seconds("slipway.job.duration", "From submission to the end of the job"),
            steps: counter(
                "slipway.job.steps",
                "Steps of builds and layers of pulls, by whether they were there already",
            ),
            bytes: counter("slipway.snapshots.bytes", "Compressed bytes of published snapshots"),
            lost,
            events: counter("slipway.events", "Events of workers, by what became of them"),
        }
    }

    /// A job was stored.
    pub fn submitted(&self, job: &JobRecord) {
        self.submitted.add(1, &of(job));
    }

    /// A job moved, and that is stored.
    pub fn moved(&self, before: &JobRecord, next: &JobRecord) {
        if let (JobState::Queued { not_before, .. }, JobState::Running { .. }) =
            (&before.state, &next.state)
        {
            let due = not_before.map_or(before.updated_at, |time| time.max(before.updated_at));
            self.waited.record(seconds(due, next.updated_at), &of(next));
        }
        for attempt in newly_ended(before, next) {
            let [region, class, kind] = of(next);
            self.attempts.add(1, &[region, class, kind, outcome(attempt, next)]);
        }
        if next.state.is_over() && !before.state.is_over() {
            self.over(next);
        }
    }

    fn over(&self, job: &JobRecord) {
        let [region, class, kind] = of(job);
        let state = KeyValue::new("state", job.state.name());
        let reason = job.state.failure().map_or("none", |failure| failure.kind.as_str());
        let reason = KeyValue::new("reason", reason);
        let labels = [region.clone(), class, kind.clone(), state, reason];
        self.ended.add(1, &labels);
        self.took.record(seconds(job.created_at, job.updated_at), &labels[..4]);
        if let JobState::Succeeded { image, .. } = &job.state {
            let (cached, total) = (u64::from(image.cached_steps), u64::from(image.total_steps));
            let result = |word| [region.clone(), kind.clone(), KeyValue::new("result", word)];
            self.steps.add(cached, &result("cached"));
            self.steps.add(total.saturating_sub(cached), &result("done"));
            self.bytes.add(image.size, &[region.clone(), kind.clone()]);
        }
    }

    /// A claim lost its lease.
    pub fn lease_lost(&self, region: &Region) {
        self.lost.add(1, &[KeyValue::new("region", region.to_string())]);
    }

    /// An event of a worker was `applied`, `refused`, `unknown`, or `unreadable`.
    pub fn event(&self, result: &'static str) {
        self.events.add(1, &[KeyValue::new("result", result)]);
    }
}

fn of(job: &JobRecord) -> [KeyValue; 3] {
    labels(&job.region, job.class.as_str(), job.kind)
}

fn labels(region: &Region, class: &'static str, kind: JobKind) -> [KeyValue; 3] {
    [
        KeyValue::new("region", region.to_string()),
        KeyValue::new("class", class),
        KeyValue::new("kind", kind.as_str()),
    ]
}

/// Attempts of `next` that had not ended in `before`.
fn newly_ended<'a>(
    before: &'a JobRecord,
    next: &'a JobRecord,
) -> impl Iterator<Item = &'a AttemptRecord> {
    let had_ended = |attempt: &AttemptRecord| {
        let known = before.attempts.iter().find(|known| known.number == attempt.number);
        known.is_some_and(|known| known.ended_at.is_some())
    };
    next.attempts.iter().filter(move |attempt| attempt.ended_at.is_some() && !had_ended(attempt))
}

fn outcome(attempt: &AttemptRecord, job: &JobRecord) -> KeyValue {
    let word = match (&attempt.failure, &job.state) {
        (Some(failure), _) => failure.kind.as_str(),
        (None, JobState::Cancelled) => "cancelled",
        (None, _) => "published",
    };
    KeyValue::new("outcome", word)
}

/// Seconds between two moments, by a clock that may have been set back between.
fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64().max(0.0)
}
