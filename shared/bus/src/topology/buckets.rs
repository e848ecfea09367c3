//! The key-value buckets and the streams under them.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy};
use slipway_domain::Region;

use super::{ServerPlacement, Topology, base, bucket_stream, key_subject};

/// The key-value buckets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BucketName {
    /// Snapshots, their names and jobs: what must move together.
    Records,
    /// Organizations.
    Organizations,
    /// API keys, by their hash.
    ApiKeys,
    /// Registry credentials, sealed, and the public keys of regions.
    RegistryCredentials,
    /// Short-lived secrets for pushes, by their hash.
    PushTokens,
    /// What the content of uploaded build contexts was found to be, and the secret
    /// behind the keys for uploads.
    Uploads,
    /// Requests that may be sent again, by their keys.
    Requests,
    /// Claims of attempts and signs of life of one region's workers.
    Leases(Region),
}

impl BucketName {
    /// How long the marker of a deleted or expired key stays. A watcher that
    /// was away for longer starts over, since it may have missed a deletion.
    #[must_use]
    pub const fn marker_ttl(&self) -> Duration {
        match self {
            Self::Leases(_) => Duration::from_secs(10 * 60),
            Self::Records
            | Self::Organizations
            | Self::ApiKeys
            | Self::PushTokens
            | Self::Uploads
            | Self::Requests
            | Self::RegistryCredentials => Duration::from_secs(24 * 3600),
        }
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Records => f.write_str("records"),
            Self::Organizations => f.write_str("organizations"),
            Self::ApiKeys => f.write_str("api_keys"),
            Self::RegistryCredentials => f.write_str("registry_credentials"),
            Self::PushTokens => f.write_str("push_tokens"),
            Self::Uploads => f.write_str("uploads"),
            Self::Requests => f.write_str("requests"),
            Self::Leases(region) => write!(f, "leases_{region}"),
        }
    }
}

/// Every bucket with the placement of its stream.
pub(crate) fn buckets(topology: &Topology) -> Vec<(BucketName, Option<&ServerPlacement>)> {
    let global = [
        BucketName::Records,
        BucketName::Organizations,
        BucketName::ApiKeys,
        BucketName::RegistryCredentials,
        BucketName::Uploads,
        BucketName::PushTokens,
        BucketName::Requests,
    ];
    let leases = topology
        .regions
        .iter()
        .map(|region| (BucketName::Leases(region.region.clone()), region.placement.as_ref()));
    global.into_iter().map(|bucket| (bucket, None)).chain(leases).collect()
}

/// The stream under a bucket: what ADR-8 asks for, so that any client can read
/// it, with history 1, expiry per key, markers of expiry, and atomic batches.
pub(crate) fn bucket_config(
    topology: &Topology,
    bucket: &BucketName,
    placement: Option<&ServerPlacement>,
) -> Config {
    Config {
        name: bucket_stream(bucket),
        subjects: vec![key_subject(bucket, ">")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_direct: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(bucket.marker_ttl()),
        allow_atomic_publish: true,
        duplicate_window: Duration::from_secs(120),
        ..base(topology, placement)
    }
}
