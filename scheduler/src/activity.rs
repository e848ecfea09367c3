//! Which snapshots are active: at their owner's word, and as time passes.
//!
//! Owns the activation of inactive snapshots, and the reconciler that lets snapshots rest that nobody uses,
//! or whose organization is suspended for longer than the grace time. It takes no
//! input and is idempotent; several schedulers may do the same. Refuses to take
//! images away: an inactive snapshot keeps its own, so that its activation takes
//! no longer than a write.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use slipway_domain::snapshot::{SnapshotRecord, SnapshotState, inactivity};
use slipway_domain::{OrganizationId, SnapshotId};
use slipway_runtime::telemetry;
use tokio_util::sync::CancellationToken;

use crate::images::Images;
use crate::ledger::{self, Ledger};
use crate::limits::{INACTIVITY_MINUTES, SUSPENSION_GRACE_HOURS};
use crate::view::View;

/// Why a snapshot was not activated now.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// To make an image again that is there could make another one of it, so an
    /// answer is waited for.
    #[error("cannot see whether the image is still there")]
    Store(#[from] slipway_blobstore::Error),
    /// Its record was not changed.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
}

/// Activates and deactivates. Share it in an `Arc`.
#[derive(Debug)]
pub struct Activity {
    /// The images in the regions' stores.
    pub images: Images,
    /// What is known.
    pub view: Arc<View>,
    /// What changes it.
    pub ledger: Arc<Ledger>,
}

impl Activity {
    /// Has an inactive snapshot used again: at once if its image is there, else
    /// by a job that makes it again.
    ///
    /// # Errors
    /// The store does not answer whether it has the image, the quota is used up, or
    /// nothing can be written now.
    pub async fn activate(&self, snapshot: &SnapshotRecord) -> Result<(), Error> {
        let Some(image) = snapshot.state.image() else { return Ok(()) };
        match self.images.holds(snapshot, &image.digest).await? {
            true => Ok(self.ledger.activate(snapshot).await?),
            false => Ok(self.ledger.remake(snapshot).await?),
        }
    }

    /// Looks over everything every `interval` until shutdown.
    pub async fn run(self: Arc<Self>, interval: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Cancel-safe: an interval loses nothing when dropped.
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let look = self.look_over(Timestamp::now());
            if shutdown.run_until_cancelled(look).await.is_none() {
                return;
            }
        }
    }

    /// Lets rest what is due at `now`.
    pub async fn look_over(&self, now: Timestamp) {
        for Due { id, before } in self.due(now) {
            // It may have been used, or deleted, since it was looked at.
            let still = |snapshot: &SnapshotRecord| snapshot.is_idle(before);
            match self.ledger.deactivate(id, still).await {
                Ok(()) => tracing::info!(snapshot.id = %id, "a snapshot rests from now on"),
                Err(error) => {
                    let error = telemetry::chain(&error);
                    tracing::warn!(snapshot.id = %id, error, "a snapshot was not deactivated");
                }
            }
        }
    }

    fn due(&self, now: Timestamp) -> Vec<Due> {
        let organizations: Vec<(OrganizationId, SignedDuration)> = {
            let accounts = self.view.accounts();
            let terms = accounts.organizations.values().map(|organization| {
                let suspension = organization.suspension.as_ref();
                let since = suspension.filter(|_| organization.is_suspended_at(now));
                let is_over = since.is_some_and(|suspension| {
                    now.duration_since(suspension.since)
                        > SignedDuration::from_hours(i64::from(SUSPENSION_GRACE_HOURS))
                });
                let minutes = organization.inactivity_minutes.unwrap_or(INACTIVITY_MINUTES);
                let after = match is_over {
                    // Even what was used in this very moment.
                    true => SignedDuration::from_secs(-1),
                    false => SignedDuration::from_mins(i64::from(minutes)),
                };
                (organization.id, after)
            });
            terms.collect()
        };
        let records = self.view.records();
        let due = organizations.into_iter().flat_map(|(organization, after)| {
            let before = now.checked_sub(after).unwrap_or(Timestamp::MIN);
            let own = records.idle(&organization, before);
            let idle = inactivity::idle(own.iter().map(|record| &**record), after, now);
            idle.into_iter().map(move |id| Due { id, before })
        });
        due.collect()
    }
}

/// A snapshot that is to rest, unless it was of use since.
struct Due {
    id: SnapshotId,
    before: Timestamp,
}

/// Why a snapshot cannot be activated as it is, in words for its owner.
#[must_use]
pub fn activation_refused(snapshot: &SnapshotRecord) -> Option<String> {
    match &snapshot.state {
        SnapshotState::Inactive { .. } => None,
        SnapshotState::Active { .. } => {
            Some(format!("Snapshot {} is already active", snapshot.name))
        }
        state => Some(format!(
            "Snapshot {} cannot be activated: it is {}, and only an inactive one can be",
            snapshot.name,
            state.name()
        )),
    }
}

/// Why a snapshot cannot be deactivated as it is, in words for its owner.
#[must_use]
pub fn deactivation_refused(snapshot: &SnapshotRecord) -> Option<String> {
    match &snapshot.state {
        SnapshotState::Active { .. } | SnapshotState::Inactive { .. } => None,
        state => Some(format!(
            "Snapshot {} cannot be deactivated: it is {}, and only an active one can be",
            snapshot.name,
            state.name()
        )),
    }
}
