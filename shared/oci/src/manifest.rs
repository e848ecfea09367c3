//! Manifests and indexes, of OCI and of Docker's schema 2.
//!
//! Owns reading a document of a given media type.
//! Refuses schema 1, documents whose own `mediaType` contradicts the type they
//! are served under, and documents that could be read as manifest and as index
//! (the confusion of CVE-2021-41190).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Descriptor, MediaType, Platform};

/// The bytes were not a manifest or index of the stated type.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The type is that of no document read here.
    #[error("`{0}` is not the type of a manifest or index")]
    UnsupportedType(MediaType),
    /// Docker's first format.
    #[error(
        "docker schema 1 manifests are not supported, push the image again with a current client"
    )]
    Schema1,
    /// The bytes are not JSON of the right form.
    #[error("document does not read as `{media_type}`")]
    Json {
        /// The stated type.
        media_type: MediaType,
        /// What the JSON reader found.
        #[source]
        source: serde_json::Error,
    },
    /// `schemaVersion` is not 2.
    #[error("document has schemaVersion {0} instead of 2")]
    SchemaVersion(u32),
    /// `mediaType` inside differs from the stated type.
    #[error("document says that it is `{inner}`, but was served as `{outer}`")]
    TypeMismatch {
        /// The stated type.
        outer: MediaType,
        /// What the document says.
        inner: MediaType,
    },
    /// It has members of both forms.
    #[error("document is ambiguous: it has the members of a manifest and of an index")]
    Ambiguous,
}

/// One platform's image: a config and its layers in order, base first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Its own type, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The kind of artifact, for what is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// The config.
    pub config: Descriptor,
    /// The layers.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Manifest {
    /// Whether this is an image that can be run, and no other artifact.
    #[must_use]
    pub const fn is_image(&self) -> bool {
        self.artifact_type.is_none() && self.config.media_type.is_image_config()
    }

    /// Bytes of config and layers as they are stored and transferred; a layer
    /// that occurs twice counts twice, as in what `docker` shows.
    #[must_use]
    pub fn compressed_size(&self) -> u64 {
        self.layers.iter().fold(self.config.size, |total, layer| total.saturating_add(layer.size))
    }
}

/// A list by platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Its own type, if it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<MediaType>,
    /// The kind of artifact, for what is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<MediaType>,
    /// Manifests, or indexes again.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free metadata.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
}

impl Index {
    /// The first image for `wanted`; attestations are passed over.
    #[must_use]
    pub fn select(&self, wanted: &Platform) -> Option<&Descriptor> {
        self.images().find(|descriptor| {
            descriptor.platform.as_ref().is_some_and(|platform| platform.satisfies(wanted))
        })
    }

    /// The platforms on offer, for a message when none fits.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.images().filter_map(|descriptor| descriptor.platform.as_ref())
    }

    fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|descriptor| !descriptor.is_attestation())
    }
}

/// Either form, told apart by media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// One platform's manifest.
    Manifest(Box<Manifest>),
    /// A list by platform.
    Index(Box<Index>),
}

/// The members that tell the forms apart, whatever their values are.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u32>,
    media_type: Option<MediaType>,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    fs_layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Document {
    /// Reads `bytes` as a document of `media_type`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse(media_type: &MediaType, bytes: &[u8]) -> Result<Self, Error> {
        if media_type.is_schema1() {
            return Err(Error::Schema1);
        }
        if !media_type.is_manifest() && !media_type.is_index() {
            return Err(Error::UnsupportedType(media_type.clone()));
        }
        let json = |source| Error::Json { media_type: media_type.clone(), source };
        let shape: Shape = serde_json::from_slice(bytes).map_err(json)?;
        shape.check(media_type)?;
        if media_type.is_manifest() {
            serde_json::from_slice(bytes).map(|one| Self::Manifest(Box::new(one))).map_err(json)
        } else {
            serde_json::from_slice(bytes).map(|one| Self::Index(Box::new(one))).map_err(json)
        }
    }

    /// Reads `bytes` whose type was not stored beside them: by the document's
    /// own `mediaType`, else by its members.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn parse_untyped(bytes: &[u8]) -> Result<(MediaType, Self), Error> {
        let shape: Shape = serde_json::from_slice(bytes)
            .map_err(|source| Error::Json { media_type: MediaType::OciManifest, source })?;
        let media_type = match (shape.media_type, shape.manifests) {
            (Some(media_type), _) => media_type,
            (None, Some(_)) => MediaType::OciIndex,
            (None, None) => MediaType::OciManifest,
        };
        let document = Self::parse(&media_type, bytes)?;
        Ok((media_type, document))
    }

    /// Everything that must be in the repository for this document to be
    /// usable: config and layers with bytes in the registry, or manifests.
    pub fn required(&self) -> impl Iterator<Item = &Descriptor> {
        let (config, rest) = match self {
            Self::Manifest(manifest) => (Some(&manifest.config), &manifest.layers),
            Self::Index(index) => (None, &index.manifests),
        };
        config.into_iter().chain(rest).filter(|one| !one.media_type.is_foreign_layer())
    }
}

