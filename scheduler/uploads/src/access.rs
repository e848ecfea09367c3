//! What clients are told about where and how to upload.

use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;
use slipway_domain::OrganizationId;

use crate::Keys;
use crate::door::REGION;
use crate::sts::Sts;

/// Where contexts are taken, and who makes the keys for it.
#[derive(Debug, Clone)]
pub enum Access {
    /// Nothing is configured: clients of S3 cannot upload.
    None,
    /// Slipway's own door.
    Door {
        /// Where clients reach it, without a slash at the end.
        url: String,
        /// The bucket that they see.
        bucket: String,
        /// The keys.
        keys: Arc<Keys>,
    },
    /// The bucket of the context store itself.
    Sts {
        /// What keys are made of.
        sts: Sts,
        /// Who asks for them.
        aws: slipway_aws::Client,
    },
}

/// A temporary right to an organization's contexts.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Name of the key.
    pub access_key: String,
    /// What requests are signed with.
    pub secret: SecretString,
    /// What each request shows beside its signature.
    pub session_token: SecretString,
    /// Where.
    pub url: String,
    /// In which bucket.
    pub bucket: String,
    /// In which region requests are signed.
    pub region: String,
}

/// Why there is no grant.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// Nothing is configured.
    #[error("uploads are not configured")]
    NotConfigured,
    /// AWS makes no keys.
    #[error(transparent)]
    Sts(#[from] slipway_aws::Error),
}

impl Access {
    /// Keys for the contexts of one organization, for an hour.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub async fn grant(
        &self,
        organization: OrganizationId,
        now: Timestamp,
    ) -> Result<Grant, AccessError> {
        match self {
            Self::None => Err(AccessError::NotConfigured),
            Self::Door { url, bucket, keys } => {
                let key = keys.issue(organization, now);
                Ok(Grant {
                    access_key: key.access_key,
                    secret: key.secret,
                    session_token: key.session_token,
                    url: url.clone(),
                    bucket: bucket.clone(),
                    region: REGION.to_owned(),
                })
            }
            Self::Sts { sts, aws } => Ok(sts.grant(aws, organization).await?),
        }
    }
}
