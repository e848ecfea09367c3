//! From a tag or digest to one platform's manifest.

use std::sync::Arc;

use bytes::Bytes;
use slipway_oci::{
    Descriptor, Digest, Document, ImageConfig, Manifest, MediaType, Platform, Verifier,
};

use crate::body;
use crate::error::Error;
use crate::rules;
use crate::session::Session;

/// Documents that are understood, the better ones first.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// One platform's image as its registry has it, without config and layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The type that the manifest was served as.
    pub media_type: MediaType,
    /// The manifest, byte for byte.
    pub bytes: Bytes,
    /// The manifest, read.
    pub manifest: Manifest,
    /// Digest of the index that it was chosen from, if there was one.
    pub index: Option<Digest>,
}

struct Fetched {
    digest: Digest,
    media_type: MediaType,
    bytes: Bytes,
    document: Document,
}

impl Session {
    /// The image that `reference`, a tag or digest, names for `platform`.
    pub(crate) async fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Image, Error> {
        let fetched = self.document(reference).await?;
        let (fetched, index) = match &fetched.document {
            Document::Manifest(_) => (fetched, None),
            Document::Index(index) => {
                let chosen = rules::choose(index, platform)?;
                let named = Reference::Descriptor(chosen.clone().into());
                (self.document(&named).await?, Some(fetched.digest))
            }
        };
        let Fetched { digest, media_type, bytes, document } = fetched;
        let Document::Manifest(manifest) = document else {
            return Err(Error::NestedIndex(digest.into()));
        };
        rules::check(&digest, &manifest)?;
        Ok(Image { digest, media_type, bytes, manifest: *manifest, index })
    }

    async fn document(&self, reference: &Reference) -> Result<Fetched, Error> {
        let what = reference.name(self.repository.as_str());
        let mut get = self.request(&format!("manifests/{}", reference.path()), what);
        get.accept = Some(ACCEPT);
        let (headers, bytes) = self.read(&get, self.http.config.manifest_size).await?;
        if body::is_web_page(&headers) || bytes.trim_ascii_start().starts_with(b"<") {
            return Err(Error::WebPage(self.host.clone()));
        }
        if let Some(reason) = self.reason_in(&bytes) {
            return Err(Error::ErrorBody { host: self.host.clone(), reason });
        }
        let promised = || {
            let value = headers.get("docker-content-digest")?.to_str().ok()?;
            value.parse::<Digest>().ok()
        };
        let digest = self.verify(reference, promised(), &bytes)?;
        let stated = body::media_type(&headers);
        let manifest = |source| Error::Manifest { what: get.what.clone(), source };
        let (media_type, document) = match stated.as_deref() {
            // Servers that know files only.
            None | Some("application/json" | "text/plain" | "application/octet-stream") => {
                Document::parse_untyped(&bytes).map_err(manifest)?
            }
            Some(stated) => {
                let media_type = MediaType::from(stated);
                let document = Document::parse(&media_type, &bytes).map_err(manifest)?;
                (media_type, document)
            }
        };
        Ok(Fetched { digest, media_type, bytes, document })
    }

    /// A document counts under the digest that was asked for, else under the
    /// one that the registry promises, else under its own.
    fn verify(
        &self,
        reference: &Reference,
        promised: Option<Digest>,
        bytes: &Bytes,
    ) -> Result<Digest, Error> {
        let (expected, size) = match reference {
            Reference::Tag(_) => (promised.unwrap_or_else(|| Digest::sha256(bytes)), None),
            Reference::Digest(digest) => (*digest, None),
            Reference::Descriptor(descriptor) => (descriptor.digest, Some(descriptor.size)),
        };
        let mut verifier = Verifier::new(expected);
        if let Some(size) = size {
            verifier = verifier.size(size);
        }
        verifier.update(bytes).and_then(|()| verifier.finish()).map_err(|source| Error::Content {
            host: self.host.clone(),
            digest: expected.into(),
            source,
        })
    }

    /// The config of an image, as it is and read.
    pub(crate) async fn config(
        self: &Arc<Self>,
        image: &Image,
        platform: &Platform,
    ) -> Result<(Bytes, ImageConfig), Error> {
        let descriptor = &image.manifest.config;
        let limit = self.http.config.manifest_size;
        if descriptor.size > limit {
            let what = descriptor.digest.to_string();
            return Err(Error::DocumentTooLarge { what, limit });
        }
        let bytes = self.blob_bytes(descriptor).await?;
        let config = rules::read_config(image, platform, &bytes)?;
        Ok((bytes, config))
    }
}

/// How a document is named to the registry.
#[derive(Debug, Clone)]
pub(crate) enum Reference {
    Tag(String),
    Digest(Digest),
    /// Out of an index, which says the size as well.
    Descriptor(Box<Descriptor>),
}

impl Reference {
    fn path(&self) -> String {
        match self {
            Self::Tag(tag) => tag.clone(),
            Self::Digest(digest) => digest.to_string(),
            Self::Descriptor(descriptor) => descriptor.digest.to_string(),
        }
    }

    fn name(&self, repository: &str) -> String {
        let separator = if matches!(self, Self::Tag(_)) { ':' } else { '@' };
        format!("{repository}{separator}{}", self.path())
    }
}
