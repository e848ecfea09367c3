//! Uploads in parts.
//!
//! A part lies in the store under the upload's id until the upload is completed;
//! then all are read in order, verified against their ETags, and written as one
//! object. So any scheduler can take any part, and a restart loses none.
//!
//! Invariants: an upload's id is good for the one object that it was made for;
//! the parts of an upload are never more than one context may hold.

use futures::{Stream, TryStreamExt as _, stream};
use s3s::dto::{
    AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, CompleteMultipartUploadInput,
    CompleteMultipartUploadOutput, CompletedPart, CreateMultipartUploadInput,
    CreateMultipartUploadOutput, ETag, UploadPartInput, UploadPartOutput,
};
use s3s::{S3Error, S3ErrorCode, S3Request, S3Result};
use slipway_blobstore::{BoxError, ObjectKey, Prefix};
use slipway_oci::{Algorithm, Digest, Verifier};
use slipway_runtime::telemetry;
use uuid::Uuid;

use super::body::{self, Promised};
use super::object::{Target, tag};
use super::{Door, refused, store_error, too_large};

/// A part that is not what the client says.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("part {0} is another than its ETag says")]
    Changed(u16),
    #[error("part {0} was not uploaded")]
    Missing(u16),
}

pub(super) fn create(
    door: &Door,
    input: CreateMultipartUploadInput,
) -> S3Result<CreateMultipartUploadOutput> {
    Target::context(&input.key)?;
    Ok(CreateMultipartUploadOutput {
        upload_id: Some(door.keys.upload_id(Uuid::new_v4(), &input.key)),
        checksum_algorithm: input.checksum_algorithm,
        checksum_type: input.checksum_type,
        bucket: Some(input.bucket),
        key: Some(input.key),
        ..CreateMultipartUploadOutput::default()
    })
}

pub(super) async fn put(
    door: &Door,
    request: S3Request<UploadPartInput>,
) -> S3Result<UploadPartOutput> {
    let promised = Promised::default().with_trailers(&request);
    let input = request.input;
    let upload = upload(door, &input.upload_id, &input.key)?;
    let number = number(input.part_number)?;
    let room = door.limit.saturating_sub(others(door, upload, number).await?);
    let length = input.content_length.and_then(|length| u64::try_from(length).ok());
    if length.is_some_and(|length| length > room) {
        return Err(too_large(door.limit));
    }
    let promised = Promised {
        checksum: Checksum {
            checksum_crc32: input.checksum_crc32,
            checksum_crc32c: input.checksum_crc32c,
            checksum_crc64nvme: input.checksum_crc64nvme,
            checksum_sha1: input.checksum_sha1,
            checksum_sha256: input.checksum_sha256,
            ..Checksum::default()
        },
        md5: input.content_md5,
        ..promised
    };
    let (body, found) = body::verified(input.body, promised);
    let verifier = Verifier::unknown(Algorithm::Sha256).at_most(room);
    let key = ObjectKey::UploadPart { upload, number };
    let stored = door.contexts.store().put_stream(&key, body, verifier).await;
    let stored = stored.map_err(|error| store_error(&error))?;
    let found = found.get();
    Ok(UploadPartOutput {
        checksum_crc32: found.checksum_crc32,
        checksum_crc32c: found.checksum_crc32c,
        checksum_crc64nvme: found.checksum_crc64nvme,
        checksum_sha1: found.checksum_sha1,
        checksum_sha256: found.checksum_sha256,
        e_tag: Some(ETag::Strong(stored.digest.hex())),
        ..UploadPartOutput::default()
    })
}

pub(super) async fn complete(
    door: &Door,
    input: CompleteMultipartUploadInput,
) -> S3Result<CompleteMultipartUploadOutput> {
    let (organization, hash) = Target::context(&input.key)?;
    let upload = upload(door, &input.upload_id, &input.key)?;
    let parts = input.multipart_upload.and_then(|list| list.parts).unwrap_or_default();
    let parts = in_order(&parts)?;
    let mut verifier = Verifier::unknown(Algorithm::Sha256).at_most(door.limit);
    if let Some(size) = input.mpu_object_size.and_then(|size| u64::try_from(size).ok()) {
        verifier = verifier.size(size);
    }
    let body = joined(door, upload, parts);
    let written = match door.contexts.put(organization, hash, body, verifier).await {
        Ok(written) => written,
        Err(slipway_blobstore::Error::Body { source, .. }) => return Err(broken(&source)),
        Err(error) => return Err(store_error(&error)),
    };
    // The object is there; what is left of its parts is swept later.
    if let Err(error) = discard(door, upload).await {
        tracing::warn!(error = telemetry::chain(&error), "parts of an upload are left over");
    }
    Ok(CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: tag(written.etag.as_deref()),
        ..CompleteMultipartUploadOutput::default()
    })
}

