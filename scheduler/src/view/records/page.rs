//! Pages of snapshots and jobs, and the few of many that somebody asks for.
//!
//! Owns what they are found by: each organization's orders, and snapshots by image.
//! Reads a record only if it is part of the answer, and counts without reading any.
//! What no index knows (a part of a name, regions) is found by a walk over names or
//! regions alone. Invariant: an index holds what the records say, no more and no less.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use slipway_domain::job::JobRecord;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{JobId, OrganizationId, Region, SnapshotId};
use slipway_oci::Digest;

use super::loading::Journal;
use super::needle::Needle;
use super::orders::{Line, Order, Orders, beginning};
use super::outline::{JobOutline, JobStage, SnapshotOutline};
use super::{Entry, Records};
use crate::view::ranked::Ranked;

/// So many snapshots are rather read and sorted than found by a walk over all.
const FEW: usize = 1000;

/// Which part of an organization's snapshots.
pub struct Listing<'a> {
    /// In which order.
    pub order: Order,
    /// Only names that contain this, in whatever case.
    pub name: Option<Needle<'a>>,
    /// Only regions for which this holds.
    pub regions: &'a dyn Fn(&Region) -> bool,
    /// So many are left out.
    pub start: usize,
    /// At most so many.
    pub limit: usize,
}

impl Listing<'_> {
    fn has(&self, record: &SnapshotRecord) -> bool {
        (self.regions)(&record.region)
            && self.name.as_ref().is_none_or(|needle| needle.is_in(&record.name))
    }
}

/// A part of a list.
#[derive(Debug)]
pub struct Page {
    /// The snapshots.
    pub items: Vec<Arc<SnapshotRecord>>,
    /// How many the whole list has.
    pub total: usize,
}

/// Which part of an organization's jobs, newest first.
pub struct Jobs<'a> {
    /// Only those older than this.
    pub after: Option<JobId>,
    /// Only those in a state of this name.
    pub state: Option<&'a str>,
    /// Only those of a region of this name.
    pub region: Option<&'a str>,
    /// At most so many.
    pub limit: usize,
}

/// A job as far as a list is filtered by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct JobLine {
    pub(super) id: JobId,
    stage: JobStage,
    region: [u8; 2],
}

/// What one organization has.
#[derive(Debug, Default)]
struct Own {
    snapshots: Orders,
    /// How many snapshots lie in which region.
    regions: HashMap<u16, usize>,
    jobs: Ranked<JobLine>,
}

/// What pages are found by.
#[derive(Debug, Default)]
pub(super) struct Index {
    own: HashMap<OrganizationId, Own>,
    /// Snapshots with an image, by the beginning of its digest.
    images: Ranked<(u64, SnapshotId)>,
    /// Regions by number; few.
    regions: Vec<Region>,
}

impl Index {
    /// The number of a region, which it gets if it has none.
    fn region(&mut self, region: &Region) -> u16 {
        let found = self.regions.iter().position(|known| known == region);
        let number = found.unwrap_or_else(|| {
            self.regions.push(region.clone());
            self.regions.len() - 1
        });
        u16::try_from(number).expect("there are fewer regions than two bytes can count")
    }

    /// What a snapshot is found by.
    pub(super) fn line(&mut self, snapshot: &SnapshotOutline, name: Arc<str>) -> Line {
        let region = self.region(&snapshot.region);
        Line::new(snapshot, name, region)
    }

    /// What a job is found by.
    pub(super) fn job_line(&mut self, job: &JobOutline) -> JobLine {
        JobLine { id: job.id, stage: job.stage, region: self.region(&job.region).to_ne_bytes() }
    }

    /// Takes in very many jobs at once, where there are none yet.
    pub(super) fn fill_jobs(&mut self, jobs: &Journal<(OrganizationId, JobLine)>) {
        let mut all: HashMap<OrganizationId, Vec<JobLine>> = HashMap::new();
        for (of, line) in jobs.iter() {
            all.entry(*of).or_default().push(*line);
        }
        for (of, lines) in all {
            self.own.entry(of).or_default().jobs = lines.into_iter().collect();
        }
    }

