//! Credentials for the images that a build takes from other registries.
//!
//! BuildKit asks for credentials by host, while ours may be for a part of one.
//! So a build uses one credential per host, for all images that it names there,
//! or is refused with the reason; and where the credential is for a part of the
//! host, rules keep the build to that part, whatever its Dockerfile computes.

use std::collections::BTreeMap;

use slipway_buildkit::{Credential, ImageRule, RegistryCredentials};
use slipway_domain::Failure;
use slipway_domain::failure::FailureKind;
use slipway_oci::ImageReference;
use slipway_source::CredentialError;

use crate::credentials::Opened;

/// What a build may show to which registry.
#[derive(Debug, Default)]
pub(super) struct ImageAccess {
    by_host: BTreeMap<String, Opened>,
}

impl ImageAccess {
    /// From the images of a build with the credential for each.
    ///
    /// # Errors
    /// Images of one host need different credentials.
    pub(super) fn of(
        images: &[ImageReference],
        credentials: Vec<Option<Opened>>,
    ) -> Result<Self, Failure> {
        let mut by_host: BTreeMap<String, (&ImageReference, Option<Opened>)> = BTreeMap::new();
        for (image, credential) in images.iter().zip(credentials) {
            let Some((other, known)) = by_host.get(image.domain()) else {
                by_host.insert(image.domain().to_owned(), (image, credential));
                continue;
            };
            let id = |opened: &Option<Opened>| opened.as_ref().map(|opened| opened.id);
            if id(known) != id(&credential) {
                return Err(ambiguous((other, known.as_ref()), (image, credential.as_ref())));
            }
        }
        let used = by_host.into_iter().filter_map(|(host, (_, used))| Some((host, used?)));
        Ok(Self { by_host: used.collect() })
    }

    /// What to tell BuildKit when it asks.
    pub(super) fn credentials(&self) -> RegistryCredentials {
        let mut credentials = RegistryCredentials::default();
        for (host, opened) in &self.by_host {
            let (username, secret) = match &opened.credential {
                slipway_source::Credential::Basic { username, password } => {
                    (username.clone(), password.clone())
                }
                // BuildKit takes a secret without a name for a refresh token.
                slipway_source::Credential::IdentityToken(token) => (String::new(), token.clone()),
                slipway_source::Credential::Anonymous | slipway_source::Credential::Bearer(_) => {
                    continue;
                }
            };
            credentials.insert(host, Credential { username, secret });
        }
        credentials
    }

    /// Keeps the build to the part of a host that its credential is for.
    pub(super) fn rules(&self) -> Vec<ImageRule> {
        let partial = self.by_host.iter().filter(|(_, opened)| !opened.path.is_empty());
        let rules = partial.flat_map(|(host, opened)| {
            let (host, path) = (literal(host), literal(&opened.path));
            [
                ImageRule { is_allowed: false, pattern: format!("{host}/.*") },
                ImageRule { is_allowed: true, pattern: format!("{host}/{path}([/:@].*)?$") },
            ]
        });
        rules.collect()
    }
}

type Choice<'a> = (&'a ImageReference, Option<&'a Opened>);

fn ambiguous(one: Choice<'_>, other: Choice<'_>) -> Failure {
    let named = |(image, opened): Choice<'_>| match opened {
        Some(opened) => format!("`{image}` needs the registry credential `{}`", opened.name),
        None => format!("`{image}` has none"),
    };
    let message = format!(
        "{} and {}, but a build can use only one credential for `{}`: \
         give it one that is for both, or take the images in builds of their own",
        named(one),
        named(other),
        one.0.domain()
    );
    Failure::new(FailureKind::BaseImageUnavailable, message)
}

/// Credentials that could not be had: those that are refused will be refused
/// again, and the others may be there later.
pub(super) fn of_credentials(error: CredentialError) -> Failure {
    match error {
        CredentialError::Refused(message) => {
            Failure::new(FailureKind::BaseImageUnavailable, message)
        }
        CredentialError::Unavailable(source) => Failure::new(
            FailureKind::Internal,
            format!(
                "registry credentials cannot be had now: {}",
                slipway_runtime::telemetry::chain(&*source)
            ),
        ),
    }
}

/// A regular expression for exactly this text.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if !letter.is_ascii_alphanumeric() && !"/:_-".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_domain::CredentialId;

    use super::*;

    fn opened(n: u128, path: &str) -> Opened {
        let (username, password) = ("u".into(), "hunter2".to_owned().into());
        Opened {
            id: CredentialId::from_uuid(uuid::Uuid::from_u128(n)),
            name: format!("c{n}"),
            path: path.into(),
            credential: slipway_source::Credential::Basic { username, password },
        }
    }

    fn access(images: &[(&str, Option<Opened>)]) -> Result<ImageAccess, Failure> {
        let names: Vec<_> = images.iter().map(|(image, _)| image.parse().unwrap()).collect();
        ImageAccess::of(&names, images.iter().map(|(_, opened)| opened.clone()).collect())
    }

    #[test]
    fn a_host_has_one_credential_or_the_build_is_refused() {
        let one = access(&[
            ("r.io/a", Some(opened(1, ""))),
            ("r.io/b", Some(opened(1, ""))),
            ("debian", None),
        ]);
        assert!(one.unwrap().rules().is_empty());
        let two = access(&[("r.io/a/x", Some(opened(1, "a"))), ("r.io/b/x", Some(opened(2, "b")))]);
        let message = two.unwrap_err().message;
        assert!(message.contains("`c1`") && message.contains("`c2`"), "{message}");
        let half = access(&[("r.io/a/x", Some(opened(1, "a"))), ("r.io/b", None)]).unwrap_err();
        assert!(half.message.contains("has none") && !half.message.contains("hunter2"));
    }

    #[test]
    fn a_part_of_a_host_is_not_left() {
        let part = access(&[("r.io:5/a.b/x:1", Some(opened(1, "a.b")))]).unwrap();
        let rules = part.rules();
        assert_eq!(rules[0], ImageRule { is_allowed: false, pattern: r"r\.io:5/.*".into() });
        let pattern = r"r\.io:5/a\.b([/:@].*)?$".to_owned();
        assert_eq!(rules[1], ImageRule { is_allowed: true, pattern });
    }
}
