//! One object: what is known of it, reading it, writing it whole.

use axum::body::Body;
use futures::StreamExt as _;
use s3s::dto::{
    Checksum, ETag, GetObjectInput, GetObjectOutput, HeadObjectOutput, PutObjectInput,
    PutObjectOutput, Range, StreamingBlob,
};
use s3s::{S3ErrorCode, S3Request, S3Result};
use slipway_blobstore::{ByteRange, ContextHash, Metadata, ObjectKey};
use slipway_domain::OrganizationId;
use slipway_oci::{Algorithm, Verifier};

use super::body::{self, Promised};
use super::{Door, refused, store_error, too_large};

/// A context, or what clients put beside it.
pub(super) enum Target {
    /// `<organization>/<hash>/context.tar`
    Context { organization: OrganizationId, hash: ContextHash },
    /// `<organization>/<hash>/`: a folder, as some clients write it down.
    Marker,
}

impl Target {
    /// Reads a key.
    pub(super) fn parse(key: &str) -> S3Result<Self> {
        if let Ok(ObjectKey::Context { organization, hash }) = ObjectKey::parse(key) {
            let organization = OrganizationId::from_uuid(organization);
            return Ok(Self::Context { organization, hash });
        }
        if key.ends_with('/') {
            return Ok(Self::Marker);
        }
        let message = "objects are called `<organization>/<hash>/context.tar`, \
                       where the hash has 32 to 128 lowercase hexadecimal digits";
        Err(refused(S3ErrorCode::AccessDenied, message))
    }

    /// The context, for what makes no sense with a marker.
    pub(super) fn context(key: &str) -> S3Result<(OrganizationId, ContextHash)> {
        match Self::parse(key)? {
            Self::Context { organization, hash } => Ok((organization, hash)),
            Self::Marker => Err(refused(S3ErrorCode::NoSuchKey, "there is no such object")),
        }
    }
}

/// Where a context lies.
pub(super) fn place(key: &str) -> S3Result<ObjectKey> {
    let (organization, hash) = Target::context(key)?;
    Ok(ObjectKey::Context { organization: *organization.as_uuid(), hash })
}

pub(super) async fn head(door: &Door, key: &str) -> S3Result<HeadObjectOutput> {
    let metadata = door.contexts.store().head(&place(key)?).await;
    let metadata = metadata.map_err(|error| store_error(&error))?;
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: i64::try_from(metadata.size).ok(),
        content_type: Some("application/x-tar".to_owned()),
        e_tag: mark(&metadata),
        last_modified: Some(metadata.modified.into()),
        ..HeadObjectOutput::default()
    })
}

pub(super) async fn get(door: &Door, input: GetObjectInput) -> S3Result<GetObjectOutput> {
    let range = input.range.map(|range| match range {
        Range::Int { first, last: Some(last) } => ByteRange::Bounded(first, last.saturating_add(1)),
        Range::Int { first, last: None } => ByteRange::From(first),
        Range::Suffix { length } => ByteRange::Last(length),
    });
    let object = door.contexts.store().get(&place(&input.key)?, range).await;
    let object = object.map_err(|error| store_error(&error))?;
    let (metadata, sent) = (object.metadata.clone(), object.range.clone());
    let whole = metadata.size;
    let content_range =
        range.map(|_| format!("bytes {}-{}/{whole}", sent.start, sent.end.saturating_sub(1)));
    let body = Body::from_stream(object.into_stream());
    Ok(GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::from(s3s::Body::http_body_unsync(body))),
        content_length: i64::try_from(sent.end - sent.start).ok(),
        content_range,
        content_type: Some("application/x-tar".to_owned()),
        e_tag: mark(&metadata),
        last_modified: Some(metadata.modified.into()),
        ..GetObjectOutput::default()
    })
}

pub(super) async fn put(
    door: &Door,
    request: S3Request<PutObjectInput>,
) -> S3Result<PutObjectOutput> {
    let promised = Promised::default().with_trailers(&request);
    let input = request.input;
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
    let length = input.content_length.and_then(|length| u64::try_from(length).ok());
    if length.is_some_and(|length| length > door.limit) {
        return Err(too_large(door.limit));
    }
    let (body, found) = body::verified(input.body, promised);
    let e_tag = match Target::parse(&input.key)? {
        Target::Context { organization, hash } => {
            let verifier = Verifier::unknown(Algorithm::Sha256).at_most(door.limit);
            let written = door.contexts.put(organization, hash, body, verifier).await;
            tag(written.map_err(|error| store_error(&error))?.etag.as_deref())
        }
        Target::Marker => {
            nothing(body).await?;
            Some(ETag::Strong("folder".to_owned()))
        }
    };
    let found = found.get();
    Ok(PutObjectOutput {
        checksum_crc32: found.checksum_crc32,
        checksum_crc32c: found.checksum_crc32c,
        checksum_crc64nvme: found.checksum_crc64nvme,
        checksum_sha1: found.checksum_sha1,
        checksum_sha256: found.checksum_sha256,
        e_tag,
        ..PutObjectOutput::default()
    })
}

/// A marker holds nothing.
async fn nothing<E: Into<slipway_blobstore::BoxError>>(
    body: impl futures::Stream<Item = Result<bytes::Bytes, E>>,
) -> S3Result<()> {
    let mut body = std::pin::pin!(body);
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) if chunk.is_empty() => {}
            Ok(_) => {
                let message = "a folder's marker is empty; contexts are called `context.tar`";
                return Err(refused(S3ErrorCode::InvalidArgument, message));
            }
            Err(error) => return Err(body::refusal(&*error.into())),
        }
    }
    Ok(())
}

pub(super) fn mark(metadata: &Metadata) -> Option<ETag> {
    tag(metadata.etag.as_deref())
}

/// Some stores show their marks in quotes, some without.
pub(super) fn tag(etag: Option<&str>) -> Option<ETag> {
    etag.map(|etag| ETag::Strong(etag.trim_matches('"').to_owned()))
}
