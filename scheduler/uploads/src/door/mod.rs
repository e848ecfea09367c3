//! The small part of S3 that uploading clients speak, over the store of contexts.
//!
//! Owns what Daytona's SDKs and command line need: HEAD, GET and PUT of objects,
//! uploads in parts, ListObjectsV2, HEAD and location of the bucket; with
//! Signature Version 4, session tokens, chunked payloads and checksums, all of
//! which the crate `s3s` reads. Everything else of S3 answers `NotImplemented`.
//! Refuses other objects than `<organization>/<hash>/context.tar`; the markers of
//! folders (`<organization>/<hash>/`) that some clients write are taken and
//! forgotten.
//!
//! Invariants: an object becomes visible only after its length, the signature of
//! its payload and every checksum that came with it were verified; no body is
//! held in memory as a whole.

mod access;
mod body;
mod list;
mod object;
mod parts;
mod serve;

use std::sync::Arc;

use axum::Router;
use axum::error_handling::HandleError;
use axum::http::StatusCode;
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput,
    GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput, UploadPartInput, UploadPartOutput,
};
use s3s::service::S3ServiceBuilder;
use s3s::{HttpError, S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result};
use slipway_runtime::telemetry;

use crate::{Contexts, Keys};

pub use serve::{Error, Listening};

/// The region that the bucket is said to lie in. SDKs sign with it.
pub const REGION: &str = "us-east-1";

/// What the routes share.
#[derive(Debug, Clone)]
pub struct Door {
    contexts: Contexts,
    keys: Arc<Keys>,
    limit: u64,
}

impl Door {
    /// A door to `contexts` for holders of `keys`, which takes contexts of at most
    /// `limit` bytes.
    #[must_use]
    pub const fn new(contexts: Contexts, keys: Arc<Keys>, limit: u64) -> Self {
        Self { contexts, keys, limit }
    }
}

/// Every route, for one bucket in path style.
pub fn router(door: Door, bucket: &str) -> Router {
    let mut builder = S3ServiceBuilder::new(door.clone());
    builder.set_auth(access::Signatures(door.keys.clone()));
    builder.set_access(access::OwnContexts { keys: door.keys, bucket: bucket.to_owned() });
    let service = HandleError::new(builder.build(), |error: HttpError| async move {
        let error: Box<dyn std::error::Error + Send + Sync> = error.into();
        tracing::warn!(error = telemetry::chain(&*error), "a request for uploads failed");
        StatusCode::INTERNAL_SERVER_ERROR
    });
    Router::new().fallback_service(service)
}

#[async_trait::async_trait]
impl S3 for Door {
    async fn head_bucket(
        &self,
        _: S3Request<HeadBucketInput>,
    ) -> S3Result<S3Response<HeadBucketOutput>> {
        let output =
            HeadBucketOutput { bucket_region: Some(REGION.into()), ..HeadBucketOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn get_bucket_location(
        &self,
        _: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        // No constraint is how S3 spells `us-east-1`.
        Ok(S3Response::new(GetBucketLocationOutput::default()))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let organization = access::organization(&request)?;
        list::list(self, organization, request.input).await.map(S3Response::new)
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        object::head(self, &request.input.key).await.map(S3Response::new)
    }

    async fn get_object(
        &self,
        request: S3Request<GetObjectInput>,
    ) -> S3Result<S3Response<GetObjectOutput>> {
        object::get(self, request.input).await.map(S3Response::new)
    }

    async fn put_object(
        &self,
        request: S3Request<PutObjectInput>,
    ) -> S3Result<S3Response<PutObjectOutput>> {
        object::put(self, request).await.map(S3Response::new)
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        parts::create(self, request.input).map(S3Response::new)
    }

    async fn upload_part(
        &self,
        request: S3Request<UploadPartInput>,
    ) -> S3Result<S3Response<UploadPartOutput>> {
        parts::put(self, request).await.map(S3Response::new)
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        parts::complete(self, request.input).await.map(S3Response::new)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        parts::abort(self, &request.input).await.map(S3Response::new)
    }
}

/// An error for a client.
fn refused(code: S3ErrorCode, message: impl Into<String>) -> S3Error {
    S3Error::with_message(code, message.into())
}

/// What an error of the store is to a client.
fn store_error(error: &slipway_blobstore::Error) -> S3Error {
    use slipway_blobstore::Error as E;
    use slipway_oci::Mismatch;
    match error {
        E::NotFound(_) => refused(S3ErrorCode::NoSuchKey, "there is no such object"),
        E::Range { .. } => refused(S3ErrorCode::InvalidRange, "the object has no such bytes"),
        E::Mismatch { source: Mismatch::TooLong { size }, .. } => too_large(*size),
        E::Mismatch { source: Mismatch::TooShort { .. }, .. } => {
            refused(S3ErrorCode::IncompleteBody, "the body ended early: send it again")
        }
        E::Mismatch { .. } => refused(S3ErrorCode::BadDigest, telemetry::chain(error)),
        E::Body { source, .. } => body::refusal(&**source),
        E::Open { .. } | E::TooLarge { .. } | E::Unavailable { .. } | E::Refused { .. } => {
            tracing::warn!(error = telemetry::chain(error), "an upload was not served");
            refused(S3ErrorCode::ServiceUnavailable, "the object store is away, try again")
        }
    }
}

fn too_large(limit: u64) -> S3Error {
    let message = format!("a build context may have at most {limit} bytes");
    refused(S3ErrorCode::EntityTooLarge, message)
}
