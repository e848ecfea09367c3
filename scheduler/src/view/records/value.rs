//! Keys and values of the bucket `records`, and what the watch says of them.
//!
//! Owns reading keys, and making values ready to be put in their place. Refuses keys
//! that this version does not know.

use std::sync::Arc;

use slipway_bus::topology::keys;
use slipway_domain::job::JobRecord;
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::snapshot::name::NameRecord;
use slipway_domain::{JobId, SnapshotId};

use super::names::Name;
use crate::view::kept::{Packer, Prepared};

/// A key of the bucket `records`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// `snapshot.<organization>.<id>`.
    Snapshot(SnapshotId),
    /// `job.<id>`.
    Job(JobId),
    /// `name.<organization>.<base64url>`.
    Name(Name),
}

impl Key {
    /// Parses a key; `None` for one that this version does not know.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let (kind, rest) = key.split_once('.')?;
        match kind {
            "snapshot" => rest.split_once('.')?.1.parse().ok().map(Self::Snapshot),
            "job" => rest.parse().ok().map(Self::Job),
            "name" => keys::parse_snapshot_name(key).map(Self::Name),
            _ => None,
        }
    }
}

/// A value of the bucket `records`, parsed.
#[derive(Debug, Clone)]
pub enum Value {
    /// Of a snapshot key.
    Snapshot(SnapshotRecord),
    /// Of a job key.
    Job(JobRecord),
    /// Of a name key: the name, and whose it is.
    Name(Name, NameRecord),
}

/// What packs records that rest, as far as there are enough of them: for those who
/// prepare values ahead.
#[derive(Debug, Clone, Default)]
pub struct Packers {
    pub(super) snapshots: Option<Arc<Packer>>,
    pub(super) jobs: Option<Arc<Packer>>,
}

/// A value that only has to be put in its place.
#[derive(Debug)]
pub enum Ready {
    /// Of a snapshot key.
    Snapshot(Prepared<SnapshotRecord>),
    /// Of a job key.
    Job(Prepared<JobRecord>),
    /// Of a name key.
    Name(Name, NameRecord),
}

impl Ready {
    /// Reads the value under a key, and packs it if it is to be.
    ///
    /// # Errors
    /// It is none, or of a newer version in a form unknown here.
    pub fn read(key: Key, json: &[u8], packers: &Packers) -> serde_json::Result<Self> {
        Ok(match key {
            Key::Snapshot(_) => Self::Snapshot(Prepared::read(json, packers.snapshots.as_ref())?),
            Key::Job(_) => Self::Job(Prepared::read(json, packers.jobs.as_ref())?),
            Key::Name(name) => Self::Name(name, serde_json::from_slice(json)?),
        })
    }
}

impl From<Value> for Ready {
    fn from(value: Value) -> Self {
        match value {
            Value::Snapshot(record) => Self::Snapshot(Prepared::new(record)),
            Value::Job(record) => Self::Job(Prepared::new(record)),
            Value::Name(name, record) => Self::Name(name, record),
        }
    }
}

/// A change that the watch brought.
#[derive(Debug)]
pub enum Watched {
    /// A value was written.
    Put(Box<Ready>),
    /// A value was deleted.
    Deleted(Key),
}
