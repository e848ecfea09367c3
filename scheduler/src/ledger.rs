//! The ledger: every change of snapshots and jobs, by compare-and-set.
//!
//! Owns the step from a lifecycle's decision to the stored record. Refuses
//! effects: it announces the job, and [`crate::settle`] does what its record
//! asks for. Invariants: every change is one write of one record, and what it
//! means for other records follows from it, so that anybody can write it later;
//! the view shows a change as soon as it is stored.

mod activity;
mod create;
mod debris;
mod general;
mod moves;
mod names;
mod remove;
mod share;
#[cfg(test)]
pub(crate) mod tests;
mod usage;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde::de::DeserializeOwned;
use slipway_bus::bucket;
use slipway_bus::topology::{BucketName, keys};
use slipway_bus::{Bucket, Bus};
use slipway_domain::identity::WorkIdentity;
use slipway_domain::job::{IllegalTransition, JobRecord, RetryPolicy};
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{JobId, OrganizationId, SnapshotId};
use tokio::sync::mpsc;

pub use debris::GRACE;
pub use names::Naming;

use crate::config::Limits;
use crate::images::Images;
use crate::limits;
use crate::metrics::Metrics;
use crate::view::{Value, View};

/// Why a change was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The organization has a snapshot of this name.
    #[error(
        "Snapshot with name \"{name}\" already exists for this organization: \
         delete it first, choose another name, or ask with `replace`"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// So many wait to replace the snapshot of this name that one more cannot.
    #[error("Too many snapshots are being made to replace \"{name}\": wait until one is active")]
    TooManyReplace {
        /// The name.
        name: String,
    },
    /// The snapshot of this name is general.
    #[error("You cannot replace a general snapshot: \"{name}\" is used by other organizations")]
    GeneralReplaced {
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
    /// The bucket cannot be read now.
    #[error("cannot read a record")]
    Read {
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
    metrics: Metrics,
    images: Images,
    turns: Mutex<HashMap<WorkIdentity, Arc<tokio::sync::Mutex<()>>>>,
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
        metrics: Metrics,
        images: Images,
    ) -> (Self, mpsc::UnboundedReceiver<JobId>) {
        let (work, receiver) = mpsc::unbounded_channel();
        let records = bus.bucket(&BucketName::Records);
        let ledger = Self {
            bus: bus.clone(),
            records,
            view,
            retry,
            limits,
            work,
            reserved: Mutex::default(),
            metrics,
            images,
            turns: Mutex::default(),
        };
        (ledger, receiver)
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

    /// What is counted.
    #[must_use]
    pub const fn metrics(&self) -> &Metrics {
        &self.metrics
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

    /// Changes a snapshot until the change holds, or there is nothing to change.
    async fn change_snapshot(
        &self,
        id: SnapshotId,
        what: &'static str,
        change: impl Fn(&SnapshotRecord) -> Option<SnapshotRecord>,
    ) -> Result<(), Error> {
        loop {
            let Some(entry) = self.view.records().snapshot(&id) else { return Ok(()) };
            let Some(next) = change(&entry.value) else { return Ok(()) };
            let organization = next.organization;
            match self.store_snapshot(next, entry.revision).await {
                Ok(()) => return Ok(()),
                Err(error) if error.is_conflict() => {
                    self.reload_snapshot(organization, id).await?;
                }
                Err(source) => return Err(Error::Write { what, source }),
            }
        }
    }

    async fn store_snapshot(
        &self,
        snapshot: SnapshotRecord,
        revision: u64,
    ) -> Result<(), bucket::Error> {
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        let stored = self.records.update(&key, &snapshot, revision, None).await?;
        self.view.change_records(|records| records.put(Value::Snapshot(snapshot), stored));
        Ok(())
    }

    async fn store_job(&self, job: JobRecord, revision: u64) -> Result<(), bucket::Error> {
        let stored = self.records.update(&keys::job(&job.id), &job, revision, None).await?;
        self.view.change_records(|records| records.put(Value::Job(job), stored));
        Ok(())
    }

    /// Reads a job afresh.
    ///
    /// # Errors
    /// Nothing can be read now.
    pub async fn refresh(&self, id: JobId) -> Result<(), Error> {
        self.reload_job(id).await.map(|_| ())
    }

    /// Reads a job afresh; returns whether there is one. Another replica may have
    /// made or changed it a moment ago.
    async fn reload_job(&self, id: JobId) -> Result<bool, Error> {
        let fresh = self.read::<JobRecord>(&keys::job(&id)).await?;
        let found = fresh.is_some();
        self.view.change_records(|records| match fresh {
            Some((record, revision)) => records.put(Value::Job(record), revision),
            None => records.forget_job(&id),
        });
        Ok(found)
    }

    /// The snapshot of an organization with this id, also if the watch has not
    /// brought it yet.
    ///
    /// # Errors
    /// Nothing can be read now.
    pub async fn find(
        &self,
        organization: OrganizationId,
        id: SnapshotId,
    ) -> Result<Option<SnapshotRecord>, Error> {
        if self.view.records().snapshot(&id).is_none() {
            self.reload_snapshot(organization, id).await?;
        }
        let records = self.view.records();
        let found = records.snapshot(&id).filter(|entry| entry.value.organization == organization);
        Ok(found.map(|entry| (*entry.value).clone()))
    }

    /// Reads a snapshot afresh; returns whether there is one.
    async fn reload_snapshot(
        &self,
        organization: OrganizationId,
        id: SnapshotId,
    ) -> Result<bool, Error> {
        let fresh = self.read::<SnapshotRecord>(&keys::snapshot(&organization, &id)).await?;
        let found = fresh.is_some();
        self.view.change_records(|records| match fresh {
            Some((record, revision)) => records.put(Value::Snapshot(record), revision),
            None => records.forget_snapshot(&id),
        });
        Ok(found)
    }

    async fn read<T: DeserializeOwned>(&self, key: &str) -> Result<Option<(T, u64)>, Error> {
        let entry = self.records.get(key).await.map_err(|source| Error::Read { source })?;
        let Some(entry) = entry else { return Ok(None) };
        let value = entry.json().map_err(|source| Error::Read { source })?;
        Ok(Some((value, entry.revision)))
    }

    /// Has the effects that follow from a job's record performed soon.
    pub fn announce(&self, job: JobId) {
        // The receiver is gone only when the process stops.
        let _stopping = self.work.send(job);
    }
}
