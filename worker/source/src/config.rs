//! How source registries are reached: what stands in the worker's file, and the
//! same, checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::location::is_authority;
use crate::retry::RetryPolicy;

/// The table `source` of the worker's TOML file. Everything has a default.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// Hosts to ask first, by the host that a reference names:
    /// `"docker.io" = ["mirror.example.com"]`. The named host comes last.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts that may be spoken to without TLS. Loopback always may.
    pub insecure: Vec<String>,
    /// PEM files with certificate authorities beside those of the system.
    pub authorities: Vec<PathBuf>,
    /// How long to wait for a connection. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Option<Duration>,
    /// How long a registry may be silent. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub silence: Option<Duration>,
}

/// The checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Hosts to ask first, by the host of a reference; in lowercase.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Hosts that may be spoken to without TLS; in lowercase.
    pub insecure: BTreeSet<String>,
    /// Contents of PEM files.
    pub authorities: Vec<Vec<u8>>,
    /// Deadline for a connection.
    pub connect_timeout: Duration,
    /// Deadline for every single wait for bytes.
    pub silence: Duration,
    /// Patience with a registry that is busy or fails.
    pub retry: RetryPolicy,
    /// Largest manifest, index or image config that is taken into memory, in
    /// bytes.
    pub manifest_size: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mirrors: BTreeMap::new(),
            insecure: BTreeSet::new(),
            authorities: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            manifest_size: 4 << 20,
        }
    }
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name is that of no host.
    #[error("`{0}` is not a registry host: write `host` or `host:port`, without a scheme")]
    Host(String),
    /// A file with certificates cannot be read.
    #[error("cannot read the certificates `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates are none, or TLS cannot be set up.
    #[error("cannot set up TLS with the certificate authorities given")]
    Tls(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl TryFrom<File> for Config {
    type Error = Error;

    fn try_from(file: File) -> Result<Self, Error> {
        let defaults = Self::default();
        let mut mirrors = BTreeMap::new();
        for (name, hosts) in file.mirrors {
            let hosts = hosts.into_iter().map(host).collect::<Result<Vec<_>, _>>()?;
            mirrors.insert(host(name)?, hosts);
        }
        let read =
            |path: PathBuf| std::fs::read(&path).map_err(|source| Error::Read { path, source });
        Ok(Self {
            mirrors,
            insecure: file.insecure.into_iter().map(host).collect::<Result<_, _>>()?,
            authorities: file.authorities.into_iter().map(read).collect::<Result<_, _>>()?,
            connect_timeout: file.connect_timeout.unwrap_or(defaults.connect_timeout),
            silence: file.silence.unwrap_or(defaults.silence),
            ..defaults
        })
    }
}

fn host(text: String) -> Result<String, Error> {
    let lower = text.to_ascii_lowercase();
    if is_authority(&lower) { Ok(lower) } else { Err(Error::Host(text)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(text: &str) -> Result<Config, Error> {
        toml::from_str::<File>(text).unwrap().try_into()
    }

    #[test]
    fn the_documented_form_is_read() {
        let text = r#"
            insecure = ["Registry.internal:5000"]
            silence = "5 s"
            [mirrors]
            "docker.io" = ["mirror.example.com", "10.0.0.1:5000"]
        "#;
        let config = config(text).unwrap();
        assert_eq!(config.mirrors["docker.io"], ["mirror.example.com", "10.0.0.1:5000"]);
        assert!(config.insecure.contains("registry.internal:5000"));
        assert_eq!(config.silence, Duration::from_secs(5));
        assert_eq!(config.connect_timeout, Duration::from_secs(10));
    }

    #[test]
    fn what_is_no_host_is_named() {
        for bad in ["https://mirror", "a/b", "", "a b", "user@host"] {
            let text = format!("insecure = [{bad:?}]");
            assert!(matches!(config(&text), Err(Error::Host(host)) if host == bad), "{bad}");
        }
        let text = "authorities = [\"/nowhere/ca.pem\"]";
        assert!(config(text).unwrap_err().to_string().contains("/nowhere/ca.pem"));
        assert!(toml::from_str::<File>("mirror = 1").is_err());
    }
}
