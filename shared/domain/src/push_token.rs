//! Secrets for pushes to a region's registry, for a short time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::OrganizationId;
use crate::region::Region;

/// How long a token works, in seconds.
pub const LIFETIME_SECONDS: u32 = 3600;
/// Where images may be pushed, below the organization's id. Snapshots lie
/// elsewhere: who may push cannot touch them.
pub const FOLDER: &str = "push";

/// A token, under [`key_hash`](crate::organization::key_hash) of its value in
/// the bucket `push_tokens`, where it expires. The value itself is stored
/// nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushTokenRecord {
    /// Form of this record.
    pub version: u32,
    /// Whose repositories it opens.
    pub organization: OrganizationId,
    /// In which region.
    pub region: Region,
    /// It opens the repositories below this name, and no others.
    pub folder: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops to work.
    pub expires_at: Timestamp,
}

impl PushTokenRecord {
    /// Whether the token works at `now` in a region.
    #[must_use]
    pub fn is_valid(&self, region: &Region, now: Timestamp) -> bool {
        self.region == *region && now < self.expires_at
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_token_works_in_its_region_until_it_expires() {
        let json = r#"{"version":1,"organization":"018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f",
            "region":"us","folder":"push","created_at":"2026-01-01T00:00:00Z",
            "expires_at":"2026-01-01T01:00:00Z"}"#;
        let record: PushTokenRecord = serde_json::from_str(json).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (us, eu) = ("us".parse().unwrap(), "eu".parse().unwrap());
        assert!(record.is_valid(&us, at("2026-01-01T00:59:59Z")));
        assert!(!record.is_valid(&us, at("2026-01-01T01:00:00Z")));
        assert!(!record.is_valid(&eu, at("2026-01-01T00:30:00Z")));
    }
}
