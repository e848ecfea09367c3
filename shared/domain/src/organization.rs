//! Organizations and their API keys, as they are stored.

use std::num::NonZeroU32;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ids::OrganizationId;
use crate::region::{Class, Region};

/// The repository of an organization that holds the images of all its snapshots:
/// one, so that layers are shared between them.
pub const SNAPSHOTS_REPOSITORY: &str = "snapshots";

/// The repository of an organization that every valid API key may read: it holds
/// the images of its general snapshots.
pub const GENERAL_REPOSITORY: &str = "general";

/// A tenant, under its id in the bucket `organizations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrganizationRecord {
    /// Form of this record.
    pub version: u32,
    /// Its id.
    pub id: OrganizationId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Why it may make nothing new at present, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension: Option<Suspension>,
    /// The region of requests that name none; the server's if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_region: Option<Region>,
    /// The regions that it may use; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regions: Option<Vec<Region>>,
    /// What differs from the server's limits.
    #[serde(default)]
    pub limits: LimitOverrides,
    /// What differs in one region, for one class or for each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub region_limits: Vec<RegionLimits>,
    /// After how many minutes without use a snapshot becomes inactive; the
    /// server's time if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactivity_minutes: Option<u32>,
}

impl OrganizationRecord {
    /// An organization with the server's limits.
    #[must_use]
    pub fn new(id: OrganizationId, name: String, now: Timestamp) -> Self {
        Self {
            version: 1,
            id,
            name,
            created_at: now,
            suspension: None,
            default_region: None,
            regions: None,
            limits: LimitOverrides::default(),
            region_limits: vec![],
            inactivity_minutes: None,
        }
    }

    /// Whether it is suspended at `now`.
    #[must_use]
    pub fn is_suspended_at(&self, now: Timestamp) -> bool {
        let suspension = self.suspension.as_ref();
        suspension.is_some_and(|suspension| suspension.until.is_none_or(|end| now < end))
    }

    /// Whether it may use a region.
    #[must_use]
    pub fn may_use(&self, region: &Region) -> bool {
        self.regions.as_ref().is_none_or(|regions| regions.contains(region))
    }

    /// What differs for sandboxes of a class in a region: the most particular
    /// setting of each value. Values for the whole organization are about
    /// ordinary sandboxes; those with a GPU have limits of their own.
    #[must_use]
    pub fn sandbox(&self, region: &Region, class: Class) -> SandboxOverrides {
        let here = self.region_limits.iter().filter(|limits| limits.region == *region);
        let exact = here.clone().find(|limits| limits.class == Some(class));
        let any = here.clone().find(|limits| limits.class.is_none());
        let (exact, any) = (exact.map(|l| l.sandbox), any.map(|l| l.sandbox));
        let own = (class == Class::Cpu).then_some(self.limits.sandbox);
        let levels = [exact, any, own];
        let pick =
            |value: fn(&SandboxOverrides) -> Option<u32>| levels.iter().flatten().find_map(value);
        SandboxOverrides {
            cpu: pick(|limits| limits.cpu),
            memory: pick(|limits| limits.memory),
            disk: pick(|limits| limits.disk),
            gpus: pick(|limits| limits.gpus),
        }
    }
}

/// An organization that may read and delete, but make nothing new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspension {
    /// Since when.
    pub since: Timestamp,
    /// Why, in words for its people.
    #[serde(default)]
    pub reason: String,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What an organization may have, where it differs from the server's limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitOverrides {
    /// Snapshots that are pending, building, pulling or active at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots: Option<u32>,
    /// Size of a snapshot in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_size: Option<u32>,
    /// Share of a region's workers among organizations whose jobs wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Jobs that run at once, in all regions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs_at_once: Option<NonZeroU32>,
    /// What a sandbox may have.
    #[serde(flatten)]
    pub sandbox: SandboxOverrides,
}

/// What a sandbox may have, where it differs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxOverrides {
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u32>,
    /// Memory in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u32>,
    /// Disk in GiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u32>,
    /// GPUs in all; 0 refuses snapshots with a GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
}

/// What differs in one region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionLimits {
    /// The region.
    pub region: Region,
    /// For one class; for each if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The values.
    #[serde(flatten)]
    pub sandbox: SandboxOverrides,
}

