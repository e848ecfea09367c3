//! Manifests and indexes: `HEAD`, `GET`, `PUT` and `DELETE`
//! `/v2/<name>/manifests/<tag or digest>`.
//!
//! Invariant: the bytes are stored first, then the entry among the referrers,
//! then the link, then the tag; each step leaves the repository valid, so a
//! crash between them needs no repair.

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use slipway_blobstore::{ObjectKey, Repository};
use slipway_oci::{Descriptor, Digest, Document, MediaType, Verifier};

use crate::config::MANIFEST_SIZE;
use crate::error::Error;
use crate::links::Link;
use crate::registry::{DIGEST_HEADER, Registry};
use crate::route::Reference;
use crate::{negotiation, referrers};

const SUBJECT_HEADER: HeaderName = HeaderName::from_static("oci-subject");
/// Links that are looked up at once when a manifest is checked.
const LOOK_UPS: usize = 16;

/// Blobs and manifests that a manifest needs, with their links.
pub(crate) type Found = Vec<(Descriptor, Option<Link>)>;

impl Registry {
    pub(crate) async fn manifest(
        &self,
        repository: &Repository,
        reference: Reference,
        request: Request,
    ) -> Result<Response, Error> {
        match *request.method() {
            Method::GET | Method::HEAD => {
                let is_head = *request.method() == Method::HEAD;
                self.get_manifest(repository, reference, request.headers(), is_head).await
            }
            Method::PUT => self.put_manifest(repository, reference, request).await,
            Method::DELETE => self.delete_manifest(repository, reference).await,
            _ => Err(Error::Unsupported(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    async fn get_manifest(
        &self,
        repository: &Repository,
        reference: Reference,
        asked: &HeaderMap,
        is_head: bool,
    ) -> Result<Response, Error> {
        let links = &self.inner.links;
        let digest = match reference {
            Reference::Digest(digest) => Some(digest),
            Reference::Tag(tag) => links.tag(repository, &tag).await?,
        };
        let digest = digest.ok_or(Error::ManifestUnknown)?;
        let link = links.manifest(repository, &digest).await?.ok_or(Error::ManifestUnknown)?;
        let Link { size, media_type: Some(media_type), .. } = link else {
            return Err(Error::Internal("link of a manifest has no media type".into()));
        };
        if !negotiation::accepts(asked, &media_type) {
            return Err(Error::NotAcceptable(media_type));
        }
        let headers = [
            (header::CONTENT_TYPE, media_type.to_string()),
            (header::CONTENT_LENGTH, size.to_string()),
            (header::ETAG, format!("\"{digest}\"")),
            (header::VARY, header::ACCEPT.to_string()),
            (DIGEST_HEADER, digest.to_string()),
        ];
        if is_head {
            return Ok(headers.into_response());
        }
        let bytes = self.inner.store.get_bytes(&ObjectKey::Blob(digest), MANIFEST_SIZE).await?;
        self.inner.metrics.manifests_sent.add(1);
        if let Some(observer) = &self.inner.options.observer {
            observer.served(repository, &digest);
        }
        Ok((headers, bytes).into_response())
    }

    async fn put_manifest(
        &self,
        repository: &Repository,
        reference: Reference,
        request: Request,
    ) -> Result<Response, Error> {
        let (head, body) = request.into_parts();
        let bytes = read_manifest(&head.headers, body).await?;
        let (media_type, document) = parse(&head.headers, &bytes)?;
        let digest = digest_of(&reference, &bytes)?;
        self.check_complete(repository, &document).await?;

        let links = &self.inner.links;
        let size = bytes.len() as u64;
        self.inner.store.put_bytes(&ObjectKey::Blob(digest), bytes).await?;
        let subject = referrers::subject(&document).map(|subject| subject.digest);
        if let Some(subject) = &subject {
            let entry = referrers::descriptor(&document, media_type.clone(), digest, size);
            links.add_referrer(repository, subject, entry).await?;
        }
        links.add_manifest(repository, &digest, size, media_type).await?;
        if let Reference::Tag(tag) = &reference {
            links.set_tag(repository, tag, digest).await?;
        }
        self.inner.metrics.manifests_received.add(1);
        let headers = [
            (header::LOCATION, format!("/v2/{repository}/manifests/{digest}")),
            (DIGEST_HEADER, digest.to_string()),
        ];
        let mut response = (StatusCode::CREATED, headers).into_response();
        if let Some(subject) = subject {
            let value = HeaderValue::try_from(subject.to_string());
            response.headers_mut().extend(value.ok().map(|value| (SUBJECT_HEADER, value)));
        }
        Ok(response)
    }

    /// Everything that the document needs is in its repository, at the size
    /// that it says.
    pub(crate) async fn check_complete(
        &self,
        repository: &Repository,
        document: &Document,
    ) -> Result<(), Error> {
        let found = self.find_all(repository, document).await?;
        self.refresh(repository, document, found).await
    }

    /// What a manifest needs, all of which is in the repository.
    pub(crate) async fn find_all(
        &self,
        repository: &Repository,
        document: &Document,
    ) -> Result<Found, Error> {
        let look_up = |descriptor: Descriptor| async move {
            let link = self.find(repository, document, &descriptor).await?;
            Ok::<_, Error>((descriptor, link))
        };
        let needed: Vec<Descriptor> = document.required().cloned().collect();
        let found: Found =
            stream::iter(needed).map(look_up).buffered(LOOK_UPS).try_collect().await?;
        let missing: Vec<Digest> = found
            .iter()
            .filter(|(_, link)| link.is_none())
            .map(|(descriptor, _)| descriptor.digest)
            .collect();
        if !missing.is_empty() {
            return Err(Error::ManifestBlobUnknown(missing));
        }
        let lie = found
            .iter()
            .find(|(descriptor, link)| link.as_ref().is_some_and(|it| it.size != descriptor.size));
        match lie {
            None => Ok(found),
            Some((descriptor, _)) => Err(Error::ManifestInvalid(format!(
                "`{}` does not have {} bytes",
                descriptor.digest, descriptor.size
            ))),
        }
    }

    /// Writes the links of blobs once more, so that a sweep sees that they are
    /// young: their manifest, which would keep them, is not there yet.
    pub(crate) async fn refresh(
        &self,
        repository: &Repository,
        document: &Document,
        found: Found,
    ) -> Result<(), Error> {
        let blobs = found.into_iter().filter(|(blob, _)| !names_manifest(document, blob));
        let links = &self.inner.links;
        let write = |(blob, _): (Descriptor, Option<Link>)| async move {
            links.add_blob(repository, &blob.digest, blob.size).await
        };
        let written = stream::iter(blobs).map(write).buffer_unordered(LOOK_UPS);
        Ok(written.try_collect().await?)
    }

    async fn find(
        &self,
        repository: &Repository,
        document: &Document,
        descriptor: &Descriptor,
    ) -> Result<Option<Link>, Error> {
        let links = &self.inner.links;
        match names_manifest(document, descriptor) {
            true => links.manifest_now(repository, &descriptor.digest).await,
            false => links.blob_now(repository, &descriptor.digest).await,
        }
    }
}

/// Whether a document names another one. BuildKit's cache lists blobs in an
/// index, so the descriptor's type decides, not the document's.
fn names_manifest(document: &Document, descriptor: &Descriptor) -> bool {
    let media_type = &descriptor.media_type;
    matches!(document, Document::Index(_)) && (media_type.is_manifest() || media_type.is_index())
}

async fn read_manifest(headers: &HeaderMap, body: Body) -> Result<Bytes, Error> {
    let too_large = || Error::TooLarge(MANIFEST_SIZE);
    let promised = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if promised.is_some_and(|size| size > MANIFEST_SIZE) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut body = body.into_data_stream();
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| Error::UploadBroken(error.into()))?;
        if (bytes.len() + chunk.len()) as u64 > MANIFEST_SIZE {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

/// The type is that of the header; only without one does the document decide.
fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<(MediaType, Document), Error> {
    let invalid = |error: slipway_oci::error::Manifest| Error::ManifestInvalid(error.to_string());
    let stated = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    match stated {
        None => Document::parse_untyped(bytes).map_err(invalid),
        Some(stated) => {
            let media_type = MediaType::from(stated);
            let document = Document::parse(&media_type, bytes).map_err(invalid)?;
            Ok((media_type, document))
        }
    }
}

fn digest_of(reference: &Reference, bytes: &[u8]) -> Result<Digest, Error> {
    match reference {
        Reference::Tag(_) => Ok(Digest::sha256(bytes)),
        Reference::Digest(expected) => {
            let mut verifier = Verifier::new(*expected);
            verifier.update(bytes)?;
            Ok(verifier.finish()?)
        }
    }
}
