//! What a request for a registry credential must satisfy: pure checks.

use std::sync::LazyLock;

use regex::Regex;
use secrecy::{ExposeSecret as _, SecretString};
use slipway_api::registries::WriteDockerRegistry;
use slipway_domain::credential::{CredentialKind, RegistryCredentialRecord, RegistryUrl};

/// Longest name, user name and project, in bytes.
const MAX_TEXT: usize = 255;
/// Longest user name, in bytes: those of service accounts are long.
const MAX_USERNAME: usize = 1024;
/// Longest password, in bytes: a key of a service account is one.
const MAX_PASSWORD: usize = 32 << 10;

static TAG: LazyLock<Regex> =
    LazyLock::new(|| Regex::new("<[^>]*>").expect("the pattern is a constant"));

/// A request that can be stored.
#[derive(Debug)]
pub struct Checked {
    pub name: String,
    pub url: RegistryUrl,
    pub username: String,
    pub project: String,
    pub kind: CredentialKind,
    /// A new secret; none for a role, and where the old one stays.
    pub secret: Option<SecretString>,
}

/// Checks a request for a new credential, or for a change of `old`. What comes
/// back is what the user reads.
pub fn check(
    request: WriteDockerRegistry,
    old: Option<&RegistryCredentialRecord>,
) -> Result<Checked, String> {
    let name = request.name.trim().to_owned();
    check_text("name", &name, MAX_TEXT)?;
    if name.is_empty() {
        return Err("`name` must not be empty".to_owned());
    }
    if TAG.is_match(&name) || name.contains("://") || name.to_lowercase().contains("www.") {
        return Err("`name` must not contain HTML tags or addresses".to_owned());
    }
    let url: RegistryUrl = request.url.parse().map_err(|error| format!("`url`: {error}"))?;
    let username = request.username.trim().to_owned();
    check_text("username", &username, MAX_USERNAME)?;
    let project = request.project.or_else(|| old.map(|old| old.project.clone()));
    let project = project.unwrap_or_default();
    check_text("project", &project, MAX_TEXT)?;

    let secret = request.password.filter(|password| !password.expose_secret().is_empty());
    if secret.as_ref().is_some_and(|secret| secret.expose_secret().len() > MAX_PASSWORD) {
        return Err(format!("`password` is longer than {MAX_PASSWORD} bytes"));
    }
    let kind = kind(&url, &username, secret.is_some(), old)?;
    if kind == CredentialKind::Basic && (username.is_empty() || username.contains(':')) {
        return Err("`username` must not be empty and must not contain `:`".to_owned());
    }
    Ok(Checked { name, url, username, project, kind, secret })
}

fn kind(
    url: &RegistryUrl,
    username: &str,
    has_password: bool,
    old: Option<&RegistryCredentialRecord>,
) -> Result<CredentialKind, String> {
    if let Some(kind) = CredentialKind::of(url, username, has_password) {
        return Ok(kind);
    }
    match old {
        Some(old) if old.kind == CredentialKind::Basic && old.url.host() == url.host() => {
            Ok(CredentialKind::Basic)
        }
        // Otherwise whoever may change a credential could have its secret sent
        // to a server of their own.
        Some(old) if old.kind == CredentialKind::Basic => Err(format!(
            "`password` has to be given again, since it was for `{}` and not for `{}`",
            old.url.host(),
            url.host()
        )),
        _ => Err("`password` must not be empty, but for a role of Amazon ECR: then `username` \
                  is its ARN and `url` `<account>.dkr.ecr.<region>.amazonaws.com`"
            .to_owned()),
    }
}

fn check_text(field: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest {
        return Err(format!("`{field}` is longer than {longest} bytes"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("`{field}` must not contain control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use slipway_domain::{CredentialId, OrganizationId};
    use uuid::Uuid;

    use super::*;

    fn request(name: &str, url: &str, username: &str, password: &str) -> WriteDockerRegistry {
        WriteDockerRegistry {
            name: name.into(),
            url: url.into(),
            username: username.into(),
            password: Some(password.into()),
            project: None,
        }
    }

    fn stored(checked: Checked) -> RegistryCredentialRecord {
        RegistryCredentialRecord {
            version: 1,
            id: CredentialId::from_uuid(Uuid::nil()),
            organization: OrganizationId::from_uuid(Uuid::nil()),
            name: checked.name,
            url: checked.url,
            username: checked.username,
            project: checked.project,
            kind: checked.kind,
            sealed: [].into(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn names_are_those_of_the_contract() {
        for good in ["hub", "Team 1: ghcr (read)", "ünïcode", "a < b"] {
            assert!(check(request(good, "", "u", "p"), None).is_ok(), "{good}");
        }
        for bad in ["", "  ", "<b>x</b>", "see https://x", "www.x.io", "a\u{7}b"] {
            assert!(check(request(bad, "", "u", "p"), None).is_err(), "{bad:?}");
        }
        assert!(check(request(&"x".repeat(256), "", "u", "p"), None).is_err());
    }

    #[test]
    fn a_password_is_needed_but_for_a_role() {
        let ecr = "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com";
        let role = "arn:aws:iam::123456789012:role/pull";
        let role = check(request("n", ecr, role, ""), None).unwrap();
        assert_eq!((role.kind, role.secret.is_none()), (CredentialKind::EcrRole, true));
        assert!(check(request("n", "ghcr.io", "u", ""), None).is_err());
        assert!(check(request("n", "ghcr.io", "", "p"), None).is_err());
        assert!(check(request("n", "ghcr.io", "a:b", "p"), None).is_err());
        assert!(check(request("n", "ghcr.io", "u", &"p".repeat(40_000)), None).is_err());
    }

    #[test]
    fn a_change_keeps_the_password_for_its_host_and_for_no_other() {
        let old = stored(check(request("n", "ghcr.io", "u", "p"), None).unwrap());
        let same = check(request("m", "https://GHCR.io/acme", "v", ""), Some(&old)).unwrap();
        assert_eq!((same.kind, same.secret.is_none()), (CredentialKind::Basic, true));
        let error = check(request("m", "evil.io", "v", ""), Some(&old)).unwrap_err();
        assert!(error.contains("given again"), "{error}");
        assert!(check(request("m", "evil.io", "v", "new"), Some(&old)).is_ok());
    }
}