/// An API key, under [`key_hash`] of its value in the bucket `api_keys`. The
/// value itself is stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecord {
    /// Form of this record.
    pub version: u32,
    /// Whose key it is.
    pub organization: OrganizationId,
    /// What people call it.
    pub name: String,
    /// What it may do beyond reading, for example `write:snapshots`.
    pub permissions: Vec<Permission>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Option<Timestamp>,
    /// The value's first and last letters, by which people know it again.
    #[serde(default)]
    pub hint: String,
}

/// A key's value as lists show it.
#[must_use]
pub fn key_hint(value: &str) -> String {
    let letters: Vec<char> = value.chars().collect();
    if letters.len() < 16 {
        return "***".to_owned();
    }
    let (first, last) = (&letters[..4], &letters[letters.len() - 3..]);
    format!("{}***{}", first.iter().collect::<String>(), last.iter().collect::<String>())
}

impl ApiKeyRecord {
    /// Whether the key works at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

/// What a key may do. Reading needs no permission. The words are Daytona's, so
/// that keys can be asked for with those that its clients know; `admin` is
/// Slipway's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Permission {
    /// Create and change registry credentials.
    #[serde(rename = "write:registries")]
    WriteRegistries,
    /// Delete registry credentials.
    #[serde(rename = "delete:registries")]
    DeleteRegistries,
    /// Create snapshots and upload contexts.
    #[serde(rename = "write:snapshots")]
    WriteSnapshots,
    /// Delete snapshots.
    #[serde(rename = "delete:snapshots")]
    DeleteSnapshots,
    /// Create sandboxes; here it opens the uploads that this needs.
    #[serde(rename = "write:sandboxes")]
    WriteSandboxes,
    /// Delete sandboxes. Known, and without effect here.
    #[serde(rename = "delete:sandboxes")]
    DeleteSandboxes,
    /// Known, and without effect here.
    #[serde(rename = "read:volumes")]
    ReadVolumes,
    /// Known, and without effect here.
    #[serde(rename = "write:volumes")]
    WriteVolumes,
    /// Known, and without effect here.
    #[serde(rename = "delete:volumes")]
    DeleteVolumes,
    /// Change regions: replace their keys.
    #[serde(rename = "write:regions")]
    WriteRegions,
    /// Known, and without effect here.
    #[serde(rename = "delete:regions")]
    DeleteRegions,
    /// Known, and without effect here.
    #[serde(rename = "read:runners")]
    ReadRunners,
    /// Known, and without effect here.
    #[serde(rename = "write:runners")]
    WriteRunners,
    /// Known, and without effect here.
    #[serde(rename = "delete:runners")]
    DeleteRunners,
    /// Known, and without effect here.
    #[serde(rename = "read:audit_logs")]
    ReadAuditLogs,
    /// Create and revoke API keys of the organization.
    #[serde(rename = "manage:api_keys")]
    ManageApiKeys,
    /// Operate the server: organizations, limits, general snapshots.
    #[serde(rename = "admin")]
    Admin,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 17] = [
        Self::WriteRegistries,
        Self::DeleteRegistries,
        Self::WriteSnapshots,
        Self::DeleteSnapshots,
        Self::WriteSandboxes,
        Self::DeleteSandboxes,
        Self::ReadVolumes,
        Self::WriteVolumes,
        Self::DeleteVolumes,
        Self::WriteRegions,
        Self::DeleteRegions,
        Self::ReadRunners,
        Self::WriteRunners,
        Self::DeleteRunners,
        Self::ReadAuditLogs,
        Self::ManageApiKeys,
        Self::Admin,
    ];

    /// Its name, as keys are given it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WriteRegistries => "write:registries",
            Self::DeleteRegistries => "delete:registries",
            Self::WriteSnapshots => "write:snapshots",
            Self::DeleteSnapshots => "delete:snapshots",
            Self::WriteSandboxes => "write:sandboxes",
            Self::DeleteSandboxes => "delete:sandboxes",
            Self::ReadVolumes => "read:volumes",
            Self::WriteVolumes => "write:volumes",
            Self::DeleteVolumes => "delete:volumes",
            Self::WriteRegions => "write:regions",
            Self::DeleteRegions => "delete:regions",
            Self::ReadRunners => "read:runners",
            Self::WriteRunners => "write:runners",
            Self::DeleteRunners => "delete:runners",
            Self::ReadAuditLogs => "read:audit_logs",
            Self::ManageApiKeys => "manage:api_keys",
            Self::Admin => "admin",
        }
    }
}

