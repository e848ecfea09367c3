//! The scenario `tenants`: builds and pulls of many organizations over several
//! regions, as a clock gives them out, and whether one of them fares worse than
//! another.
//!
//! Invariant: which tenant asks for what, and where, follows from the number of a
//! request alone, so that two runs ask for the same.

mod organizations;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;
use slipway_bus::Bus;
use tokio::time::Instant;

use crate::builds::{seconds, tiny};
use crate::error::Error;
use crate::followed::{Clock, Follower, Job};
use crate::observer::Observer;
use crate::progress::Progress;
use crate::report::Report;
use crate::run::Run;
use crate::schedule::Schedule;
pub(crate) use organizations::Tenants;
use tally::Tally;

/// The image of pulls unless another is given: simulated workers ask no registry.
pub const IMAGE: &str = "loadtest.invalid/image:{number}";

/// What to do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Organizations; from 1.
    pub tenants: usize,
    /// Requests in all.
    pub count: u64,
    /// Requests per second of all tenants together, greater than 0.
    pub rate: f64,
    /// Share of the requests that are pulls, from 0 to 1.
    pub pulls: f64,
    /// The image of a pull; `{number}` in it stands for the request's number.
    pub image: String,
    /// The regions; all that have a live worker if empty.
    pub regions: Vec<String>,
    /// After so many seconds a job counts as failed.
    #[serde(serialize_with = "seconds")]
    pub limit: Duration,
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Build,
    Pull,
}

/// One request of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Request {
    tenant: usize,
    region: usize,
    kind: Kind,
}

impl Request {
    /// Request `n` of a plan over so many regions.
    fn of(n: u64, plan: &Plan, regions: usize) -> Self {
        let mut chance = StdRng::seed_from_u64(n);
        let tenant = chance.random_range(0..plan.tenants);
        let region = chance.random_range(0..regions);
        let kind = if chance.random_bool(plan.pulls) { Kind::Pull } else { Kind::Build };
        Self { tenant, region, kind }
    }
}

/// Runs the scenario with a key that may operate the server. Its snapshots are
/// deleted when all are over, and its API keys revoked, also when the run is
/// stopped; its organizations stay for the next run.
///
/// # Errors
/// Nothing was begun: no region has a worker, or the organizations cannot be made.
pub async fn run(run: &Run, bus: &Bus, mut plan: Plan) -> Result<Report, Error> {
    if plan.regions.is_empty() {
        plan.regions = served(run).await?;
    }
    let mut report = Report::new("tenants", &plan, run.client().base().as_str());
    let observer = Arc::new(Observer::start(bus).await?);
    let tenants = Tenants::make(run, plan.tenants, plan.count).await?;
    let mut tally = Tally::new(plan.tenants, &plan.regions);
    drive(run, &observer, &plan, &tenants, &mut tally, &mut report).await;
    drop(observer);
    for (tenant, made) in tenants.runs.iter().zip(std::mem::take(&mut tally.made)) {
        tenant.delete_all(made, &mut tally.failures).await;
        report.left_behind.extend(tenant.sweep().await);
    }
    tenants.revoke(&mut report.left_behind).await;
    tally.tell(&mut report, &plan);
    Ok(report)
}

/// The regions that have a live worker.
async fn served(run: &Run) -> Result<Vec<String>, Error> {
    let regions = run.client().regions().await?;
    let served = regions.into_iter().filter(|region| region.workers > 0).map(|region| region.id);
    let served: Vec<String> = served.collect();
    if served.is_empty() { Err(Error::NoWorker) } else { Ok(served) }
}

async fn drive(
    run: &Run,
    observer: &Arc<Observer>,
    plan: &Plan,
    tenants: &Tenants,
    tally: &mut Tally,
    report: &mut Report,
) {
    let progress = Progress::new(plan.count);
    let clock = Clock::start();
    let followers: Vec<Follower> = tenants
        .runs
        .iter()
        .map(|run| Follower {
            run: run.clone(),
            observer: observer.clone(),
            limit: plan.limit,
            clock,
        })
        .collect();
    let shared = Arc::new(plan.clone());
    let start = |n, due| {
        let request = Request::of(n, plan, plan.regions.len());
        one(followers[request.tenant].clone(), shared.clone(), n, request, due)
    };
    let done = |(request, job)| {
        tally.add(request, job);
        progress.at(tally.ended());
        progress.say(tally.line());
    };
    let schedule = Schedule { count: plan.count, concurrency: usize::MAX, rate: Some(plan.rate) };
    schedule.drive(run.stop(), start, done).await;
    report.seconds = clock.begun.elapsed().as_secs_f64();
    report.stopped = run.stop().is_cancelled();
}

async fn one(
    follower: Follower,
    plan: Arc<Plan>,
    n: u64,
    request: Request,
    due: Instant,
) -> (Request, Job) {
    let region = Some(&*plan.regions[request.region]);
    let job = match request.kind {
        Kind::Build => {
            let asked = follower.run.submit(n, region, tiny());
            follower.follow(due, asked).await
        }
        Kind::Pull => {
            let image = plan.image.replace("{number}", &n.to_string());
            let asked = follower.run.submit_pull(n, region, image);
            follower.follow(due, asked).await
        }
    };
    (request, job)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(pulls: f64) -> Plan {
        Plan {
            tenants: 50,
            count: 3000,
            rate: 10.0,
            pulls,
            image: IMAGE.to_owned(),
            regions: vec![],
            limit: Duration::from_secs(1),
        }
    }

    #[test]
    fn requests_are_spread_and_the_same_in_every_run() {
        let plan = plan(0.5);
        let all: Vec<_> = (0..plan.count).map(|n| Request::of(n, &plan, 3)).collect();
        assert_eq!(all, (0..plan.count).map(|n| Request::of(n, &plan, 3)).collect::<Vec<_>>());
        for tenant in 0..plan.tenants {
            let own: Vec<_> = all.iter().filter(|request| request.tenant == tenant).collect();
            assert!((30..=90).contains(&own.len()), "{tenant}: {}", own.len());
            for kind in [Kind::Build, Kind::Pull] {
                for region in 0..3 {
                    let is = |r: &&&Request| r.kind == kind && r.region == region;
                    assert!(own.iter().any(|request| is(&request)), "{tenant} {region} {kind:?}");
                }
            }
        }
    }

    #[test]
    fn without_a_share_of_one_kind_there_is_none_of_it() {
        for (pulls, kind) in [(0.0, Kind::Build), (1.0, Kind::Pull)] {
            let plan = plan(pulls);
            assert!((0..plan.count).all(|n| Request::of(n, &plan, 1).kind == kind));
        }
    }
}
