//! Which store to open, and how.
//!
//! Owns the mapping from settings to a backend. Credentials are never part of
//! the settings: S3 takes them from the standard `AWS_…` environment, from a
//! web identity, or from the machine's own role.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::error::{BoxError, Error};
use crate::faulty::Faulty;
use crate::store::{Backend, Limits, Signing};

/// A store's settings. In a file they are the URL alone, or a table of these
/// keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Setting")]
pub struct Config {
    /// `file:///folder` (made if it does not exist), `s3://bucket/prefix`, or
    /// `memory:///` for tests.
    pub url: Url,
    /// Address of an S3-compatible server, for example
    /// `http://127.0.0.1:9000`; without it, Amazon's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Url>,
    /// Region of the bucket; without it, `AWS_REGION` or `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Allows an endpoint without TLS, as `AWS_ALLOW_HTTP=true` does.
    pub allow_http: bool,
    /// For tests of faults: a file that is read before every operation and says
    /// how many shall fail and how slow they shall be, for example
    /// `{"fail_percent": 30, "delay_ms": 200}`. While it is absent, all go well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faults: Option<PathBuf>,
}

/// The two forms of the settings in a file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Setting {
    Url(Url),
    Table(Table),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    url: Url,
    endpoint: Option<Url>,
    region: Option<String>,
    #[serde(default)]
    allow_http: bool,
    faults: Option<PathBuf>,
}

impl From<Setting> for Config {
    fn from(setting: Setting) -> Self {
        match setting {
            Setting::Url(url) => Self::new(url),
            Setting::Table(Table { url, endpoint, region, allow_http, faults }) => {
                Self { url, endpoint, region, allow_http, faults }
            }
        }
    }
}

/// S3 does not finish in one request what exceeds this many bytes of copy.
const S3_COPY_LIMIT: u64 = 5 * 1024 * 1024 * 1024;
/// S3 wants parts of at least 5 MiB and at most 10,000 of them: 80 GB.
const S3_PART: usize = 8 * 1024 * 1024;
/// A folder has no such wants: small parts keep memory low.
const LOCAL_PART: usize = 1024 * 1024;

impl Config {
    /// The settings for `url` alone.
    #[must_use]
    pub const fn new(url: Url) -> Self {
        Self { url, endpoint: None, region: None, allow_http: false, faults: None }
    }

    pub(crate) fn open(&self) -> Result<Backend, Error> {
        if !self.url.username().is_empty() || self.url.password().is_some() {
            let source = "credentials do not belong into the URL, set AWS_ACCESS_KEY_ID and \
                          AWS_SECRET_ACCESS_KEY";
            return Err(Error::Open { url: self.url.scheme().to_owned(), source: source.into() });
        }
        let opened = match self.url.scheme() {
            "file" => self.open_folder(),
            "s3" => self.open_s3(),
            "memory" => Ok(Backend::memory()),
            other => Err(format!("scheme `{other}` is none of file, s3, memory").into()),
        };
        let mut backend =
            opened.map_err(|source| Error::Open { url: self.url.to_string(), source })?;
        if let Some(file) = &self.faults {
            backend.store = Arc::new(Faulty::new(backend.store, file.clone()));
        }
        Ok(backend)
    }

    fn open_folder(&self) -> Result<Backend, BoxError> {
        let folder: PathBuf =
            self.url.to_file_path().map_err(|()| "URL is not that of a local folder")?;
        std::fs::create_dir_all(&folder)?;
        let store = LocalFileSystem::new_with_prefix(&folder)?.with_fsync(true);
        Ok(Backend {
            store: Arc::new(store),
            folder: Some(folder),
            signing: None,
            keeps_content_type: false,
            limits: Limits { part: LOCAL_PART, parts_in_flight: 2, rename: u64::MAX },
        })
    }

    fn open_s3(&self) -> Result<Backend, BoxError> {
        let bucket = self.url.host_str().ok_or("URL names no bucket")?;
        let allowed = std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| value == "true");
        let client = client_options().with_allow_http(self.allow_http || allowed);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_client_options(client)
            .with_retry(RetryConfig {
                max_retries: 5,
                retry_timeout: Duration::from_secs(30),
                ..RetryConfig::default()
            });
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.endpoint {
            // The builder appends the bucket to what it is given.
            builder = builder.with_endpoint(endpoint.as_str().trim_end_matches('/'));
        }
        let s3 = builder.build()?;
        let prefix = Path::from_url_path(self.url.path())?;
        let signing = Signing { signer: Arc::new(s3.clone()), prefix: prefix.clone() };
        let store: Arc<dyn ObjectStore> = if prefix.as_ref().is_empty() {
            Arc::new(s3)
        } else {
            Arc::new(PrefixStore::new(s3, prefix))
        };
        Ok(Backend {
            store,
            folder: None,
            signing: Some(signing),
            keeps_content_type: true,
            limits: Limits { part: S3_PART, parts_in_flight: 3, rename: S3_COPY_LIMIT },
        })
    }
}

/// A deadline for every wait, none for a whole transfer: a large blob to a slow
/// client takes as long as it takes.
fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(5))
        .with_read_timeout(Duration::from_secs(30))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn config(url: &str) -> Config {
        Config::new(url.parse().unwrap())
    }

    #[test]
    fn opens_what_the_url_says() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b c");
        let url = Url::from_file_path(&inner).unwrap();
        let backend = Config::new(url).open().unwrap();
        assert_eq!(backend.folder.as_deref(), Some(inner.as_path()));
        assert!(inner.is_dir());
        assert!(config("s3://bucket/a/b").open().is_ok());
        assert!(config("memory:///").open().is_ok());
    }

    #[test]
    fn says_why_a_store_cannot_be_opened() {
        let error = config("ftp://host/x").open().err().unwrap();
        assert_eq!(error.to_string(), "object store `ftp://host/x` cannot be opened");
        assert!(!error.is_retryable());
        assert!(config("s3:///x").open().is_err());
        let error = config("s3://key:hunter2@bucket").open().err().unwrap();
        assert!(!format!("{error:?}").contains("hunter2"));
        assert!(config("file://host/x").open().is_err());
    }

    #[test]
    fn unknown_settings_are_refused() {
        let json = r#"{ "url": "s3://b", "secret": "x" }"#;
        assert!(serde_json::from_str::<Config>(json).is_err());
        let json = r#"{ "url": "s3://b", "endpoint": "http://127.0.0.1:1", "allow_http": true }"#;
        let config: Config = serde_json::from_str(json).unwrap();
        assert!(config.allow_http && config.region.is_none());
    }
}
