//! Which of a build's images come from elsewhere than the Dockerfile says: from a
//! mirror, or, those of the region's own registry, from this worker.
//!
//! As with pulls, a mirror is asked before the registry that the Dockerfile names,
//! and only for what it has: BuildKit follows one place and never tries another.

use slipway_buildkit::Mirrored;
use slipway_oci::{ImageReference, Platform};
use slipway_source::{Client, CredentialSource};

/// Where a build's images come from.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Images as they are really asked for in other registries.
    pub(super) images: Vec<ImageReference>,
    /// What BuildKit has to be told for that.
    pub(super) mirrored: Vec<Mirrored>,
}

impl Places {
    /// Asks the mirrors of each image's registry, if there are some.
    pub(super) async fn find(
        source: &Client,
        images: Vec<ImageReference>,
        platform: &Platform,
        credentials: &dyn CredentialSource,
    ) -> Self {
        let mut places = Self::default();
        for image in images {
            let mirror = source.mirror(&image, platform, credentials).await;
            match mirror.and_then(|mirror| Some((at(&image, &mirror)?, mirror))) {
                Some((there, mirror)) => {
                    places.images.push(there);
                    places.mirrored.push(Mirrored { image, mirror });
                }
                None => places.images.push(image),
            }
        }
        places
    }

    /// With images of the region's registry, which `here` has.
    pub(super) fn with_own(mut self, images: Vec<ImageReference>, here: &str) -> Self {
        let elsewhere = images.into_iter().filter(|image| image.domain() != here);
        let redirected = elsewhere.map(|image| Mirrored { image, mirror: here.to_owned() });
        self.mirrored.extend(redirected);
        self
    }
}

/// The image under its mirror's name, unless references read that as something else.
fn at(image: &ImageReference, mirror: &str) -> Option<ImageReference> {
    let tag = image.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
    let digest = image.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
    let there = format!("{mirror}/{}{tag}{digest}", image.path()).parse::<ImageReference>();
    there.ok().filter(|there| there.domain() == mirror)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_image_keeps_its_path_tag_and_digest_at_a_mirror() {
        let digest = format!("sha256:{}", "0".repeat(64));
        let image = format!("python:3.12@{digest}").parse().unwrap();
        let there = at(&image, "mirror.example.com:5000").unwrap().to_string();
        assert_eq!(there, format!("mirror.example.com:5000/library/python:3.12@{digest}"));
        // References would read this as an image of Docker Hub.
        assert!(at(&image, "mirror").is_none());
    }
}
