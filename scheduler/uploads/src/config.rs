//! How clients bring build contexts: the section `[uploads]` of the scheduler's
//! configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use slipway_runtime::config::Error;
use url::Url;

pub use crate::sts::{File as StsFile, Sts};

/// The section as it stands in the file. Empty, clients get no keys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Slipway serves S3 itself.
    pub door: Option<DoorFile>,
    /// Clients write to the bucket of the context store.
    pub sts: Option<StsFile>,
}

/// How clients bring contexts, checked.
#[derive(Debug, Clone)]
pub enum Config {
    /// Clients get no keys.
    None,
    /// Through Slipway's own door.
    Door(Door),
    /// Straight into the bucket.
    Sts(Sts),
}

impl File {
    /// Checks the section, beside the settings of the context store.
    ///
    /// # Errors
    /// The first key with a value that cannot be used.
    pub fn check(self, contexts: &slipway_blobstore::Config) -> Result<Config, Error> {
        match (self.door, self.sts) {
            (None, None) => Ok(Config::None),
            (Some(door), None) => Ok(Config::Door(door.try_into()?)),
            (None, Some(sts)) => Ok(Config::Sts(sts.check(contexts)?)),
            (Some(_), Some(_)) => {
                let reason = "set one of `door` and `sts`: clients get one place".to_owned();
                Err(Error::Invalid { key: "uploads", reason })
            }
        }
    }
}

/// Slipway's own door, as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoorFile {
    /// Address of Slipway's own S3 door, for example `0.0.0.0:3443`.
    pub listen: SocketAddr,
    /// Where clients reach the door, for example `https://uploads.example.com`.
    /// Default: the listen address.
    pub url: Option<Url>,
    /// Name of the bucket that clients see. Default: `slipway`.
    #[serde(default = "bucket")]
    pub bucket: String,
    /// Certificate and key. Without them the door speaks plain HTTP, which
    /// clients such as Daytona's SDK for Python refuse; something in front of it
    /// may speak TLS.
    pub tls: Option<Tls>,
}

/// Files of the door's identity.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate, with those that link it to its authority, in PEM.
    pub cert: PathBuf,
    /// Its private key, in PEM.
    pub key: PathBuf,
}

/// Slipway's own door, checked.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where clients reach it; if absent, where it listens.
    pub url: Option<Url>,
    /// The bucket that clients see.
    pub bucket: String,
    /// Its identity; without it, plain HTTP.
    pub tls: Option<Tls>,
}

impl TryFrom<DoorFile> for Door {
    type Error = Error;

    fn try_from(file: DoorFile) -> Result<Self, Error> {
        let is_bucket = |name: &str| {
            let inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
            (3..=63).contains(&name.len())
                && name.bytes().all(inner)
                && !name.starts_with('-')
                && !name.ends_with('-')
        };
        if !is_bucket(&file.bucket) {
            let reason = "use 3 to 63 lowercase letters, digits and hyphens".to_owned();
            return Err(Error::Invalid { key: "uploads.door.bucket", reason });
        }
        if let Some(url) = &file.url
            && (!matches!(url.scheme(), "http" | "https")
                || url.path() != "/"
                || url.query().is_some())
        {
            let reason = "give `https://HOST:PORT` without a path: clients use the path themselves";
            return Err(Error::Invalid { key: "uploads.door.url", reason: reason.to_owned() });
        }
        let DoorFile { listen, url, bucket, tls } = file;
        Ok(Self { listen, url, bucket, tls })
    }
}

fn bucket() -> String {
    "slipway".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn file(bucket: &str, url: Option<&str>) -> DoorFile {
        DoorFile {
            listen: "127.0.0.1:0".parse().unwrap(),
            url: url.map(|url| url.parse().unwrap()),
            bucket: bucket.to_owned(),
            tls: None,
        }
    }

    #[test]
    fn a_wrong_setting_is_named() {
        assert!(Door::try_from(file("slipway", Some("https://uploads.example.com"))).is_ok());
        for (bucket, url, key) in [
            ("a", None, "uploads.door.bucket"),
            ("Has.Dots", None, "uploads.door.bucket"),
            ("slipway", Some("https://example.com/path"), "uploads.door.url"),
            ("slipway", Some("s3://bucket"), "uploads.door.url"),
        ] {
            let error = Door::try_from(file(bucket, url)).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
