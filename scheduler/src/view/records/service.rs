//! What runs now, and how long jobs take, without looking at all of them.
//!
//! Invariant: the counts are those of the jobs that are known.

use std::collections::HashMap;

use slipway_domain::job::{JobRecord, JobState};
use slipway_domain::{Class, OrganizationId, Region};

/// How much the latest job weighs in the mean.
const LATEST: f64 = 0.2;

/// What runs now.
#[derive(Debug, Default)]
pub struct Service {
    queues: HashMap<Region, HashMap<Class, Queue>>,
    organizations: HashMap<OrganizationId, usize>,
}

#[derive(Debug, Default)]
struct Queue {
    running: usize,
    seconds: Option<f64>,
}

impl Service {
    /// Jobs of a region and class that a worker holds.
    #[must_use]
    pub fn running(&self, region: &Region, class: Class) -> usize {
        self.queue(region, class).map_or(0, |queue| queue.running)
    }

    /// Jobs of an organization that workers hold.
    #[must_use]
    pub fn running_of(&self, organization: &OrganizationId) -> usize {
        self.organizations.get(organization).copied().unwrap_or_default()
    }

    /// How many seconds a worker had a job of a region and class lately; the later the
    /// job, the more it counts.
    #[must_use]
    pub fn seconds(&self, region: &Region, class: Class) -> Option<f64> {
        self.queue(region, class)?.seconds
    }

    fn queue(&self, region: &Region, class: Class) -> Option<&Queue> {
        self.queues.get(region)?.get(&class)
    }

    /// A job changed, came or went.
    pub(super) fn changed(&mut self, before: Option<&JobRecord>, after: Option<&JobRecord>) {
        if let Some(job) = before.filter(|job| is_running(job)) {
            self.count(job, |count| count.saturating_sub(1));
        }
        let Some(job) = after else { return };
        if is_running(job) {
            self.count(job, |count| count + 1);
        } else if let Some(seconds) = took(job)
            && before.is_none_or(|before| took(before).is_none())
        {
            let mean = &mut self.entry(job).seconds;
            *mean = Some(mean.map_or(seconds, |mean| mean + (seconds - mean) * LATEST));
        }
    }

    fn count(&mut self, job: &JobRecord, change: fn(usize) -> usize) {
        let queue = self.entry(job);
        queue.running = change(queue.running);
        let of = self.organizations.entry(job.organization).or_default();
        *of = change(*of);
        if *of == 0 {
            self.organizations.remove(&job.organization);
        }
    }

    fn entry(&mut self, job: &JobRecord) -> &mut Queue {
        if !self.queues.contains_key(&job.region) {
            self.queues.insert(job.region.clone(), HashMap::new());
        }
        let region = self.queues.get_mut(&job.region).expect("it was put in above");
        region.entry(job.class).or_default()
    }
}

const fn is_running(job: &JobRecord) -> bool {
    matches!(job.state, JobState::Running { .. })
}

/// How long the last attempt of a job took that made an image, or could not for its
/// own fault.
fn took(job: &JobRecord) -> Option<f64> {
    if !matches!(job.state, JobState::Succeeded { .. } | JobState::Failed { .. }) {
        return None;
    }
    let last = job.attempts.last()?;
    Some(last.ended_at?.duration_since(last.started_at?).as_secs_f64().max(0.0))
}
