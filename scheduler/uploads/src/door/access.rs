//! Who may do what: the key of a request opens its organization's contexts.
//!
//! Invariant: nothing is answered to a request that is not signed with a living
//! key and shows that key's session token.

use std::sync::Arc;

use jiff::Timestamp;
use s3s::access::{S3Access, S3AccessContext};
use s3s::auth::{S3Auth, SecretKey};
use s3s::path::S3Path;
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};
use slipway_domain::OrganizationId;
use url::form_urlencoded;

use super::refused;
use crate::Keys;
use crate::keys::Claim;

/// Knows what a key signs with.
pub(super) struct Signatures(pub(super) Arc<Keys>);

#[async_trait::async_trait]
impl S3Auth for Signatures {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        claim(access_key)?;
        Ok(SecretKey::from(self.0.secret_of(access_key)))
    }
}

/// Lets a key into its organization's contexts.
pub(super) struct OwnContexts {
    pub(super) keys: Arc<Keys>,
    pub(super) bucket: String,
}

#[async_trait::async_trait]
impl S3Access for OwnContexts {
    async fn check(&self, cx: &mut S3AccessContext<'_>) -> S3Result<()> {
        let unsigned = || refused(S3ErrorCode::AccessDenied, "sign the request (Version 4)");
        let access_key = &cx.credentials().ok_or_else(unsigned)?.access_key;
        let claim = claim(access_key)?;
        let shown = Shown::of(cx);
        if !shown.is_version_4 {
            return Err(unsigned());
        }
        if !self.keys.is_token_of(access_key, shown.token.as_deref().unwrap_or_default()) {
            let message = "send the session token as `x-amz-security-token`";
            return Err(refused(S3ErrorCode::InvalidToken, message));
        }
        match cx.s3_path() {
            S3Path::Root => Err(denied("the keys open one bucket")),
            S3Path::Bucket { bucket } => self.is_ours(bucket),
            S3Path::Object { bucket, key } => {
                self.is_ours(bucket)?;
                let own = key.split_once('/').map(|(first, _)| first);
                if own == Some(claim.organization.to_string().as_str()) {
                    return Ok(());
                }
                Err(denied("the key opens only objects below its organization"))
            }
        }
    }
}

impl OwnContexts {
    fn is_ours(&self, bucket: &str) -> S3Result<()> {
        if bucket == self.bucket {
            return Ok(());
        }
        Err(refused(S3ErrorCode::NoSuchBucket, format!("the bucket is `{}`", self.bucket)))
    }
}

/// What a request shows of its signature.
struct Shown {
    is_version_4: bool,
    token: Option<String>,
}

impl Shown {
    fn of(cx: &S3AccessContext<'_>) -> Self {
        let header = |name| cx.headers().get(name).and_then(|value| value.to_str().ok());
        if let Some(authorization) = header("authorization") {
            return Self {
                is_version_4: authorization.starts_with("AWS4-HMAC-SHA256"),
                token: header("x-amz-security-token").map(ToOwned::to_owned),
            };
        }
        let query = cx.uri().query().unwrap_or_default();
        let in_query = |wanted: &str| {
            let mut pairs = form_urlencoded::parse(query.as_bytes());
            pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
        };
        Self {
            is_version_4: in_query("X-Amz-Signature").is_some(),
            token: in_query("X-Amz-Security-Token"),
        }
    }
}

/// The organization whose key signed a request.
pub(super) fn organization<T>(request: &S3Request<T>) -> S3Result<OrganizationId> {
    let access_key = request.credentials.as_ref().map(|credentials| &*credentials.access_key);
    claim(access_key.unwrap_or_default()).map(|claim| claim.organization)
}

fn claim(access_key: &str) -> S3Result<Claim> {
    let Some(claim) = Keys::claim(access_key) else {
        let message = "ask for keys at /api/object-storage/push-access";
        return Err(refused(S3ErrorCode::InvalidAccessKeyId, message));
    };
    if claim.expires_at <= Timestamp::now() {
        let message = "the keys have expired: ask for new ones";
        return Err(refused(S3ErrorCode::ExpiredToken, message));
    }
    Ok(claim)
}

pub(super) fn denied(message: &'static str) -> S3Error {
    refused(S3ErrorCode::AccessDenied, message)
}
