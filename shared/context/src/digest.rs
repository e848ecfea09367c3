//! The identity of a context archive: SHA-256 and length of its bytes.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// SHA-256 and length of an archive as it travels and as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContextDigest {
    /// SHA-256 of the archive's bytes.
    pub sha256: [u8; 32],
    /// Length of the archive in bytes.
    pub size: u64,
}

impl ContextDigest {
    /// The SHA-256 as 64 lowercase hexadecimal digits, as used in object keys.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.sha256)
    }
}

impl fmt::Display for ContextDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for ContextDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextDigest({self}, {} bytes)", self.size)
    }
}

/// Hashes and counts what passes by.
#[derive(Clone, Default)]
pub(crate) struct Tally {
    hasher: Sha256,
    size: u64,
}

impl Tally {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.size += bytes.len() as u64;
    }

    pub(crate) fn finish(self) -> ContextDigest {
        ContextDigest { sha256: self.hasher.finalize().into(), size: self.size }
    }
}
