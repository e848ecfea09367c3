//! What a pull may cost, checked before the first layer is fetched.

use slipway_domain::Failure;
use slipway_domain::failure::FailureKind;
use slipway_oci::Manifest;

/// Bounds of one pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Layers that an image may have.
    pub(crate) layers: usize,
    /// Layers that are fetched at the same time.
    pub(crate) at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Docker itself takes 125 layers; others take more.
        Self { layers: 500, at_once: 4 }
    }
}

impl Limits {
    /// Whether an image may be pulled by an organization that may have
    /// `max_size` bytes.
    pub(super) fn check(&self, manifest: &Manifest, max_size: u64) -> Result<(), Failure> {
        let layers = manifest.layers.len();
        if layers > self.layers {
            let text = format!("the image has {layers} layers, the limit is {}", self.layers);
            return Err(Failure::new(FailureKind::TooLarge, text));
        }
        let size = manifest.compressed_size();
        if size > max_size {
            return Err(Failure::size_exceeded(size, max_size));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_oci::{Descriptor, Digest, MediaType};

    use super::*;

    fn manifest(sizes: &[u64]) -> Manifest {
        let descriptor = |size| Descriptor::new(MediaType::OciLayer, Digest::sha256(""), size);
        Manifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: descriptor(10),
            layers: sizes.iter().copied().map(descriptor).collect(),
            subject: None,
            annotations: None,
        }
    }

    #[test]
    fn size_and_number_of_layers_are_bounded() {
        let limits = Limits { layers: 2, at_once: 1 };
        assert_eq!(limits.check(&manifest(&[50, 40]), 100), Ok(()));
        let large = limits.check(&manifest(&[50, 41]), 100).unwrap_err();
        assert_eq!(large.kind, FailureKind::TooLarge);
        assert!(large.message.starts_with("Snapshot size (0.01GB) exceeds"), "{}", large.message);
        assert!(limits.check(&manifest(&[u64::MAX, u64::MAX]), 100).is_err());
        let many = limits.check(&manifest(&[1, 1, 1]), 100).unwrap_err();
        assert_eq!(many.message, "the image has 3 layers, the limit is 2");
    }
}
