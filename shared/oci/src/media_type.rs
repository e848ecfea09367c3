//! Media types of OCI images and of Docker's schema 2, as one enum.
//!
//! Owns the question which role a type plays (manifest, index, image config,
//! layer); the two families are never told apart by string comparison
//! elsewhere.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! media_types {
    ($($(#[$doc:meta])* $variant:ident = $text:literal,)*) => {
        /// The type of some content. What is not known is kept as
        /// [`MediaType::Other`], since artifacts bring their own.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum MediaType {
            $($(#[$doc])* $variant,)*
            /// Anything else, verbatim.
            Other(String),
        }

        impl MediaType {
            /// The text as it stands in documents and headers.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }

            fn from_text(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)*
                    other => Self::Other(other.to_owned()),
                }
            }

            #[cfg(test)]
            const ALL: &[&str] = &[$($text),*];
        }
    };
}

media_types! {
    /// OCI image manifest.
    OciManifest = "application/vnd.oci.image.manifest.v1+json",
    /// OCI image index.
    OciIndex = "application/vnd.oci.image.index.v1+json",
    /// OCI image config.
    OciImageConfig = "application/vnd.oci.image.config.v1+json",
    /// OCI layer, uncompressed.
    OciLayer = "application/vnd.oci.image.layer.v1.tar",
    /// OCI layer, gzip.
    OciLayerGzip = "application/vnd.oci.image.layer.v1.tar+gzip",
    /// OCI layer, zstd.
    OciLayerZstd = "application/vnd.oci.image.layer.v1.tar+zstd",
    /// OCI layer that may not be distributed, uncompressed.
    OciForeignLayer = "application/vnd.oci.image.layer.nondistributable.v1.tar",
    /// OCI layer that may not be distributed, gzip.
    OciForeignLayerGzip = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    /// OCI layer that may not be distributed, zstd.
    OciForeignLayerZstd = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    /// The two bytes `{}`, config of artifacts that need none.
    OciEmpty = "application/vnd.oci.empty.v1+json",
    /// Docker schema 2 manifest.
    DockerManifest = "application/vnd.docker.distribution.manifest.v2+json",
    /// Docker schema 2 manifest list: an index.
    DockerIndex = "application/vnd.docker.distribution.manifest.list.v2+json",
    /// Docker image config.
    DockerImageConfig = "application/vnd.docker.container.image.v1+json",
    /// Docker layer, uncompressed.
    DockerLayer = "application/vnd.docker.image.rootfs.diff.tar",
    /// Docker layer, gzip.
    DockerLayerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip",
    /// Docker layer, zstd: not standardised, but written by BuildKit.
    DockerLayerZstd = "application/vnd.docker.image.rootfs.diff.tar.zstd",
    /// Docker layer that lives at a URL of its own.
    DockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar",
    /// Docker layer that lives at a URL of its own, gzip.
    DockerForeignLayerGzip = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    /// Docker schema 1 manifest, obsolete.
    DockerSchema1 = "application/vnd.docker.distribution.manifest.v1+json",
    /// Docker schema 1 manifest with a signature, obsolete.
    DockerSchema1Signed = "application/vnd.docker.distribution.manifest.v1+prettyjws",
}

impl MediaType {
    /// One platform's manifest.
    #[must_use]
    pub const fn is_manifest(&self) -> bool {
        matches!(self, Self::OciManifest | Self::DockerManifest)
    }

    /// A list by platform.
    #[must_use]
    pub const fn is_index(&self) -> bool {
        matches!(self, Self::OciIndex | Self::DockerIndex)
    }

    /// The config of a runnable image.
    #[must_use]
    pub const fn is_image_config(&self) -> bool {
        matches!(self, Self::OciImageConfig | Self::DockerImageConfig)
    }

    /// A file system layer whose bytes lie in the registry.
    #[must_use]
    pub const fn is_layer(&self) -> bool {
        matches!(
            self,
            Self::OciLayer
                | Self::OciLayerGzip
                | Self::OciLayerZstd
                | Self::DockerLayer
                | Self::DockerLayerGzip
                | Self::DockerLayerZstd
        )
    }

    /// A layer whose bytes need not lie in the registry.
    #[must_use]
    pub const fn is_foreign_layer(&self) -> bool {
        matches!(
            self,
            Self::OciForeignLayer
                | Self::OciForeignLayerGzip
                | Self::OciForeignLayerZstd
                | Self::DockerForeignLayer
                | Self::DockerForeignLayerGzip
        )
    }

    /// Docker's first manifest format, which has no verifiable layers.
    #[must_use]
    pub const fn is_schema1(&self) -> bool {
        matches!(self, Self::DockerSchema1 | Self::DockerSchema1Signed)
    }
}

impl From<&str> for MediaType {
    /// Takes a header's value as well: parameters such as `; charset=utf-8`
    /// are dropped.
    fn from(text: &str) -> Self {
        let essence = text.split_once(';').map_or(text, |(essence, _)| essence);
        Self::from_text(essence.trim())
    }
}

impl FromStr for MediaType {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from_text(&String::deserialize(deserializer)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_type_has_exactly_one_role_or_none() {
        for text in MediaType::ALL {
            let media_type = MediaType::from(*text);
            assert_eq!(media_type.as_str(), *text);
            assert!(!matches!(media_type, MediaType::Other(_)));
            let roles = [
                media_type.is_manifest(),
                media_type.is_index(),
                media_type.is_image_config(),
                media_type.is_layer(),
                media_type.is_foreign_layer(),
                media_type.is_schema1(),
                media_type == MediaType::OciEmpty,
            ];
            assert_eq!(roles.iter().filter(|role| **role).count(), 1, "{text}");
        }
    }

    #[test]
    fn parameters_of_a_header_are_dropped() {
        let header = "application/vnd.oci.image.index.v1+json; charset=utf-8";
        assert_eq!(MediaType::from(header), MediaType::OciIndex);
        assert_eq!(MediaType::from("text/html"), MediaType::Other("text/html".into()));
    }
}
