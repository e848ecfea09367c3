//! What an organization may have: the server's limits, and what differs for it.
//!
//! Pure. Invariant: the most particular setting counts.

use slipway_domain::organization::OrganizationRecord;
use slipway_domain::{Class, Region};

use crate::config::{Limits, SandboxLimits};

/// Minutes without use after which a snapshot becomes inactive: two weeks.
pub const INACTIVITY_MINUTES: u32 = 14 * 24 * 60;

/// Hours after its suspension that an organization's snapshots stay active.
pub const SUSPENSION_GRACE_HOURS: u32 = 24;

/// The limits of an organization as a whole.
#[must_use]
pub fn of(defaults: &Limits, organization: Option<&OrganizationRecord>) -> Limits {
    let own = organization.map(|record| record.limits).unwrap_or_default();
    Limits {
        snapshots: own.snapshots.unwrap_or(defaults.snapshots),
        snapshot_size: own.snapshot_size.unwrap_or(defaults.snapshot_size),
        cpu: own.sandbox.cpu.unwrap_or(defaults.cpu),
        memory: own.sandbox.memory.unwrap_or(defaults.memory),
        disk: own.sandbox.disk.unwrap_or(defaults.disk),
        weight: own.weight.unwrap_or(defaults.weight),
        jobs_at_once: own.jobs_at_once.or(defaults.jobs_at_once),
        ..*defaults
    }
}

/// What one sandbox may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sandbox {
    /// Virtual CPUs.
    pub cpu: u32,
    /// Memory in GiB.
    pub memory: u32,
    /// Disk in GiB.
    pub disk: u32,
    /// GPUs, if they are limited.
    pub gpus: Option<u32>,
}

/// What a sandbox of a class may have in a region.
#[must_use]
pub fn sandbox(
    defaults: &Limits,
    organization: Option<&OrganizationRecord>,
    region: &Region,
    class: Class,
) -> Sandbox {
    let SandboxLimits { cpu, memory, disk } = match class {
        Class::Cpu => {
            SandboxLimits { cpu: defaults.cpu, memory: defaults.memory, disk: defaults.disk }
        }
        Class::Gpu => defaults.gpu,
    };
    let own = organization.map(|record| record.sandbox(region, class)).unwrap_or_default();
    Sandbox {
        cpu: own.cpu.unwrap_or(cpu),
        memory: own.memory.unwrap_or(memory),
        disk: own.disk.unwrap_or(disk),
        gpus: own.gpus,
    }
}
