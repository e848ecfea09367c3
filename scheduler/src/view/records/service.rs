//! What runs now, and how long jobs take, without looking at all of them.
//!
//! Invariant: the counts are those of the jobs that are known.

use std::collections::HashMap;
use std::hash::Hash;

use slipway_domain::{Class, OrganizationId, Region};

use super::outline::{JobOutline, JobStage};

/// How much the latest job weighs in the mean.
const LATEST: f64 = 0.2;

/// What runs now.
#[derive(Debug, Default)]
pub struct Service {
    queues: HashMap<Region, HashMap<Class, usize>>,
    organizations: HashMap<OrganizationId, usize>,
    /// Seconds that jobs took.
    seconds: HashMap<Region, HashMap<Class, f64>>,
}

impl Service {
    /// Jobs of a region and class that workers hold.
    #[must_use]
    pub fn running(&self, region: &Region, class: Class) -> usize {
        let known = self.queues.get(region).and_then(|classes| classes.get(&class));
        known.copied().unwrap_or_default()
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
        self.seconds.get(region)?.get(&class).copied()
    }

    /// A job changed, came or went.
    pub(super) fn changed(&mut self, before: Option<&JobOutline>, after: Option<&JobOutline>) {
        if let Some(job) = before.filter(|job| is_running(job)) {
            self.count(job, |count| *count = count.saturating_sub(1));
        }
        let Some(job) = after else { return };
        if is_running(job) {
            self.count(job, |count| *count += 1);
        } else if let Some(seconds) = took(job)
            && before.is_none_or(|before| took(before).is_none())
        {
            let means = entry(&mut self.seconds, &job.region);
            let mean = means.entry(job.class).or_insert(seconds);
            *mean += (seconds - *mean) * LATEST;
        }
    }

    fn count(&mut self, job: &JobOutline, change: fn(&mut usize)) {
        change_in(entry(&mut self.queues, &job.region), &job.class, change);
        change_in(&mut self.organizations, &job.organization, change);
    }
}

/// What is kept for a region.
fn entry<'a, T: Default>(all: &'a mut HashMap<Region, T>, region: &Region) -> &'a mut T {
    if !all.contains_key(region) {
        all.insert(region.clone(), T::default());
    }
    all.get_mut(region).expect("it was put in above")
}

/// Changes a count; one of nothing takes no room.
fn change_in<K: Clone + Eq + Hash>(all: &mut HashMap<K, usize>, of: &K, change: fn(&mut usize)) {
    let count = all.entry(of.clone()).or_default();
    change(count);
    if *count == 0 {
        all.remove(of);
    }
}

const fn is_running(job: &JobOutline) -> bool {
    matches!(job.stage, JobStage::Running)
}

/// How long the last attempt of a job took that made an image, or could not for its
/// own fault.
fn took(job: &JobOutline) -> Option<f64> {
    if !matches!(job.stage, JobStage::Succeeded | JobStage::Failed) {
        return None;
    }
    let (started, ended) = job.last?;
    Some(ended.duration_since(started).as_secs_f64().max(0.0))
}
