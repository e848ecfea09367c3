//! OCI image types: digest, descriptor, manifest, index, image config,
//! platform, repository name and image reference.
//!
//! Owns the grammar: text and JSON from outside become these types once, at
//! the edge, and what has one of these types is well formed.
//! Refuses every form of IO, and every document whose meaning depends on who
//! reads it (a manifest that is an index as well).
//!
//! Invariant: a [`Digest`] names an algorithm that this crate can compute, so
//! whatever a parsed document refers to can be verified.

mod descriptor;
mod digest;
mod image_config;
mod manifest;
mod media_type;
mod name;
mod platform;
mod reference;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestWriter, Mismatch, Verifier};
pub use image_config::{ContainerConfig, History, ImageConfig, RootFs};
pub use manifest::{Document, Index, Manifest};
pub use media_type::MediaType;
pub use name::{RepositoryName, Tag};
pub use platform::Platform;
pub use reference::ImageReference;

/// What each parser of this crate refuses, by module.
pub mod error {
    pub use crate::digest::Error as Digest;
    pub use crate::image_config::Error as ImageConfig;
    pub use crate::manifest::Error as Manifest;
    pub use crate::name::Error as Name;
    pub use crate::platform::Error as Platform;
    pub use crate::reference::Error as Reference;
}