    /// Takes in very many snapshots at once, where there are none yet.
    pub(super) fn fill_snapshots(&mut self, snapshots: &Journal<Line>) {
        self.images = snapshots.iter().filter_map(|line| Some((line.image?, line.id))).collect();
        let mut all: HashMap<OrganizationId, Vec<&Line>> = HashMap::new();
        for line in snapshots.iter() {
            all.entry(line.organization).or_default().push(line);
        }
        for (of, lines) in all {
            let own = self.own.entry(of).or_default();
            for line in &lines {
                *own.regions.entry(line.region).or_default() += 1;
            }
            own.snapshots = Orders::of(&lines);
        }
    }

    pub(super) fn add_snapshot(&mut self, line: Line) {
        if let Some(image) = line.image {
            self.images.insert((image, line.id));
        }
        let own = self.own.entry(line.organization).or_default();
        *own.regions.entry(line.region).or_default() += 1;
        own.snapshots.add(line);
    }

    pub(super) fn remove_snapshot(&mut self, line: Line) {
        if let Some(image) = line.image {
            self.images.remove(&(image, line.id));
        }
        let organization = line.organization;
        let Some(own) = self.own.get_mut(&organization) else { return };
        if let Some(count) = own.regions.get_mut(&line.region) {
            *count -= 1;
        }
        own.regions.retain(|_, count| *count > 0);
        own.snapshots.remove(line);
        self.drop_if_empty(&organization);
    }

    pub(super) fn add_job(&mut self, of: OrganizationId, line: JobLine) {
        self.own.entry(of).or_default().jobs.insert(line);
    }

    pub(super) fn remove_job(&mut self, of: &OrganizationId, line: &JobLine) {
        let Some(own) = self.own.get_mut(of) else { return };
        own.jobs.remove(line);
        self.drop_if_empty(of);
    }

    fn drop_if_empty(&mut self, organization: &OrganizationId) {
        let is_empty = |own: &Own| own.snapshots.len() + own.jobs.len() == 0;
        if self.own.get(organization).is_some_and(is_empty) {
            self.own.remove(organization);
        }
    }
}

impl Records {
    /// A part of an organization's own snapshots.
    #[must_use]
    pub fn page(&self, organization: &OrganizationId, listing: &Listing<'_>) -> Page {
        let Some(own) = self.index.own.get(organization) else {
            return Page { items: vec![], total: 0 };
        };
        let &Listing { order, start, limit, .. } = listing;
        let (total, ids): (usize, Vec<SnapshotId>) = match self.fitting(own, listing) {
            None => (own.snapshots.len(), own.snapshots.list(order, start).take(limit).collect()),
            Some(fits) if fits.len() <= FEW => return self.sorted(&fits, listing),
            Some(fits) => {
                let found = own.snapshots.list(order, 0).filter(|id| fits.contains(id));
                // Nobody walks to the end for what begins after it.
                let wanted = if start < fits.len() { limit } else { 0 };
                (fits.len(), found.skip(start).take(wanted).collect())
            }
        };
        let items = ids.iter().filter_map(|id| self.snapshots.get(id)).map(|entry| entry.value);
        Page { items: items.collect(), total }
    }

    /// A part of a few snapshots.
    fn sorted(&self, few: &HashSet<SnapshotId>, listing: &Listing<'_>) -> Page {
        let found = few.iter().filter_map(|id| self.snapshots.get(id)).map(|entry| entry.value);
        let mut items: Vec<_> = found.collect();
        items.sort_by(|a, b| listing.order.compare(a, b));
        let total = items.len();
        let items = items.into_iter().skip(listing.start).take(listing.limit).collect();
        Page { items, total }
    }

