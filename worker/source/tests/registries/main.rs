//! Pulling from registries: real ones, one that plays its part with a delay,
//! a limit or a cut, and one that lies.
#![allow(clippy::unwrap_used)]

mod image;
mod issuer;
mod lies;
mod mirrors;
mod patience;
mod real;
mod redirects;
mod tls;
mod tokens;
mod upstream;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use slipway_oci::{Descriptor, ImageReference, Platform, RepositoryName, Verifier};
use slipway_source::{
    Client, Config, Credential, CredentialError, CredentialSource, Error, NoCredentials, Pull,
    RetryPolicy,
};

/// The same credential for one host, none for others.
struct For(String, Credential);

#[async_trait]
impl CredentialSource for For {
    async fn credential(
        &self,
        host: &str,
        _: &RepositoryName,
    ) -> Result<Credential, CredentialError> {
        Ok(if host == self.0 { self.1.clone() } else { Credential::Anonymous })
    }
}

fn basic(password: &str) -> Credential {
    Credential::Basic { username: "tester".into(), password: password.to_owned().into() }
}

/// As in use, but without long pauses.
fn config() -> Config {
    let retry = RetryPolicy {
        attempts: 4,
        base: Duration::from_millis(5),
        max: Duration::from_millis(20),
        max_asked: Duration::from_secs(5),
    };
    Config { retry, silence: Duration::from_secs(5), ..Config::default() }
}

fn client() -> Client {
    Client::new(config()).unwrap()
}

fn reference(text: &str) -> ImageReference {
    text.parse().unwrap()
}

async fn resolve(text: &str) -> Result<Pull, Error> {
    resolve_with(&client(), text, &NoCredentials).await
}

async fn resolve_with(
    client: &Client,
    text: &str,
    credentials: &dyn CredentialSource,
) -> Result<Pull, Error> {
    client.resolve(&reference(text), &Platform::linux_amd64(), credentials).await
}

/// All bytes of a blob, verified as a store would do it.
async fn fetch(pull: &Pull, descriptor: &Descriptor) -> Result<Bytes, String> {
    let mut verifier = Verifier::new(descriptor.digest).size(descriptor.size);
    let mut bytes = Vec::new();
    let mut stream = pull.blob(descriptor);
    while let Some(chunk) = stream.try_next().await.map_err(|error| chain(&error))? {
        verifier.update(&chunk).map_err(|error| error.to_string())?;
        bytes.extend_from_slice(&chunk);
    }
    verifier.finish().map_err(|error| error.to_string())?;
    Ok(bytes.into())
}

/// An error with its sources, as it is logged.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
