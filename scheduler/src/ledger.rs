//! The ledger: every change of snapshots and jobs, by compare-and-set.
//!
//! Owns the step from a lifecycle's decision to the stored record. Refuses
//! effects: it announces the job, and [`crate::settle`] does what its record
//! asks for. Invariants: a job and its snapshot move in one atomic batch; the
//! view shows a change as soon as it is stored.

mod general;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use slipway_bus::bucket::{self, Batch, Expected};
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus};
use slipway_domain::job::{IllegalTransition, JobEvent, JobRecord, RetryPolicy};
use slipway_domain::snapshot::{SnapshotEvent, SnapshotRecord};
use slipway_domain::{JobId, OrganizationId, SnapshotId};
use tokio::sync::mpsc;

use crate::config::Limits;
use crate::limits;
use crate::view::{Entry, Value, View};

/// Why a change was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The organization has a snapshot of this name.
    #[error(
        "Snapshot with name \"{name}\" already exists for this organization: \
         delete it first, or choose another name"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The organization has as many snapshots as it may.
    #[error(
        "Snapshot quota exceeded. Maximum allowed: {limit}. Delete a snapshot that is no longer needed"
    )]
    QuotaExceeded {
        /// How many it may have.
        limit: u32,
    },
    /// Somebody removed the snapshot meanwhile.
    #[error("snapshot `{id}` is gone")]
    SnapshotGone {
        /// Its id.
        id: SnapshotId,
    },
    /// The bucket cannot be written now.
    #[error("cannot write {what}")]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Why.
        #[source]
        source: bucket::Error,
    },
}

/// What came of an event.
#[derive(Debug)]
pub enum Moved {
    /// It was stored, or changed nothing.
    Applied,
    /// The lifecycle refuses it.
    Refused(IllegalTransition),
    /// There is no such job any more.
    Unknown,
}

/// Writes records. Share it in an `Arc`.
#[derive(Debug)]
pub struct Ledger {
    bus: Bus,
    records: Bucket,
    view: Arc<View>,
    retry: RetryPolicy,
    limits: Limits,
    work: mpsc::UnboundedSender<JobId>,
    reserved: Mutex<HashMap<OrganizationId, usize>>,
}

impl Ledger {
    /// A ledger over the bucket `records`. Jobs with effects to perform are
    /// announced on the receiver: one id each, so it grows no faster than
    /// records are written.
    #[must_use]
    pub fn new(
        bus: &Bus,
        view: Arc<View>,
        retry: RetryPolicy,
        limits: Limits,
    ) -> (Self, mpsc::UnboundedReceiver<JobId>) {
        let (work, receiver) = mpsc::unbounded_channel();
        let records = bus.bucket(&BucketName::Records);
        let reserved = Mutex::default();
        (Self { bus: bus.clone(), records, view, retry, limits, work, reserved }, receiver)
    }

    /// Bytes that the image of a job may have, compressed.
    #[must_use]
    pub fn max_size(&self, job: &JobId) -> u64 {
        let organization = self.view.records().job(job).map(|entry| entry.value.organization);
        let limits = organization.map_or(self.limits, |id| self.limits_of(&id));
        u64::from(limits.snapshot_size) << 30
    }

    /// What an organization may have.
    #[must_use]
    pub fn limits_of(&self, organization: &OrganizationId) -> Limits {
        limits::of(&self.limits, self.view.accounts().organizations.get(organization))
    }

    /// Whether NATS can be reached.
    ///
    /// # Errors
    /// [`Error::Write`] if it cannot.
    pub fn check_connected(&self) -> Result<(), Error> {
        if self.bus.connection_state().borrow().up {
            return Ok(());
        }
        let source = std::io::Error::from(std::io::ErrorKind::NotConnected);
        let bucket = BucketName::Records.to_string();
        let source = bucket::Error::Unavailable { bucket, source: Box::new(source) };
        Err(Error::Write { what: "records", source })
    }

    /// Stores a new snapshot with its job.
    ///
    /// # Errors
    /// The name is taken, the quota is used up, or nothing can be written.
    pub async fn create(&self, snapshot: &SnapshotRecord, job: &JobRecord) -> Result<(), Error> {
        self.check_connected()?;
        let _reserved = self.reserve(snapshot)?;
        let encode = |source| Error::Write { what: "a new snapshot", source };
        let name = keys::snapshot_name(&snapshot.organization, &snapshot.name);
        let mut batch = Batch::new();
        batch.put(name, &snapshot.id, Expected::Absent).map_err(encode)?;
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        batch.put(key, snapshot, Expected::Absent).map_err(encode)?;
        batch.put(keys::job(&job.id), job, Expected::Absent).map_err(encode)?;
        match self.records.commit(&batch).await {
            Ok(revisions) => self.view.change_records(|records| {
                records.put(Value::Snapshot(snapshot.clone()), revisions[1]);
                records.put(Value::Job(job.clone()), revisions[2]);
            }),
            Err(error) if error.is_conflict() => {
                return Err(Error::NameTaken { name: snapshot.name.clone() });
            }
            // The answer was lost: only the records know whether it is stored.
            Err(bucket::Error::Ambiguous { .. }) if self.load_job(job.id).await? => {}
            Err(error) => return Err(encode(error)),
        }
        self.announce(job.id);
        Ok(())
    }

