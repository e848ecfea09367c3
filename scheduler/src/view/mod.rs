//! The materialised view: everything that the API reads, in memory.
//!
//! Fed by watches of the buckets and, ahead of them, by this process's own
//! writes, so that a caller reads what it wrote. Invariant: an entry never goes
//! back to an older revision.

mod accounts;
mod credentials;
mod fleet;
mod kept;
mod ranked;
mod records;

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::watch;

pub use accounts::Accounts;
pub use credentials::Credentials;
pub use fleet::Fleet;
pub use records::{
    Debris, Entry, Jobs, Key, Listing, Name, Needle, Order, Packers, Ready, Records, SortKey,
    Value, Watched, name_of,
};

/// What the scheduler knows. Share it in an `Arc`.
#[derive(Debug)]
pub struct View {
    records: RwLock<Records>,
    fleet: RwLock<Fleet>,
    accounts: RwLock<Accounts>,
    credentials: RwLock<Credentials>,
    changed: watch::Sender<u64>,
}

impl Default for View {
    fn default() -> Self {
        Self {
            records: RwLock::default(),
            fleet: RwLock::default(),
            accounts: RwLock::default(),
            credentials: RwLock::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl View {
    /// Snapshots, names and jobs.
    pub fn records(&self) -> RwLockReadGuard<'_, Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Workers and leases.
    pub fn fleet(&self) -> RwLockReadGuard<'_, Fleet> {
        self.fleet.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Organizations and API keys.
    pub fn accounts(&self) -> RwLockReadGuard<'_, Accounts> {
        self.accounts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes records and wakes whoever waits for a change.
    pub fn change_records<T>(&self, change: impl FnOnce(&mut Records) -> T) -> T {
        let result = change(&mut self.records.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Changes workers and leases, and wakes whoever waits for a change unless it
    /// is only a renewal.
    pub fn change_fleet<T>(&self, change: impl FnOnce(&mut Fleet) -> T) -> T {
        let mut fleet = self.fleet.write().unwrap_or_else(PoisonError::into_inner);
        let before = fleet.version();
        let result = change(&mut fleet);
        if fleet.version() != before {
            self.changed.send_modify(|version| *version += 1);
        }
        result
    }

    /// Organizations and API keys, to change them.
    pub fn accounts_mut(&self) -> RwLockWriteGuard<'_, Accounts> {
        self.accounts.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registry credentials and the keys of regions.
    pub fn credentials(&self) -> RwLockReadGuard<'_, Credentials> {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registry credentials and the keys of regions, to change them.
    pub fn credentials_mut(&self) -> RwLockWriteGuard<'_, Credentials> {
        self.credentials.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes at every change of records and fleet.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