/// The text names no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a permission. Permissions are: {known}", known = Permission::ALL.map(Permission::as_str).join(", "))]
pub struct UnknownPermission(pub String);

impl FromStr for Permission {
    type Err = UnknownPermission;

    fn from_str(text: &str) -> Result<Self, UnknownPermission> {
        let found = Self::ALL.into_iter().find(|permission| permission.as_str() == text);
        found.ok_or_else(|| UnknownPermission(text.to_owned()))
    }
}

/// The key under which an API key is stored: the SHA-256 of its value in hex.
/// Keys are 256 random bits, so a plain hash cannot be guessed back.
#[must_use]
pub fn key_hash(value: &str) -> String {
    hex::encode(Sha256::digest(value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const OLD: &str = r#"{"version":1,"id":"018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f",
        "name":"default","created_at":"2026-01-01T00:00:00Z"}"#;

    #[test]
    fn records_of_the_first_version_read_on() {
        let record: OrganizationRecord = serde_json::from_str(OLD).unwrap();
        let fresh = OrganizationRecord::new(record.id, "default".into(), record.created_at);
        assert_eq!(record, fresh);
        let key = r#"{"version":1,"organization":"018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f",
            "name":"k","permissions":["write:snapshots"],"created_at":"2026-01-01T00:00:00Z",
            "expires_at":null}"#;
        assert_eq!(serde_json::from_str::<ApiKeyRecord>(key).unwrap().hint, "");
    }

    #[test]
    fn the_most_particular_limit_counts() {
        let mut record: OrganizationRecord = serde_json::from_str(OLD).unwrap();
        let us: Region = "us".parse().unwrap();
        record.limits.sandbox.cpu = Some(6);
        record.limits.sandbox.disk = Some(30);
        let sandbox = SandboxOverrides { cpu: Some(7), memory: Some(9), ..Default::default() };
        record.region_limits.push(RegionLimits { region: us.clone(), class: None, sandbox });
        let sandbox = SandboxOverrides { cpu: Some(8), gpus: Some(0), ..Default::default() };
        let class = Some(Class::Gpu);
        record.region_limits.push(RegionLimits { region: us.clone(), class, sandbox });
        let plain = record.sandbox(&us, Class::Cpu);
        assert_eq!((plain.cpu, plain.memory, plain.disk), (Some(7), Some(9), Some(30)));
        let gpu = record.sandbox(&us, Class::Gpu);
        assert_eq!((gpu.cpu, gpu.memory, gpu.disk, gpu.gpus), (Some(8), Some(9), None, Some(0)));
        let eu = record.sandbox(&"eu".parse().unwrap(), Class::Cpu);
        assert_eq!((eu.cpu, eu.memory), (Some(6), None));
        let json = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<OrganizationRecord>(&json).unwrap(), record);
    }

    #[test]
    fn a_suspension_ends_when_it_says() {
        let mut record: OrganizationRecord = serde_json::from_str(OLD).unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        assert!(!record.is_suspended_at(at(5)));
        record.suspension = Some(Suspension { since: at(1), reason: "x".into(), until: None });
        assert!(record.is_suspended_at(at(5)));
        record.suspension =
            Some(Suspension { since: at(1), reason: "x".into(), until: Some(at(5)) });
        assert!(record.is_suspended_at(at(4)) && !record.is_suspended_at(at(5)));
    }

    #[test]
    fn permissions_are_read_as_they_are_written_and_hints_tell_little() {
        for permission in Permission::ALL {
            assert_eq!(permission.as_str().parse::<Permission>().unwrap(), permission);
            let json = serde_json::to_string(&permission).unwrap();
            assert_eq!(json, format!("\"{}\"", permission.as_str()));
        }
        assert!("write:all".parse::<Permission>().unwrap_err().to_string().contains("admin"));
        assert_eq!(key_hint("dtn_0123456789abcdef"), "dtn_***def");
        assert_eq!(key_hint("short"), "***");
    }
}
