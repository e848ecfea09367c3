//! Snapshots, names and jobs by id.

mod begun;
mod debris;
mod loading;
mod names;
mod needle;
mod orders;
mod outline;
mod page;
mod rest;
mod service;
#[cfg(test)]
mod tests;
mod usage;
mod value;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use slipway_domain::job::{JobRecord, LogState};
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{JobId, OrganizationId, SnapshotId};

pub use debris::Debris;
pub use names::{Name, name_of};
pub use needle::Needle;
pub use orders::{Order, SortKey};
pub use page::{Jobs, Listing};
pub use service::Service;
pub use usage::Usage;
pub use value::{Key, Packers, Ready, Value, Watched};

use super::kept::{Kept, Prepared};
use super::ranked::Ranked;
use loading::Loading;
use names::Names;
use orders::Line;
use outline::SnapshotStage;
use page::Index;

/// A record with the revision under which it is stored.
#[derive(Debug)]
pub struct Entry<T> {
    /// The record.
    pub value: Arc<T>,
    /// Its revision in the bucket, for compare-and-set.
    pub revision: u64,
}

impl<T> Clone for Entry<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), revision: self.revision }
    }
}

/// All snapshots and jobs.
#[derive(Debug, Default)]
pub struct Records {
    snapshots: Kept<SnapshotId, SnapshotRecord>,
    names: Names,
    jobs: Kept<JobId, JobRecord>,
    /// Jobs that a reconciler has yet to finish: not over, or log not archived.
    open: HashSet<JobId>,
    /// Snapshots that a reconciler has yet to remove.
    removing: HashSet<SnapshotId>,
    /// Snapshots that every organization may use.
    general: HashSet<SnapshotId>,
    /// Snapshots whose job has yet to say how it ended.
    waiting: HashSet<SnapshotId>,
    /// Which snapshots stand on which job.
    followers: Ranked<(JobId, SnapshotId)>,
    /// What pages are found by.
    index: Index,
    /// How many snapshots of which state an organization has.
    usage: HashMap<OrganizationId, Usage>,
    /// What runs now.
    service: Service,
    /// The last revision that the watch brought.
    watched: u64,
    /// What has come while very many come at once, and is in no index yet.
    loading: Option<Loading>,
}

impl Records {
    /// A snapshot by id.
    #[must_use]
    pub fn snapshot(&self, id: &SnapshotId) -> Option<Entry<SnapshotRecord>> {
        self.snapshots.get(id)
    }

    /// A snapshot of an organization, by its name or, failing that, by its id.
    #[must_use]
    pub fn find(
        &self,
        organization: &OrganizationId,
        id_or_name: &str,
    ) -> Option<Entry<SnapshotRecord>> {
        let named = self.names.holder(organization, id_or_name);
        let id = named.or_else(|| id_or_name.parse().ok())?;
        self.snapshots.get(&id).filter(|entry| entry.value.organization == *organization)
    }

    /// Snapshots that every organization may use.
    pub fn general(&self) -> impl Iterator<Item = &Entry<SnapshotRecord>> {
        self.general.iter().filter_map(|id| self.snapshots.live(id))
    }

    /// A snapshot that an organization may see: its own of that name, else a
    /// general one of that name, else its own or a general one by id.
    #[must_use]
    pub fn visible(
        &self,
        organization: &OrganizationId,
        id_or_name: &str,
    ) -> Option<Entry<SnapshotRecord>> {
        if let Some(id) = self.names.holder(organization, id_or_name) {
            return self.snapshots.get(&id);
        }
        let mut named = self.general().filter(|entry| entry.value.name == id_or_name);
        let oldest = named.next().map(|first| named.fold(first, older));
        let by_id = || self.snapshots.get(&id_or_name.parse().ok()?);
        oldest.cloned().or_else(|| {
            by_id().filter(|entry| entry.value.organization == *organization || entry.value.general)
        })
    }

    /// A job by id.
    #[must_use]
    pub fn job(&self, id: &JobId) -> Option<Entry<JobRecord>> {
        self.jobs.get(id)
    }

    /// Jobs that are not over or whose log is not archived yet.
    pub fn open_jobs(&self) -> impl Iterator<Item = &Entry<JobRecord>> {
        self.open.iter().filter_map(|id| self.jobs.live(id))
    }

    /// What runs now.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// Snapshots that are being removed.
    pub fn removing(&self) -> impl Iterator<Item = &Entry<SnapshotRecord>> {
        self.removing.iter().filter_map(|id| self.snapshots.live(id))
    }

