//! Images that lie in the region's own registry already: what was pushed there,
//! and what snapshots and general snapshots are.
//!
//! Nothing is copied: the organization's snapshots get links to what the store
//! has. Invariant: only what the organization may read by HTTP becomes a link, and
//! the answer to everything else depends on the name alone.

use bytes::Bytes;
use slipway_blobstore::Repository;
use slipway_domain::failure::FailureKind;
use slipway_domain::{Failure, OrganizationId};
use slipway_oci::{Descriptor, Document, ImageConfig, ImageReference, Platform};
use slipway_registry::{Access, HeldManifest, Reference, Registry, Scope};
use slipway_source::{Error, Image, rules};

use super::failure::{of_lookup, of_source};

/// Largest image config that is read, in bytes, as with other pulls.
const CONFIG_SIZE: u64 = 4 << 20;

/// An image of the region's registry that an organization may read.
#[derive(Debug, Clone)]
pub(super) struct Own {
    registry: Registry,
    access: Access,
    reference: ImageReference,
    repository: Repository,
    pub(super) image: Image,
}

/// Finds images in the region's registry for one organization.
pub(super) struct Shelf<'a> {
    pub(super) registry: &'a Registry,
    pub(super) organization: OrganizationId,
    pub(super) reference: &'a ImageReference,
}

impl Shelf<'_> {
    /// The image that the reference names for `platform`.
    pub(super) async fn find(&self, platform: &Platform) -> Result<Own, Failure> {
        let access = Access {
            organization: self.organization,
            pull: Scope::Everything,
            push: Scope::Nothing,
        };
        let repository = self.reference.path().as_str().parse::<Repository>();
        let repository = repository.map_err(|_| self.missing())?;
        let named = match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.clone()),
            (None, None) => return Err(of_source(Error::NoTag(self.reference.to_string()))),
        };
        let find = async |named: Reference| {
            let found = self.registry.find_manifest(&access, &repository, &named).await;
            found.map_err(of_lookup)?.ok_or_else(|| self.missing())
        };
        let found = find(named).await?;
        let (found, index) = match parse(&found)? {
            Document::Manifest(_) => (found, None),
            Document::Index(index) => {
                let chosen = rules::choose(&index, platform).map_err(of_source)?.digest;
                (find(Reference::Digest(chosen)).await?, Some(found.digest))
            }
        };
        let Document::Manifest(manifest) = parse(&found)? else {
            return Err(of_source(Error::NestedIndex(found.digest.into())));
        };
        rules::check(&found.digest, &manifest).map_err(of_source)?;
        let HeldManifest { digest, media_type, bytes } = found;
        let image = Image { digest, media_type, bytes, manifest: *manifest, index };
        let (registry, reference) = (self.registry.clone(), self.reference.clone());
        Ok(Own { registry, access, reference, repository, image })
    }

    /// There is nothing, or nothing for this organization.
    fn missing(&self) -> Failure {
        let text = format!(
            "`{}` was not found in the region's registry, among the images of organization `{}`: \
             check organization, name and tag, and that it was pushed to this region",
            self.reference, self.organization
        );
        Failure::new(FailureKind::ImageNotFound, text)
    }
}

impl Own {
    /// The registry as the reference names it.
    pub(super) fn host(&self) -> &str {
        self.reference.domain()
    }

    /// The image config, whole and read.
    pub(super) async fn config(
        &self,
        platform: &Platform,
    ) -> Result<(Bytes, ImageConfig), Failure> {
        let config = &self.image.manifest.config;
        if config.size > CONFIG_SIZE {
            let (what, limit) = (config.digest.to_string(), CONFIG_SIZE);
            return Err(of_source(Error::DocumentTooLarge { what, limit }));
        }
        let read = self.registry.read_blob(&self.access, &self.repository, config).await;
        let bytes = read.map_err(of_lookup)?.ok_or_else(|| self.gone(config))?;
        let read = rules::read_config(&self.image, platform, &bytes).map_err(of_source)?;
        Ok((bytes, read))
    }

    /// Fails unless the image's repository has the blob.
    pub(super) async fn demand(&self, blob: &Descriptor) -> Result<(), Failure> {
        let found = self.registry.find_blob(&self.access, &self.repository, blob).await;
        if found.map_err(of_lookup)? { Ok(()) } else { Err(self.gone(blob)) }
    }

    /// Who may push may also delete.
    fn gone(&self, blob: &Descriptor) -> Failure {
        let text = format!(
            "`{}` lacks its blob `{}`, which was deleted: push it again",
            self.reference, blob.digest
        );
        Failure::new(FailureKind::ImageInvalid, text)
    }
}

fn parse(found: &HeldManifest) -> Result<Document, Failure> {
    Document::parse(&found.media_type, &found.bytes)
        .map_err(|source| of_source(Error::Manifest { what: found.digest.to_string(), source }))
}
