//! Where an image comes from.

use bytes::Bytes;
use slipway_domain::Failure;
use slipway_oci::{ImageConfig, Platform};
use slipway_source::{Image, Pull};

use super::failure::of_source;
use super::own::Own;

/// An image that was found, and the right to read it.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    /// In another registry: what the pool lacks is fetched.
    Elsewhere(Pull),
    /// In the region's own.
    Own(Own),
}

impl Origin {
    pub(super) const fn image(&self) -> &Image {
        match self {
            Self::Elsewhere(pull) => pull.image(),
            Self::Own(own) => &own.image,
        }
    }

    /// The registry or mirror that has it, as references name it.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Elsewhere(pull) => pull.host(),
            Self::Own(own) => own.host(),
        }
    }

    /// The image config, whole and read; it is for `platform`.
    pub(super) async fn config(
        &self,
        platform: &Platform,
    ) -> Result<(Bytes, ImageConfig), Failure> {
        match self {
            Self::Elsewhere(pull) => pull.config().await.map_err(of_source),
            Self::Own(own) => own.config(platform).await,
        }
    }
}
