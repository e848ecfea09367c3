//! Addresses of registries: how they are normalised, and what lies under them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use slipway_oci::ImageReference;

use super::is_account;

const HUB: &str = "docker.io";
/// Longest address in bytes.
const MAX: usize = 512;

/// The text was no address of a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the address of a registry: write `host[:port][/path]`, with or without `https://`"
)]
pub struct UrlError(String);

/// The address of a registry or of a part of it: `[scheme://]host[:port][/path]`.
///
/// Normalised: no slash at the end, the host in lowercase, and `docker.io` for
/// whatever is meant for Docker Hub, the empty text included. A scheme is kept
/// for its reader and means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistryUrl {
    scheme: Option<String>,
    host: String,
    /// Without slashes at its ends; empty for the whole registry.
    path: String,
}

impl RegistryUrl {
    /// `host[:port]`, `docker.io` for Docker Hub.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repositories that it is for, as the beginning of their names; empty
    /// for all.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How many segments of a repository's name it says.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.path.split('/').filter(|segment| !segment.is_empty()).count()
    }

    /// Whether an image lies under it: on the same host and port, and in a
    /// repository whose name is the path or goes on with a slash.
    #[must_use]
    pub fn covers(&self, image: &ImageReference) -> bool {
        let host = image.domain().to_ascii_lowercase();
        let below = image.path().as_str().strip_prefix(self.path.as_str());
        host == self.host
            && (self.path.is_empty()
                || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// Account and AWS region, if it is a private registry of Amazon ECR:
    /// `<12 digits>.dkr.ecr.<region>.amazonaws.com`, or `.com.cn` in China.
    #[must_use]
    pub fn ecr(&self) -> Option<(&str, &str)> {
        let host = self.host.strip_suffix(".cn").unwrap_or(&self.host);
        let (account, rest) = host.strip_suffix(".amazonaws.com")?.split_once(".dkr.ecr.")?;
        let is_region = !rest.is_empty()
            && rest.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
        (is_account(account) && is_region).then_some((account, rest))
    }
}

impl FromStr for RegistryUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let wrong = || UrlError(text.chars().take(MAX).collect());
        let (scheme, rest) = match text.trim().split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
                (Some("https".to_owned()), rest)
            }
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => {
                (Some("http".to_owned()), rest)
            }
            Some(_) => return Err(wrong()),
            None => (None, text.trim()),
        };
        let rest = rest.trim_end_matches('/');
        if rest.is_empty() && scheme.is_none() {
            return Ok(Self { scheme: None, host: HUB.to_owned(), path: String::new() });
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = host.to_ascii_lowercase();
        if text.len() > MAX || !is_host(&host) {
            return Err(wrong());
        }
        if host == HUB || host.ends_with(".docker.io") {
            return Ok(Self { scheme: None, host: HUB.to_owned(), path: String::new() });
        }
        // The grammar of references has the last word on what a path is.
        if !path.is_empty() && format!("{host}/{path}").parse::<ImageReference>().is_err() {
            return Err(wrong());
        }
        if path.contains([':', '@']) {
            return Err(wrong());
        }
        Ok(Self { scheme, host, path: path.to_owned() })
    }
}

/// What references take for a host, and not for an account of Docker Hub.
fn is_host(host: &str) -> bool {
    let image = format!("{host}/x").parse::<ImageReference>();
    image.is_ok_and(|image| image.domain() == host) || host == "index.docker.io"
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        f.write_str(&self.host)?;
        if !self.path.is_empty() {
            write!(f, "/{}", self.path)?;
        }
        Ok(())
    }
}

impl TryFrom<String> for RegistryUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<RegistryUrl> for String {
    fn from(url: RegistryUrl) -> Self {
        url.to_string()
    }
}