impl Shape {
    fn check(&self, outer: &MediaType) -> Result<(), Error> {
        match self.schema_version {
            Some(2) => {}
            Some(1) => return Err(Error::Schema1),
            other => return Err(Error::SchemaVersion(other.unwrap_or_default())),
        }
        if let Some(inner) = self.media_type.as_ref().filter(|inner| *inner != outer) {
            return Err(Error::TypeMismatch { outer: outer.clone(), inner: inner.clone() });
        }
        let as_manifest = self.config.is_some() || self.layers.is_some();
        let as_index = self.manifests.is_some();
        if (as_manifest && as_index) || self.fs_layers.is_some() {
            return Err(Error::Ambiguous);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;
    use crate::Digest;

    fn descriptor(media_type: &str, size: u64) -> Value {
        json!({ "mediaType": media_type, "digest": Digest::sha256("x"), "size": size })
    }

    fn manifest() -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", 10),
            "layers": [
                descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 100),
                descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 1000),
            ],
        })
    }

    fn parse(media_type: &str, value: &Value) -> Result<Document, Error> {
        Document::parse(&media_type.into(), &serde_json::to_vec(value).unwrap())
    }

    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";

    #[test]
    fn reads_a_manifest_and_lists_what_it_needs() {
        let document = parse(MANIFEST, &manifest()).unwrap();
        let sizes: Vec<u64> = document.required().map(|one| one.size).collect();
        assert_eq!(sizes, [10, 100], "foreign layers are not needed here");
        let Document::Manifest(manifest) = document else { panic!("not a manifest") };
        assert!(manifest.is_image());
        assert_eq!(manifest.compressed_size(), 1110);
    }

    #[test]
    fn selects_by_platform_and_passes_over_attestations() {
        let mut attestation = descriptor(MANIFEST, 1);
        attestation["platform"] = json!({ "os": "linux", "architecture": "amd64" });
        attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
        let mut arm = descriptor(MANIFEST, 2);
        arm["platform"] = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
        let mut amd = descriptor(MANIFEST, 3);
        amd["platform"] = json!({ "os": "linux", "architecture": "amd64" });
        let value = json!({ "schemaVersion": 2, "manifests": [attestation, arm, amd] });
        let Document::Index(index) = parse(INDEX, &value).unwrap() else { panic!("not an index") };
        assert_eq!(index.select(&Platform::linux_amd64()).unwrap().size, 3);
        assert_eq!(index.select(&"linux/arm64".parse().unwrap()).unwrap().size, 2);
        assert!(index.select(&"linux/s390x".parse().unwrap()).is_none());
        let offered: Vec<String> = index.platforms().map(Platform::to_string).collect();
        assert_eq!(offered, ["linux/arm64/v8", "linux/amd64"]);
    }

    #[test]
    fn refuses_what_could_be_read_two_ways() {
        let mut both = manifest();
        both["manifests"] = json!([]);
        assert!(matches!(parse(MANIFEST, &both), Err(Error::Ambiguous)));
        assert!(matches!(parse(INDEX, &manifest()), Err(Error::TypeMismatch { .. })));
        let mut untyped = manifest();
        untyped.as_object_mut().unwrap().remove("mediaType");
        untyped["fsLayers"] = json!([]);
        assert!(matches!(parse(MANIFEST, &untyped), Err(Error::Ambiguous)));
    }

    #[test]
    fn refuses_other_formats_with_the_reason() {
        let schema1 = json!({ "schemaVersion": 1, "fsLayers": [] });
        assert!(matches!(parse(MANIFEST, &schema1), Err(Error::Schema1)));
        let signed = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        assert!(matches!(parse(signed, &schema1), Err(Error::Schema1)));
        assert!(matches!(parse("text/html", &manifest()), Err(Error::UnsupportedType(_))));
        assert!(matches!(parse(MANIFEST, &json!({})), Err(Error::SchemaVersion(0))));
        let mut negative = manifest();
        negative["config"]["size"] = json!(-1);
        assert!(matches!(parse(MANIFEST, &negative), Err(Error::Json { .. })));
        assert!(matches!(
            Document::parse(&MediaType::OciManifest, b"<html>"),
            Err(Error::Json { .. })
        ));
    }

    #[test]
    fn reads_by_members_when_the_type_is_not_known() {
        let bytes = serde_json::to_vec(&manifest()).unwrap();
        assert_eq!(Document::parse_untyped(&bytes).unwrap().0, MediaType::OciManifest);
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(Document::parse_untyped(index).unwrap().0, MediaType::OciIndex);
    }
}
