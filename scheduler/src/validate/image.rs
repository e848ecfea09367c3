//! `imageName`: which references may be pulled.
//!
//! Invariant: what is accepted names one version of an image, as far as a name
//! can; a tag that is moved with every release is refused.

use slipway_domain::spec::PullSpec;
use slipway_oci::ImageReference;

use super::Error;

/// Tags that stand for something else tomorrow.
const MOVING: [&str; 3] = ["latest", "lts", "stable"];
/// Longest reference that is taken, in bytes.
const MAX_IMAGE: usize = 1024;
/// Longest entrypoint, all its words together, in bytes.
const MAX_ENTRYPOINT: usize = 16 << 10;

/// The pull of `image`, which may be at most `max_size` bytes.
pub(super) fn pull_spec(
    image: String,
    platform: String,
    entrypoint: Option<Vec<String>>,
    max_size: u64,
) -> Result<PullSpec, Error> {
    check(&image)?;
    let entrypoint = entrypoint.filter(|words| !words.is_empty());
    if entrypoint.iter().flatten().map(String::len).sum::<usize>() > MAX_ENTRYPOINT {
        let text = format!("`entrypoint` is longer than {MAX_ENTRYPOINT} bytes");
        return Err(Error::Malformed(text));
    }
    Ok(PullSpec { image, platform, max_size, entrypoint })
}

fn check(image: &str) -> Result<(), Error> {
    if image.len() > MAX_IMAGE {
        return Err(Error::Malformed(format!("`imageName` is longer than {MAX_IMAGE} bytes")));
    }
    let reference: ImageReference = image.parse().map_err(|error| malformed(image, &error))?;
    let name = reference.familiar();
    match (reference.tag(), reference.digest()) {
        // The digest says which version; the tag beside it is a remark.
        (_, Some(_)) => Ok(()),
        (None, None) => Err(Error::Malformed(format!(
            "`imageName` `{image}` has neither a tag nor a digest: \
             write which version is meant, for example `{name}:1.2.3` or `{name}@sha256:…`"
        ))),
        (Some(tag), None) if MOVING.contains(&tag.as_str()) => {
            let bare = name.strip_suffix(&format!(":{tag}")).unwrap_or(&name);
            Err(Error::Malformed(format!(
                "`imageName` `{image}` has the tag `{tag}`, which is another image after each \
                 release: write the version that is meant, for example `{bare}:1.2.3`, \
                 or pin it by digest, `{bare}@sha256:…`"
            )))
        }
        (Some(_), None) => Ok(()),
    }
}

fn malformed(image: &str, error: &slipway_oci::error::Reference) -> Error {
    let reason = match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Error::Malformed(format!("`imageName` `{image}` is not an image reference: {reason}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(image: &str) -> String {
        pull_spec(image.into(), "linux/amd64".into(), None, 1).unwrap_err().to_string()
    }

    #[test]
    fn a_version_or_a_digest_is_needed() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for good in [
            "python:3.12".to_owned(),
            "LOCALHOST:5000/deep/er/path:v1".to_owned(),
            "ghcr.io/team/app:latest-1".to_owned(),
            format!("python@{digest}"),
            format!("python:latest@{digest}"),
        ] {
            let spec = pull_spec(good.clone(), "linux/amd64".into(), Some(vec![]), 7).unwrap();
            assert_eq!((spec.image, spec.max_size, spec.entrypoint), (good, 7, None));
        }
        let text = refusal("localhost:5000/app");
        assert!(text.contains("neither a tag nor a digest"), "{text}");
        assert!(text.contains("`localhost:5000/app:1.2.3`"), "{text}");
    }

    #[test]
    fn a_moving_tag_is_refused_with_what_to_write_instead() {
        for tag in ["latest", "lts", "stable"] {
            let text = refusal(&format!("docker.io/library/node:{tag}"));
            assert!(text.contains(&format!("has the tag `{tag}`")), "{text}");
            assert!(text.contains("for example `node:1.2.3`, or pin it by digest"), "{text}");
        }
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_reason() {
        for (bad, reason) in [
            ("", "is empty"),
            ("team/App:1", "must be lowercase"),
            ("a b:1", "is not a repository name"),
            ("https://ghcr.io/a:1", "is not a"),
            ("app@sha256:12", "wrong length"),
            (&"a".repeat(64), "is an image id"),
            (&format!("{}:1", "a".repeat(2000)), "longer than 1024 bytes"),
        ] {
            let text = refusal(bad);
            assert!(text.contains(reason), "{text}");
        }
        let long = Some(vec!["x".repeat(20_000)]);
        assert!(pull_spec("a:1".into(), "linux/amd64".into(), long, 1).is_err());
    }
}
