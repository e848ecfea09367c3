//! Activation and deactivation.

use std::sync::PoisonError;

use jiff::Timestamp;
use slipway_bus::topology::keys;
use slipway_domain::job::{JobRecord, NewJob};
use slipway_domain::snapshot::{SnapshotEvent, SnapshotRecord};
use slipway_domain::{JobId, OrganizationId, SnapshotId};
use uuid::Uuid;

use super::create::Reserved;
use super::{Error, Ledger};
use crate::trace;
use crate::view::Value;

impl Ledger {
    /// Lets an active snapshot rest, if `still` says so of its record as it is.
    ///
    /// # Errors
    /// Nothing can be written now.
    pub async fn deactivate(
        &self,
        id: SnapshotId,
        still: impl Fn(&SnapshotRecord) -> bool,
    ) -> Result<(), Error> {
        self.change_snapshot(id, "a deactivation", |snapshot| {
            let next = snapshot.apply(snapshot.job, SnapshotEvent::Deactivate, Timestamp::now());
            (still(snapshot) && next != *snapshot).then_some(next)
        })
        .await
    }

    /// Has an inactive snapshot used again, whose image is there.
    ///
    /// # Errors
    /// The quota is used up, or nothing can be written now.
    pub async fn activate(&self, snapshot: &SnapshotRecord) -> Result<(), Error> {
        self.check_connected()?;
        let _reserved = self.reserve_room(&snapshot.organization)?;
        self.change_snapshot(snapshot.id, "an activation", |snapshot| {
            let next = snapshot.apply(snapshot.job, SnapshotEvent::Activate, Timestamp::now());
            (next != *snapshot).then_some(next)
        })
        .await
    }

    /// Has the image of an inactive snapshot made again, by a new job. The
    /// snapshot is stored first: should this process end there, the job is made
    /// by whoever finds that it lacks.
    ///
    /// # Errors
    /// The quota is used up, or nothing can be written now.
    pub async fn remake(&self, snapshot: &SnapshotRecord) -> Result<(), Error> {
        self.check_connected()?;
        let _reserved = self.reserve_room(&snapshot.organization)?;
        let (id, now) = (JobId::from_uuid(Uuid::now_v7()), Timestamp::now());
        self.change_snapshot(snapshot.id, "an activation", |snapshot| {
            let next = snapshot.apply(snapshot.job, SnapshotEvent::Remake(id), now);
            (next != *snapshot).then_some(next)
        })
        .await?;
        let stored = self.view.records().snapshot(&snapshot.id);
        if stored.is_none_or(|entry| entry.value.job != id) {
            // Somebody else was faster.
            return Ok(());
        }
        // The job of the past has nothing more to share with it.
        self.leave(snapshot).await?;
        self.announce(snapshot.job);
        let job = JobRecord::new(
            NewJob {
                id,
                organization: snapshot.organization,
                snapshot: snapshot.id,
                region: snapshot.region.clone(),
                class: snapshot.class,
                kind: snapshot.source.kind(),
                trace: Some(trace::begin()),
            },
            now,
        );
        match self.records.create(&keys::job(&id), &job, None).await {
            Ok(revision) => {
                self.view.change_records(|records| records.put(Value::Job(job), revision));
            }
            Err(error) if error.is_conflict() => {}
            Err(source) => return Err(Error::Write { what: "a new job", source }),
        }
        self.announce(id);
        Ok(())
    }

    /// Keeps room for a snapshot that is to count again.
    fn reserve_room(&self, organization: &OrganizationId) -> Result<Reserved<'_>, Error> {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut reserved, organization)
    }
}
