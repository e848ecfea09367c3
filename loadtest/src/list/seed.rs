//! Writes the records of very many snapshots.
//!
//! Owns the first key of an organization of its own, and writing in a window: so many
//! writes are under way at once, each answered by the server before it counts.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use slipway_bus::topology::{BucketName, Topology, keys};
use slipway_bus::{Bucket, Bus};
use slipway_domain::organization::{
    ApiKeyRecord, OrganizationRecord, Permission, key_hash, key_hint,
};
use slipway_domain::{OrganizationId, SnapshotId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Plan;
use super::records::{Records, Source};
use crate::error::Error;
use crate::progress::Progress;

/// Snapshots that are written at once, each with three or four records.
const WINDOW: usize = 256;
/// The one region.
pub(super) const REGION: &str = "us";

/// What was written.
pub(super) struct Seeded {
    /// Ids and names, in the order in which they were made.
    pub(super) snapshots: Vec<(SnapshotId, String)>,
    /// The key that opens the API.
    pub(super) key: String,
    /// Records written per second.
    pub(super) rate: f64,
}

/// Sets up NATS as a scheduler does, and writes the plan's records.
pub(super) async fn seed(
    nats: &str,
    plan: &Plan,
    stop: &CancellationToken,
) -> Result<Seeded, Error> {
    let config = slipway_bus::Config {
        patience: Duration::from_secs(10),
        ..slipway_bus::Config::new(nats, "slipway-loadtest")
    };
    let bus = slipway_bus::connect(&config).await.map_err(Error::seed)?;
    let region = REGION.parse().map_err(Error::seed)?;
    bus.ensure(&Topology::single(region)).await.map_err(Error::seed)?;
    let organization = OrganizationId::from_uuid(Uuid::now_v7());
    let key = open(&bus, organization).await?;
    let region = REGION.parse().map_err(Error::seed)?;
    let mut source =
        Source::new(plan.seed, organization, region, (plan.snapshots, plan.builds_percent));
    let bucket = bus.bucket(&BucketName::Records);
    let (begun, progress) = (Instant::now(), Progress::new(plan.snapshots));
    progress.say("writing records");
    let (mut snapshots, mut written) = (vec![], 0);
    let drawn = stream::iter((0..plan.snapshots).map(|_| source.draw()));
    let mut writes = drawn.map(|records| write(&bucket, records)).buffered(WINDOW);
    while let Some((snapshot, count)) = writes.try_next().await? {
        snapshots.push(snapshot);
        written += count;
        progress.at(snapshots.len() as u64);
        if stop.is_cancelled() {
            break;
        }
    }
    let rate = f64::from(written) / begun.elapsed().as_secs_f64();
    Ok(Seeded { snapshots, key, rate })
}

/// Makes the organization, and a key to it.
async fn open(bus: &Bus, id: OrganizationId) -> Result<String, Error> {
    let (now, key) = (Timestamp::now(), format!("dtn_{:064x}", rand::random::<u128>()));
    let mut organization = OrganizationRecord::new(id, "loadtest".to_owned(), now);
    // Nothing of it is to become inactive.
    organization.inactivity_minutes = Some(u32::MAX);
    let record = ApiKeyRecord {
        version: 1,
        organization: id,
        name: "loadtest".to_owned(),
        permissions: Permission::ALL.to_vec(),
        created_at: now,
        expires_at: None,
        hint: key_hint(&key),
    };
    let organizations = bus.bucket(&BucketName::Organizations);
    let slot = keys::organization(&id);
    organizations.create(&slot, &organization, None).await.map_err(Error::seed)?;
    let api_keys = bus.bucket(&BucketName::ApiKeys);
    let slot = keys::api_key(&key_hash(&key));
    api_keys.create(&slot, &record, None).await.map_err(Error::seed)?;
    Ok(key)
}

/// Writes the records of one snapshot, in the order in which a request makes them.
async fn write(bucket: &Bucket, records: Records) -> Result<((SnapshotId, String), u32), Error> {
    let Records { snapshot, job, name, work } = records;
    let organization = snapshot.organization;
    let name_key = keys::snapshot_name(&organization, &snapshot.name);
    let (snapshot_key, job_key) = (keys::snapshot(&organization, &snapshot.id), keys::job(&job.id));
    let shared = async {
        let Some((identity, work)) = job.identity.as_ref().zip(work.as_ref()) else { return Ok(0) };
        bucket.put(&keys::work(&organization, identity), work, None).await.map(|_| 1)
    };
    let written = tokio::try_join!(
        shared,
        bucket.put(&name_key, &name, None),
        bucket.put(&snapshot_key, &snapshot, None),
        bucket.put(&job_key, &job, None),
    );
    let (shared, ..) = written.map_err(Error::seed)?;
    Ok(((snapshot.id, snapshot.name), 3 + shared))
}
