//! All requests together, by kind, by region and by tenant.

use crate::failures::Failures;
use crate::followed::Job;
use crate::latency::Latency;
use crate::report::{Figure, Report};
use crate::timeline::Timeline;

use super::{Kind, Plan, Request};

/// The times of one kind of job.
#[derive(Debug, Default)]
struct Times {
    submit: Latency,
    worker: Latency,
    active: Latency,
    over_time: Timeline,
}

impl Times {
    fn add(&mut self, job: &Job) {
        let times = [(&mut self.submit, job.submit), (&mut self.worker, job.worker)];
        for (latency, time) in times.into_iter().chain([(&mut self.active, job.active)]) {
            time.into_iter().for_each(|time| latency.record(time));
        }
        job.active.into_iter().for_each(|time| self.over_time.record(job.due, time));
    }
}

/// Everything that a run saw.
#[derive(Debug)]
pub(super) struct Tally {
    active: u64,
    failed: u64,
    stopped: u64,
    late: Latency,
    builds: Times,
    pulls: Times,
    regions: Vec<(String, Latency)>,
    tenants: Vec<Latency>,
    /// By tenant, what is to be deleted.
    pub(super) made: Vec<Vec<String>>,
    pub(super) failures: Failures,
}

impl Tally {
    pub(super) fn new(tenants: usize, regions: &[String]) -> Self {
        Self {
            active: 0,
            failed: 0,
            stopped: 0,
            late: Latency::default(),
            builds: Times::default(),
            pulls: Times::default(),
            regions: regions.iter().map(|name| (name.clone(), Latency::default())).collect(),
            tenants: vec![Latency::default(); tenants],
            made: vec![vec![]; tenants],
            failures: Failures::default(),
        }
    }

    pub(super) fn add(&mut self, request: Request, job: Job) {
        self.late.record(job.late);
        match request.kind {
            Kind::Build => self.builds.add(&job),
            Kind::Pull => self.pulls.add(&job),
        }
        if let Some(time) = job.active {
            self.tenants[request.tenant].record(time);
            self.regions[request.region].1.record(time);
        }
        match (&job.active, &job.failure) {
            (_, Some(_)) => self.failed += 1,
            (Some(_), None) => self.active += 1,
            (None, None) => self.stopped += 1,
        }
        self.made[request.tenant].extend(job.snapshot);
        job.failure.into_iter().for_each(|failure| self.failures.add(failure));
    }

    pub(super) fn ended(&self) -> u64 {
        self.active + self.failed + self.stopped
    }

    pub(super) fn line(&self) -> String {
        let p99 = |times: &Times| times.active.summary().map_or(0.0, |summary| summary.p99);
        let (builds, pulls) = (p99(&self.builds), p99(&self.pulls));
        format!("{} failed, p99 of builds {builds:.0} ms, of pulls {pulls:.0} ms", self.failed)
    }

    pub(super) fn tell(self, report: &mut Report, plan: &Plan) {
        report.figures = vec![
            Figure::count("active", self.active),
            Figure::count("failed", self.failed),
            Figure::rate("lifecycles", self.active, report.seconds),
            Figure { name: "asked for", value: plan.rate, unit: "/s" },
        ];
        report.figures.extend(spread(&self.tenants));
        report.add_latency("late start", &self.late);
        for (kind, times) in [("build", &self.builds), ("pull", &self.pulls)] {
            report.add_latency(format!("{kind}: submit answer"), &times.submit);
            report.add_latency(format!("{kind}: submit to worker"), &times.worker);
            report.add_latency(format!("{kind}: submit to active"), &times.active);
        }
        for (region, times) in &self.regions {
            report.add_latency(format!("{region}: submit to active"), times);
        }
        report.timeline = vec![
            self.builds.over_time.series("build: submit to active"),
            self.pulls.over_time.series("pull: submit to active"),
        ];
        report.failures = self.failures;
    }
}

/// How differently tenants fare: the median of the one for whom everything goes
/// fastest, that of the one for whom it goes slowest, and the same for nine of ten.
fn spread(tenants: &[Latency]) -> Vec<Figure> {
    let all: Vec<_> = tenants.iter().filter_map(Latency::summary).collect();
    let names = [
        ["tenant p50, least", "tenant p50, most", "tenant p50, spread"],
        ["tenant p90, least", "tenant p90, most", "tenant p90, spread"],
    ];
    let of = [all.iter().map(|one| one.p50).collect(), all.iter().map(|one| one.p90).collect()];
    let figures = names.into_iter().zip(of).filter_map(|(names, values): (_, Vec<f64>)| {
        let least = values.iter().copied().reduce(f64::min)?;
        let most = values.iter().copied().reduce(f64::max)?;
        let spread = most / least.max(f64::MIN_POSITIVE);
        let [a, b, c] = names;
        Some([(a, least, " ms"), (b, most, " ms"), (c, spread, "x")])
    });
    figures.flatten().map(|(name, value, unit)| Figure { name, value, unit }).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::failures::Failure;

    fn job(millis: u64) -> Job {
        let time = Some(Duration::from_millis(millis));
        Job {
            snapshot: Some(format!("s{millis}")),
            submit: time,
            worker: time,
            active: time,
            ..Job::default()
        }
    }

    #[test]
    fn the_slowest_tenant_is_held_against_the_fastest() {
        let mut tenants = vec![Latency::default(); 3];
        for (tenant, millis) in [(0, 10), (0, 30), (1, 20), (1, 90)] {
            tenants[tenant].record(Duration::from_millis(millis));
        }
        let value = |name| {
            let found = spread(&tenants).into_iter().find(|figure| figure.name == name);
            (found.unwrap().value * 10.0).round() / 10.0
        };
        assert_eq!((value("tenant p50, least"), value("tenant p50, most")), (10.0, 20.0));
        assert_eq!(value("tenant p50, spread"), 2.0);
        assert_eq!(value("tenant p90, spread"), 3.0);
        assert!(spread(&[Latency::default()]).is_empty());
    }

    #[test]
    fn each_request_counts_for_its_kind_its_region_and_its_tenant() {
        let regions = ["us".to_owned(), "eu".to_owned()];
        let mut tally = Tally::new(2, &regions);
        let build = Request { tenant: 0, region: 0, kind: Kind::Build };
        let pull = Request { tenant: 1, region: 1, kind: Kind::Pull };
        tally.add(build, job(5));
        tally.add(pull, job(7));
        tally.add(pull, job(9));
        let failure = Some(Failure::new("job", "error", "why"));
        tally.add(build, Job { failure, active: None, ..job(3) });
        tally.add(build, Job::default());
        assert_eq!((tally.active, tally.failed, tally.ended()), (3, 1, 5));
        assert_eq!(tally.made, [vec!["s5", "s3"], vec!["s7", "s9"]]);
        let mut report = Report::new("tenants", &(), "http://s/api");
        let plan = Plan {
            tenants: 2,
            count: 5,
            rate: 1.0,
            pulls: 0.5,
            image: String::new(),
            regions: regions.to_vec(),
            limit: Duration::ZERO,
        };
        tally.tell(&mut report, &plan);
        let count = |name: &str| {
            let row = report.latencies.iter().find(|row| row.name == name);
            row.map_or(0, |row| row.summary.count)
        };
        assert_eq!(count("build: submit to active"), 1);
        assert_eq!(count("build: submit answer"), 2);
        assert_eq!(count("pull: submit to active"), 2);
        assert_eq!((count("us: submit to active"), count("eu: submit to active")), (1, 2));
        assert!(!report.is_success());
    }
}