pub(super) async fn abort(
    door: &Door,
    input: &AbortMultipartUploadInput,
) -> S3Result<AbortMultipartUploadOutput> {
    let upload = upload(door, &input.upload_id, &input.key)?;
    discard(door, upload).await.map_err(|error| store_error(&error))?;
    Ok(AbortMultipartUploadOutput::default())
}

fn upload(door: &Door, id: &str, key: &str) -> S3Result<Uuid> {
    Target::context(key)?;
    let unknown = || refused(S3ErrorCode::NoSuchUpload, "there is no such upload of this object");
    door.keys.upload(id, key).ok_or_else(unknown)
}

fn number(number: i32) -> S3Result<u16> {
    let number = u16::try_from(number).ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| refused(S3ErrorCode::InvalidArgument, "parts are numbered 1 to 10000"))
}

/// Bytes of the upload's other parts.
async fn others(door: &Door, upload: Uuid, number: u16) -> S3Result<u64> {
    let parts = door.contexts.store().list(&Prefix::UploadParts(upload));
    let own = ObjectKey::UploadPart { upload, number };
    let sum = parts.try_fold(0_u64, |sum, part| {
        let size = if part.key == own { 0 } else { part.metadata.size };
        std::future::ready(Ok(sum.saturating_add(size)))
    });
    sum.await.map_err(|error| store_error(&error))
}

/// Number and digest of each part that the client names.
fn in_order(parts: &[CompletedPart]) -> S3Result<Vec<(u16, Digest)>> {
    if parts.is_empty() {
        return Err(refused(S3ErrorCode::MalformedXML, "name the parts"));
    }
    let mut list: Vec<(u16, Digest)> = vec![];
    for part in parts {
        let number = number(part.part_number.unwrap_or_default())?;
        if list.last().is_some_and(|(before, _)| *before >= number) {
            let message = "name the parts in ascending order";
            return Err(refused(S3ErrorCode::InvalidPartOrder, message));
        }
        let digest = part.e_tag.as_ref().and_then(|tag| Digest::from_sha256_hex(tag.value()).ok());
        let digest = digest.ok_or_else(|| invalid(&Fault::Changed(number)))?;
        list.push((number, digest));
    }
    Ok(list)
}

/// The parts one after the other, each verified before the next begins.
fn joined(
    door: &Door,
    upload: Uuid,
    parts: Vec<(u16, Digest)>,
) -> impl Stream<Item = Result<bytes::Bytes, BoxError>> + Send + use<> {
    let store = door.contexts.store().clone();
    let part = move |(number, digest)| {
        let store = store.clone();
        async move {
            let object = store.get(&ObjectKey::UploadPart { upload, number }, None).await;
            let object = object.map_err(|error| -> BoxError {
                if error.is_not_found() { Fault::Missing(number).into() } else { error.into() }
            })?;
            Ok::<_, BoxError>(checked(number, digest, object))
        }
    };
    stream::iter(parts.into_iter().map(Ok)).and_then(part).try_flatten()
}

fn checked(
    number: u16,
    digest: Digest,
    object: slipway_blobstore::Object,
) -> impl Stream<Item = Result<bytes::Bytes, BoxError>> + Send {
    let state = (object.into_stream(), Verifier::new(digest));
    stream::try_unfold(Some(state), move |state| async move {
        let Some((mut body, mut verifier)) = state else { return Ok(None) };
        match body.try_next().await? {
            Some(chunk) => {
                verifier.update(&chunk).map_err(|_| Fault::Changed(number))?;
                Ok(Some((chunk, Some((body, verifier)))))
            }
            None => {
                verifier.finish().map_err(|_| Fault::Changed(number))?;
                Ok(None)
            }
        }
    })
}

async fn discard(door: &Door, upload: Uuid) -> Result<(), slipway_blobstore::Error> {
    let store = door.contexts.store();
    let parts = store.list(&Prefix::UploadParts(upload));
    parts.try_for_each_concurrent(8, |part| async move { store.delete(&part.key).await }).await
}

/// What went wrong while the parts were read.
fn broken(source: &BoxError) -> S3Error {
    if let Some(fault) = source.downcast_ref::<Fault>() {
        return invalid(fault);
    }
    match source.downcast_ref::<slipway_blobstore::Error>() {
        Some(error) => store_error(error),
        None => body::refusal(&**source),
    }
}

fn invalid(fault: &Fault) -> S3Error {
    refused(S3ErrorCode::InvalidPart, fault.to_string())
}