    /// Keeps room for a snapshot until it is stored: requests that come at the
    /// same time share the quota. (Between replicas it is only approximate.)
    fn reserve(&self, snapshot: &SnapshotRecord) -> Result<Reserved<'_>, Error> {
        let limit = self.limits_of(&snapshot.organization).snapshots;
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let records = self.view.records();
        if records.find(&snapshot.organization, &snapshot.name).is_some() {
            return Err(Error::NameTaken { name: snapshot.name.clone() });
        }
        let counts = |state: &str| matches!(state, "pending" | "building" | "pulling" | "active");
        let used = records
            .of(&snapshot.organization)
            .filter(|entry| counts(entry.value.state.name()))
            .count();
        let waiting = reserved.entry(snapshot.organization).or_default();
        if used + *waiting >= limit as usize {
            return Err(Error::QuotaExceeded { limit });
        }
        *waiting += 1;
        Ok(Reserved { ledger: self, organization: snapshot.organization })
    }

    /// Marks a snapshot for removal and cancels its job. The rest follows.
    ///
    /// # Errors
    /// The snapshot is gone, or nothing can be written.
    pub async fn remove(&self, id: SnapshotId) -> Result<(), Error> {
        loop {
            let entry = self.view.records().snapshot(&id).cloned();
            let entry = entry.ok_or(Error::SnapshotGone { id })?;
            let job = entry.value.job;
            let removed = Some(SnapshotEvent::Remove);
            match self.try_move(job, JobEvent::Cancel, Some(entry), removed).await {
                Ok(_) => {
                    self.announce(job);
                    return Ok(());
                }
                Err(source) if source.is_conflict() => self.reload(id, job).await?,
                Err(source) => return Err(Error::Write { what: "a removal", source }),
            }
        }
    }

    /// Applies an event to a job and its snapshot.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn move_job(&self, id: JobId, event: JobEvent) -> Result<Moved, Error> {
        loop {
            let known = self.view.records().job(&id).cloned();
            let Some(job) = known else {
                if self.load_job(id).await? {
                    continue;
                }
                return Ok(Moved::Unknown);
            };
            let snapshot = self.view.records().snapshot(&job.value.snapshot).cloned();
            match self.try_move(id, event.clone(), snapshot, None).await {
                Ok(moved) => return Ok(moved),
                Err(source) if source.is_conflict() => {
                    self.reload(job.value.snapshot, id).await?;
                }
                Err(source) => return Err(Error::Write { what: "a job", source }),
            }
        }
    }

    async fn try_move(
        &self,
        id: JobId,
        event: JobEvent,
        snapshot: Option<Entry<SnapshotRecord>>,
        extra: Option<SnapshotEvent>,
    ) -> Result<Moved, bucket::Error> {
        let now = Timestamp::now();
        let job = self.view.records().job(&id).cloned();
        let mut changes = Changes::default();
        let mut owes = false;
        let mut next_snapshot = snapshot.as_ref().map(|entry| (*entry.value).clone());
        if let Some(job) = job {
            let transition = match job.value.apply(event, now, &self.retry) {
                Ok(transition) => transition,
                Err(refused) => return Ok(Moved::Refused(refused)),
            };
            if let Some(event) = transition.snapshot {
                next_snapshot = next_snapshot.map(|record| record.apply(id, event, now));
            }
            if transition.next != *job.value {
                changes.job = Some((transition.next, job.revision));
            }
            owes = !transition.effects.is_empty();
        }
        if let Some(event) = extra {
            next_snapshot = next_snapshot.map(|record| record.apply(record.job, event, now));
        }
        if let (Some(next), Some(entry)) = (next_snapshot, snapshot)
            && next != *entry.value
        {
            changes.snapshot = Some((next, entry.revision));
        }
        self.store(changes).await?;
        if owes {
            self.announce(id);
        }
        Ok(Moved::Applied)
    }

    async fn store(&self, changes: Changes) -> Result<(), bucket::Error> {
        let mut batch = Batch::new();
        if let Some((job, revision)) = &changes.job {
            batch.put(keys::job(&job.id), job, Expected::Revision(*revision))?;
        }
        if let Some((snapshot, revision)) = &changes.snapshot {
            let key = keys::snapshot(&snapshot.organization, &snapshot.id);
            batch.put(key, snapshot, Expected::Revision(*revision))?;
        }
        if batch.is_empty() {
            return Ok(());
        }
        let mut revisions = self.records.commit(&batch).await?.into_iter();
        self.view.change_records(|records| {
            for value in changes.values() {
                if let Some(revision) = revisions.next() {
                    records.put(value, revision);
                }
            }
        });
        Ok(())
    }

    /// Forgets a removed snapshot for good, its job and its name included.
    ///
    /// # Errors
    /// Nothing can be written now. A conflict is none: the next look decides.
    pub async fn forget(&self, snapshot: &SnapshotRecord, revision: u64) -> Result<(), Error> {
        let name = keys::snapshot_name(&snapshot.organization, &snapshot.name);
        let mut batch = Batch::new();
        batch.delete(name, Expected::Any);
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        batch.delete(key, Expected::Revision(revision));
        batch.delete(keys::job(&snapshot.job), Expected::Any);
        match self.records.commit(&batch).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_conflict() => Ok(()),
            Err(source) => Err(Error::Write { what: "a removal", source }),
        }
    }

    /// Looks for a job that the view does not know yet: another replica may have
    /// made it a moment ago.
    async fn load_job(&self, id: JobId) -> Result<bool, Error> {
        let found = self.records.get(&keys::job(&id)).await;
        let found = found.map_err(|source| Error::Write { what: "a job", source })?;
        let Some(entry) = found else { return Ok(false) };
        let job = entry.json::<JobRecord>();
        let job =
            job.map_err(|source| Error::Write { what: "a job of a newer version", source })?;
        self.view.change_records(|records| records.put(Value::Job(job.clone()), entry.revision));
        self.reload(job.snapshot, id).await?;
        Ok(true)
    }

    /// Reads a snapshot and its job afresh, after somebody else changed them.
    async fn reload(&self, snapshot: SnapshotId, job: JobId) -> Result<(), Error> {
        let failed = |source| Error::Write { what: "a job", source };
        let known = self.view.records().job(&job).map(|entry| entry.value.organization);
        let known =
            known.or_else(|| self.view.records().snapshot(&snapshot).map(|s| s.value.organization));
        let Some(organization) = known else { return Ok(()) };
        let key = keys::snapshot(&organization, &snapshot);
        let fresh_snapshot = self.records.get(&key).await.map_err(failed)?;
        let fresh_job = self.records.get(&keys::job(&job)).await.map_err(failed)?;
        let unreadable = |source| Error::Write { what: "a record of a newer version", source };
        let fresh_snapshot = fresh_snapshot.map(|entry| Ok((entry.json()?, entry.revision)));
        let fresh_snapshot = fresh_snapshot.transpose().map_err(unreadable)?;
        let fresh_job = fresh_job.map(|entry| Ok((entry.json()?, entry.revision)));
        let fresh_job = fresh_job.transpose().map_err(unreadable)?;
        self.view.change_records(|records| {
            match fresh_snapshot {
                Some((record, revision)) => records.put(Value::Snapshot(record), revision),
                None => records.forget_snapshot(&snapshot),
            }
            match fresh_job {
                Some((record, revision)) => records.put(Value::Job(record), revision),
                None => records.forget_job(&job),
            }
        });
        Ok(())
    }

    /// Has the effects that follow from a job's record performed soon.
    pub fn announce(&self, job: JobId) {
        // The receiver is gone only when the process stops.
        let _stopping = self.work.send(job);
    }
}

/// Room for a snapshot that is being stored.
struct Reserved<'a> {
    ledger: &'a Ledger,
    organization: OrganizationId,
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut reserved = self.ledger.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = reserved.get_mut(&self.organization) {
            *waiting -= 1;
            if *waiting == 0 {
                reserved.remove(&self.organization);
            }
        }
    }
}

#[derive(Default)]
struct Changes {
    job: Option<(JobRecord, u64)>,
    snapshot: Option<(SnapshotRecord, u64)>,
}

impl Changes {
    /// The values in the order of the batch.
    fn values(self) -> impl Iterator<Item = Value> {
        let job = self.job.map(|(job, _)| Value::Job(job));
        let snapshot = self.snapshot.map(|(snapshot, _)| Value::Snapshot(snapshot));
        job.into_iter().chain(snapshot)
    }
}