    /// Snapshots whose job has yet to say how it ended.
    pub fn waiting(&self) -> impl Iterator<Item = &Entry<SnapshotRecord>> {
        self.waiting.iter().filter_map(|id| self.snapshots.live(id))
    }

    /// The snapshots that stand on a job, by id.
    pub fn followers(&self, job: JobId) -> impl Iterator<Item = Entry<SnapshotRecord>> {
        self.follower_ids(job).filter_map(|id| self.snapshots.get(&id))
    }

    fn follower_ids(&self, job: JobId) -> impl Iterator<Item = SnapshotId> {
        let first = self.followers.rank(|(other, _)| *other < job);
        let pairs = self.followers.from(first).take_while(move |(other, _)| *other == job);
        pairs.map(|(_, id)| *id)
    }

    /// How many snapshots of which state an organization has.
    #[must_use]
    pub fn usage(&self, organization: &OrganizationId) -> Option<&Usage> {
        self.usage.get(organization)
    }

    /// Jobs that have told a snapshot less than they should have.
    pub fn owing(&self) -> impl Iterator<Item = JobId> {
        let waiting = self.waiting().map(|entry| &entry.value);
        waiting.filter(|snapshot| self.is_behind(snapshot)).map(|snapshot| snapshot.job)
    }

    /// Whether the job of a snapshot has told it less than it should have.
    #[must_use]
    pub fn is_behind(&self, snapshot: &SnapshotRecord) -> bool {
        // A job that rests was never redriven, so it has no more to say to a snapshot
        // that does not wait.
        let job = match snapshot.waits() {
            true => self.jobs.get(&snapshot.job),
            false => self.jobs.live(&snapshot.job).cloned(),
        };
        job.is_some_and(|job| snapshot.follow(&job.value).is_some())
    }

    /// The job of a snapshot, if it has told it less than it should have. Reads no
    /// record that rests on account of a job that does.
    #[must_use]
    pub fn behind(&self, id: &SnapshotId, job: &JobId) -> Option<JobId> {
        self.snapshots.live(id).map(|_| ()).or_else(|| self.jobs.live(job).map(|_| ()))?;
        let snapshot = self.snapshots.get(id)?.value;
        self.is_behind(&snapshot).then_some(snapshot.job)
    }

    /// Whether every snapshot that stands on a job has heard how it ended. A job
    /// that is gone has nothing to say, nor has one that was redriven since `life`.
    #[must_use]
    pub fn is_told(&self, job: &JobId, life: u32) -> bool {
        let Some(record) = self.jobs.get(job).map(|entry| entry.value) else { return true };
        let is_over = record.state.is_over() || record.revival.redrives > life;
        is_over && !self.followers(*job).any(|snapshot| self.is_behind(&snapshot.value))
    }

    /// What packs values ahead.
    #[must_use]
    pub fn packers(&self) -> Packers {
        Packers { snapshots: self.snapshots.packer(), jobs: self.jobs.packer() }
    }

    /// Takes in a change that the watch brought.
    pub fn watched(&mut self, change: Watched, revision: u64) {
        match change {
            Watched::Put(value) => self.store(*value, revision),
            Watched::Deleted(key) => self.delete(&key, revision),
        }
        self.watched = self.watched.max(revision);
    }

    /// Takes in a value that was read or written past the watch. One that the
    /// watch has passed and that is not here was deleted since.
    pub fn put(&mut self, value: Value, revision: u64) {
        let known = match &value {
            Value::Snapshot(record) => self.snapshots.has(&record.id),
            Value::Job(record) => self.jobs.has(&record.id),
            Value::Name(name, _) => self.names.has_record(name),
        };
        if known || revision > self.watched {
            self.store(value.into(), revision);
        }
    }

    fn store(&mut self, value: Ready, revision: u64) {
        match value {
            Ready::Snapshot(record) => self.put_snapshot(record, revision),
            Ready::Job(record) => self.put_job(record, revision),
            Ready::Name(name, record) => self.names.put_record(name, record, revision),
        }
    }

    fn put_snapshot(&mut self, prepared: Prepared<SnapshotRecord>, revision: u64) {
        let prepared = self.begun(prepared);
        let outline = prepared.outline();
        let id = outline.id;
        if self.snapshots.revision(&id).is_some_and(|known| known >= revision) {
            return;
        }
        self.uncount(&id);
        let name = self.names.add(outline);
        let line = self.index.line(outline, name);
        match &mut self.loading {
            Some(loading) => loading.snapshots.push(line, revision),
            None => self.count(line),
        }
        self.snapshots.insert(id, prepared, revision);
    }

