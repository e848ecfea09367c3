//! Creation: its place in the record of the name first, then snapshot and job side by side.
//!
//! Three writes, each of which may be the last one of a process. Invariants: a
//! name is one snapshot's, which the record of the name decides; success is
//! answered only when all three are stored. What is left of a creation that broke
//! off is finished or swept by [`super::debris`].

use std::collections::HashMap;
use std::sync::PoisonError;

use slipway_bus::bucket;
use slipway_bus::topology::keys;
use slipway_domain::OrganizationId;
use slipway_domain::identity::WorkIdentity;
use slipway_domain::job::JobRecord;
use slipway_domain::snapshot::SnapshotRecord;
use tokio::time::Instant;

use super::debris::GRACE;
use super::{Error, Ledger, Naming};
use crate::view::{Value, name_of};

impl Ledger {
    /// Stores a new snapshot, with its job or on the job that does the same work
    /// already. Returns both as they are stored.
    ///
    /// # Errors
    /// The name is taken, the quota is used up, or something could not be
    /// written. Then nothing stays, as far as it can be undone now.
    pub async fn create(
        &self,
        snapshot: &SnapshotRecord,
        job: &JobRecord,
        naming: Naming,
    ) -> Result<SnapshotRecord, Error> {
        self.check_connected()?;
        let _reserved = self.reserve(snapshot, naming)?;
        let began = Instant::now();
        self.take_name(snapshot, naming).await?;
        let stored = match &job.identity {
            Some(identity) => self.create_shared(identity, snapshot, job).await,
            None => self.create_records(snapshot, job).await,
        };
        let stored = match stored {
            // So slow that somebody may have taken the name for a leftover.
            Ok(()) if began.elapsed() > GRACE / 2 => self.check_name(snapshot).await,
            stored => stored,
        };
        let created = self.view.records().snapshot(&snapshot.id).map(|entry| entry.value);
        match (stored, created) {
            (Ok(()), Some(created)) => {
                self.metrics.submitted(job);
                // Which settles its name, too.
                self.announce(created.job);
                Ok((*created).clone())
            }
            (Ok(()), None) => Err(Error::SnapshotGone { id: snapshot.id }),
            (Err(error), _) => {
                self.undo(snapshot, job).await;
                Err(error)
            }
        }
    }

    /// Stores a snapshot on the job that does its work already, or with its own.
    async fn create_shared(
        &self,
        identity: &WorkIdentity,
        snapshot: &SnapshotRecord,
        job: &JobRecord,
    ) -> Result<(), Error> {
        // Until the records are stored, so that the next one sees them.
        let _turn = self.turn(identity).await;
        let Some(joined) = self.join(identity, snapshot, job).await? else {
            return self.create_records(snapshot, job).await;
        };
        let mut shared = SnapshotRecord { job: joined.job, ..snapshot.clone() };
        if let Some(next) = joined.record.as_ref().and_then(|job| shared.follow(job)) {
            shared = next;
        }
        let key = keys::snapshot(&shared.organization, &shared.id);
        let revision = self.records.create(&key, &shared, None).await;
        let revision =
            revision.map_err(|source| Error::Write { what: "a new snapshot", source })?;
        self.view.change_records(|records| records.put(Value::Snapshot(shared), revision));
        tracing::info!(snapshot.id = %snapshot.id, job.id = %joined.job, "identical work is shared");
        // The job may have moved meanwhile, and its own scheduler may have looked for
        // its snapshots before this one was stored.
        self.reload_job(joined.job).await?;
        self.follow(joined.job).await
    }

    pub(super) async fn create_records(
        &self,
        snapshot: &SnapshotRecord,
        job: &JobRecord,
    ) -> Result<(), Error> {
        let failed = |source| Error::Write { what: "a new snapshot", source };
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        let job_key = keys::job(&job.id);
        let stored = tokio::try_join!(
            self.records.create(&key, snapshot, None),
            self.records.create(&job_key, job, None),
        );
        let (snapshot_revision, job_revision) = stored.map_err(failed)?;
        self.view.change_records(|records| {
            records.put(Value::Snapshot(snapshot.clone()), snapshot_revision);
            records.put(Value::Job(job.clone()), job_revision);
        });
        Ok(())
    }

    /// Takes back what was written of a creation that failed. If that fails, too,
    /// the reconciler finishes or sweeps what is left.
    async fn undo(&self, snapshot: &SnapshotRecord, job: &JobRecord) {
        let key = keys::snapshot(&snapshot.organization, &snapshot.id);
        let failed = |source| Error::Write { what: "what was begun", source };
        let undone: Result<(), Error> = async {
            let work = job.identity.as_ref().map(|own| keys::work(&job.organization, own));
            let others_joined = match work {
                Some(work) => self.leave_work(&work, snapshot.id, job.id).await?,
                None => false,
            };
            if !others_joined {
                self.delete(&keys::job(&job.id)).await.map_err(failed)?;
            }
            self.delete(&key).await.map_err(failed)?;
            self.leave_name(&name_of(snapshot), snapshot.id).await
        }
        .await;
        if let Err(error) = undone {
            let error = slipway_runtime::telemetry::chain(&error);
            tracing::warn!(snapshot.id = %snapshot.id, error, "a creation was not undone now");
        }
    }

    async fn delete(&self, key: &str) -> Result<(), bucket::Error> {
        match self.records.get(key).await? {
            Some(entry) => self.records.delete(key, entry.revision).await,
            None => Ok(()),
        }
    }

    /// Keeps room for a snapshot until it is stored: requests that come at the
    /// same time share the quota. (Between replicas it is only approximate.) Who
    /// is to take the place of one that counts needs none.
    fn reserve(
        &self,
        snapshot: &SnapshotRecord,
        naming: Naming,
    ) -> Result<Option<Reserved<'_>>, Error> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        let (is_taken, is_counted) = {
            let records = self.view.records();
            let found = records.find(&snapshot.organization, &snapshot.name);
            (found.is_some(), records.in_use(&name_of(snapshot)) > 0)
        };
        match naming {
            Naming::Take if is_taken => Err(Error::NameTaken { name: snapshot.name.clone() }),
            Naming::Replace if is_counted => Ok(None),
            Naming::Take | Naming::Replace => {
                self.make_room(&mut reserved, &snapshot.organization).map(Some)
            }
        }
    }

    pub(super) fn make_room(
        &self,
        reserved: &mut HashMap<OrganizationId, usize>,
        organization: &OrganizationId,
    ) -> Result<Reserved<'_>, Error> {
        let limit = self.limits_of(organization).snapshots;
        let used = {
            let records = self.view.records();
            let in_use = records.usage(organization).map_or(0, |usage| usage.in_use());
            in_use.saturating_sub(records.replacing(organization))
        };
        let waiting = reserved.entry(*organization).or_default();
        if used + *waiting >= limit as usize {
            return Err(Error::QuotaExceeded { limit });
        }
        *waiting += 1;
        Ok(Reserved { ledger: self, organization: *organization })
    }
}

/// Room for a snapshot that is being stored.
pub(super) struct Reserved<'a> {
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
