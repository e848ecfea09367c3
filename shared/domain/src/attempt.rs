//! Attempts: numbered deliveries of a job, told apart by a nonce.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Which delivery of a job this is; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AttemptNumber(u32);

impl AttemptNumber {
    /// The first attempt of a job.
    pub const FIRST: Self = Self(1);

    /// The number `n`; 0 stands for "before the first attempt" in logs.
    #[must_use]
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The attempt after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A random value drawn by the worker that claims an attempt. It tells apart
/// two claims of the same number, which a redelivery can cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(Uuid);

impl Nonce {
    /// Wraps a random UUID.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_simple().fmt(f)
    }
}

/// The fencing token of a claim: every event of a worker carries it, and only
/// the claim that the records know may move them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Which delivery.
    pub number: AttemptNumber,
    /// Which claim of that delivery.
    pub nonce: Nonce,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number.fmt(f)
    }
}