    /// Notes a snapshot in everything that is derived from snapshots.
    fn count(&mut self, line: Line) {
        self.note(&line);
        self.followers.insert((line.job, line.id));
        self.index.add_snapshot(line);
    }

    /// Notes a snapshot in what is derived but for the indexes.
    fn note(&mut self, line: &Line) {
        if line.stage == SnapshotStage::Removing {
            self.removing.insert(line.id);
        }
        if line.stage.waits() {
            self.waiting.insert(line.id);
        }
        if line.general {
            self.general.insert(line.id);
        }
        self.usage.entry(line.organization).or_default().add(line.stage);
    }

    /// Takes back what [`Self::count`] noted of a snapshot, if it did.
    fn uncount(&mut self, id: &SnapshotId) {
        if self.loading.is_some() {
            return;
        }
        let Some(known) = self.snapshots.outline(id) else { return };
        self.removing.remove(id);
        self.waiting.remove(id);
        self.general.remove(id);
        self.followers.remove(&(known.job, known.id));
        if let Some(usage) = self.usage.get_mut(&known.organization) {
            usage.take(known.state.stage);
            if usage.is_empty() {
                self.usage.remove(&known.organization);
            }
        }
        let line = self.index.line(&known, Arc::from(&*known.name));
        self.index.remove_snapshot(line);
    }

    fn put_job(&mut self, prepared: Prepared<JobRecord>, revision: u64) {
        let outline = prepared.outline();
        let id = outline.id;
        if self.jobs.revision(&id).is_some_and(|known| known >= revision) {
            return;
        }
        let known = self.jobs.outline(&id);
        self.service.changed(known.as_ref(), Some(outline));
        let (of, line) = (outline.organization, self.index.job_line(outline));
        if let Some(loading) = &mut self.loading {
            loading.jobs.push((of, line), revision);
        } else {
            if let Some(known) = known {
                let known = (known.organization, self.index.job_line(&known));
                self.index.remove_job(&known.0, &known.1);
            }
            self.index.add_job(of, line);
        }
        if outline.stage.is_over() && outline.log == LogState::Archived {
            self.open.remove(&id);
        } else {
            self.open.insert(id);
        }
        self.jobs.insert(id, prepared, revision);
        self.begin(id);
    }

    /// Forgets what a key held, unless it was written again later.
    fn delete(&mut self, key: &Key, revision: u64) {
        match key {
            Key::Snapshot(id) => self.delete_snapshot(id, revision),
            Key::Job(id) => self.delete_job(id, revision),
            Key::Name(name) => self.names.delete_record(name.clone(), revision),
        }
    }

    fn delete_job(&mut self, id: &JobId, revision: u64) {
        if self.jobs.revision(id).is_none_or(|known| known >= revision) {
            return;
        }
        if let Some(known) = self.jobs.outline(id) {
            if self.loading.is_none() {
                let line = self.index.job_line(&known);
                self.index.remove_job(&known.organization, &line);
            }
            self.service.changed(Some(&known), None);
        }
        self.jobs.remove(id);
        self.open.remove(id);
    }

    fn delete_snapshot(&mut self, id: &SnapshotId, revision: u64) {
        if self.snapshots.revision(id).is_none_or(|known| known >= revision) {
            return;
        }
        if let Some(known) = self.snapshots.outline(id) {
            self.uncount(id);
            self.names.remove(&known);
        }
        self.snapshots.remove(id);
    }

    /// Forgets a job that the leader does not know; ids never come back.
    pub fn forget_job(&mut self, id: &JobId) {
        self.delete_job(id, u64::MAX);
    }

    /// Forgets a snapshot that the leader does not know.
    pub fn forget_snapshot(&mut self, id: &SnapshotId) {
        self.delete_snapshot(id, u64::MAX);
    }

    /// Forgets everything: the bucket went back in time.
    pub fn clear(&mut self) {
        *self = if self.loading.is_some() { Self::loading() } else { Self::default() };
    }
}

/// The older of two snapshots.
fn older<'a>(
    one: &'a Entry<SnapshotRecord>,
    other: &'a Entry<SnapshotRecord>,
) -> &'a Entry<SnapshotRecord> {
    let age = |entry: &Entry<SnapshotRecord>| (entry.value.created_at, entry.value.id);
    if age(other) < age(one) { other } else { one }
}