    /// A part of the snapshots that an organization may see: its own, then general ones
    /// of others.
    #[must_use]
    pub fn visible_page(&self, organization: &OrganizationId, listing: &Listing<'_>) -> Page {
        let mut page = self.page(organization, listing);
        let mut general: Vec<&Arc<SnapshotRecord>> = self
            .general()
            .map(|entry| &entry.value)
            .filter(|record| record.organization != *organization && listing.has(record))
            .collect();
        general.sort_by(|a, b| listing.order.compare(a, b));
        let start = listing.start.saturating_sub(page.total);
        let room = listing.limit - page.items.len();
        page.total += general.len();
        page.items.extend(general.into_iter().skip(start).take(room).cloned());
        page
    }

    /// The snapshots that fit, unless all do.
    fn fitting(&self, own: &Own, listing: &Listing<'_>) -> Option<HashSet<SnapshotId>> {
        let fits = |region: u16| {
            self.index
                .regions
                .get(usize::from(region))
                .is_some_and(|region| (listing.regions)(region))
        };
        let everywhere = own.regions.keys().all(|region| fits(*region));
        let within = (!everywhere).then(|| own.snapshots.within(fits));
        let named = listing.name.as_ref().filter(|needle| !needle.is_empty());
        let named = named.map(|needle| own.snapshots.named(needle));
        match (within, named) {
            (Some(within), Some(named)) => Some(within.intersection(&named).copied().collect()),
            (within, named) => within.or(named),
        }
    }

    /// A part of an organization's jobs on which a snapshot stands and that are
    /// `wanted`, newest first.
    #[must_use]
    pub fn jobs_of(
        &self,
        organization: &OrganizationId,
        which: &Jobs<'_>,
        wanted: impl Fn(&JobRecord) -> bool,
    ) -> Vec<Arc<JobRecord>> {
        let Some(own) = self.index.own.get(organization) else { return vec![] };
        let end = which.after.map_or(own.jobs.len(), |after| own.jobs.rank(|job| job.id < after));
        let region =
            |job: &JobLine| self.index.regions.get(usize::from(u16::from_ne_bytes(job.region)));
        let fits = own.jobs.down_from(end).filter(|job| {
            which.state.is_none_or(|wanted| job.stage.name() == wanted)
                && which
                    .region
                    .is_none_or(|wanted| region(job).is_some_and(|r| r.as_str() == wanted))
                && self.follower_ids(job.id).next().is_some()
        });
        let jobs = fits.filter_map(|job| self.jobs.get(&job.id)).map(|entry| entry.value);
        jobs.filter(|job| wanted(job)).take(which.limit).collect()
    }

    /// Snapshots of whatever organization with this image.
    pub fn of_image(&self, digest: &Digest) -> impl Iterator<Item = Entry<SnapshotRecord>> {
        let (digest, beginning) = (*digest, beginning(digest));
        let first = self.index.images.rank(|(other, _)| *other < beginning);
        let ids = self.index.images.from(first).take_while(move |(other, _)| *other == beginning);
        let entries = ids.filter_map(|(_, id)| self.snapshots.get(id));
        entries.filter(move |entry| {
            entry.value.state.image().is_some_and(|image| image.digest == digest)
        })
    }

    /// An organization's active snapshots that were of no use since `before`, and all
    /// of its others with the same images, each once.
    #[must_use]
    pub fn idle(
        &self,
        organization: &OrganizationId,
        before: Timestamp,
    ) -> Vec<Arc<SnapshotRecord>> {
        let Some(own) = self.index.own.get(organization) else { return vec![] };
        let entries = own.snapshots.idle(before).filter_map(|id| self.snapshots.get(&id));
        let images: HashSet<Digest> =
            entries.filter_map(|entry| Some(entry.value.state.image()?.digest)).collect();
        let twins = images.iter().flat_map(|digest| self.of_image(digest));
        twins.map(|entry| entry.value).filter(|one| one.organization == *organization).collect()
    }
}
