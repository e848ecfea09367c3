//! What refers to a manifest: `GET /v2/<name>/referrers/<digest>` (distribution
//! specification, "Listing Referrers").
//!
//! Owns the descriptor under which a manifest is listed, and the pages of the
//! list. Invariant: what is listed can be pulled: a manifest that is gone is
//! left out, whether or not its entry was cleared away.

use axum::extract::Query;
use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use slipway_blobstore::{ObjectKey, Prefix, Repository};
use slipway_oci::{Descriptor, Digest, Document, MediaType};

use crate::config::MANIFEST_SIZE;
use crate::error::Error;
use crate::registry::Registry;

const FILTERS_HEADER: HeaderName = HeaderName::from_static("oci-filters-applied");
/// Referrers that are read at once.
const AT_ONCE: usize = 16;

#[derive(Debug, Default, Deserialize)]
struct Wanted {
    #[serde(rename = "artifactType")]
    artifact_type: Option<String>,
    /// Only those that follow this one.
    last: Option<String>,
}

/// What a document says that it refers to.
pub(crate) fn subject(document: &Document) -> Option<&Descriptor> {
    match document {
        Document::Manifest(manifest) => manifest.subject.as_ref(),
        Document::Index(index) => index.subject.as_ref(),
    }
}

/// A document as a list of referrers shows it: with its annotations and the
/// kind of artifact that it is, for which a manifest's config stands in.
pub(crate) fn descriptor(
    document: &Document,
    media_type: MediaType,
    digest: Digest,
    size: u64,
) -> Descriptor {
    let stated = |kind: &Option<MediaType>| kind.clone().filter(|kind| !kind.as_str().is_empty());
    let (artifact_type, annotations) = match document {
        Document::Manifest(manifest) => {
            let kind = stated(&manifest.artifact_type);
            let kind = kind.unwrap_or_else(|| manifest.config.media_type.clone());
            (Some(kind), manifest.annotations.clone())
        }
        Document::Index(index) => (stated(&index.artifact_type), index.annotations.clone()),
    };
    Descriptor { artifact_type, annotations, ..Descriptor::new(media_type, digest, size) }
}

impl Registry {
    pub(crate) async fn list_referrers(
        &self,
        repository: &Repository,
        subject: Digest,
        uri: &Uri,
    ) -> Result<Response, Error> {
        let Query(wanted) = Query::<Wanted>::try_from_uri(uri).unwrap_or_default();
        let digests = self.referring(repository, &subject, wanted.last.as_deref()).await?;
        let read = |digest: Digest| async move {
            self.inner.links.referrer(repository, &subject, &digest).await
        };
        let found = stream::iter(digests).map(read).buffered(AT_ONCE);
        let mut found = std::pin::pin!(found.try_filter_map(|one| std::future::ready(Ok(one))));
        let mut page = Page::default();
        let mut next = None;
        while let Some(descriptor) = found.try_next().await? {
            if wanted.artifact_type.is_some() && kind(&descriptor) != wanted.artifact_type {
                continue;
            }
            if !page.add(&descriptor)? {
                next = page.last;
                break;
            }
        }
        Ok(answer(repository, &subject, &wanted, page.manifests, next))
    }

    /// Digests of what refers to a subject, in order.
    async fn referring(
        &self,
        repository: &Repository,
        subject: &Digest,
        after: Option<&str>,
    ) -> Result<Vec<Digest>, Error> {
        let entries = self.inner.store.list(&Prefix::Referrers(repository.clone(), *subject));
        let keys: Vec<ObjectKey> = entries.map_ok(|entry| entry.key).try_collect().await?;
        let digests = keys.into_iter().filter_map(|key| match key {
            ObjectKey::Referrer { digest, .. } => Some((digest.to_string(), digest)),
            _ => None,
        });
        let mut digests: Vec<(String, Digest)> =
            digests.filter(|(text, _)| after.is_none_or(|after| text.as_str() > after)).collect();
        digests.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(digests.into_iter().map(|(_, digest)| digest).collect())
    }
}

/// A page is at most as large as a manifest, and has at least one entry.
#[derive(Default)]
struct Page {
    manifests: Vec<Value>,
    size: u64,
    last: Option<Digest>,
}

impl Page {
    /// Whether there was room.
    fn add(&mut self, descriptor: &Descriptor) -> Result<bool, Error> {
        let value =
            serde_json::to_value(descriptor).map_err(|error| Error::Internal(error.into()))?;
        self.size += value.to_string().len() as u64;
        if self.last.is_some() && self.size > MANIFEST_SIZE {
            return Ok(false);
        }
        self.manifests.push(value);
        self.last = Some(descriptor.digest);
        Ok(true)
    }
}

fn kind(descriptor: &Descriptor) -> Option<String> {
    descriptor.artifact_type.as_ref().map(ToString::to_string)
}

fn answer(
    repository: &Repository,
    subject: &Digest,
    wanted: &Wanted,
    manifests: Vec<Value>,
    next: Option<Digest>,
) -> Response {
    let index =
        json!({ "schemaVersion": 2, "mediaType": MediaType::OciIndex, "manifests": manifests });
    let content_type = [(header::CONTENT_TYPE, MediaType::OciIndex.to_string())];
    let mut response = (content_type, index.to_string()).into_response();
    let headers = response.headers_mut();
    if wanted.artifact_type.is_some() {
        headers.insert(FILTERS_HEADER, HeaderValue::from_static("artifactType"));
    }
    if let Some(last) = next {
        let mut query = form(&[("last", &last.to_string())]);
        if let Some(kind) = &wanted.artifact_type {
            query = form(&[("artifactType", kind), ("last", &last.to_string())]);
        }
        let link = format!("</v2/{repository}/referrers/{subject}?{query}>; rel=\"next\"");
        headers.extend(HeaderValue::try_from(link).ok().map(|value| (header::LINK, value)));
    }
    response
}

/// A query with everything escaped that could end it early.
fn form(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| -> String {
        text.bytes()
            .map(|byte| match byte {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                    char::from(byte).to_string()
                }
                other => format!("%{other:02X}"),
            })
            .collect()
    };
    let pairs = pairs.iter().map(|(name, value)| format!("{name}={}", escape(value)));
    pairs.collect::<Vec<_>>().join("&")
}
