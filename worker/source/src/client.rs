//! The client: from a reference to a pull, over mirrors.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use slipway_oci::{Descriptor, ImageConfig, ImageReference, Platform};

use crate::auth::Tokens;
use crate::blob::BlobStream;
use crate::config::{Config, Error as ConfigError};
use crate::credential::CredentialSource;
use crate::error::Error;
use crate::http::Http;
use crate::image::{Image, Reference};
use crate::location::Location;
use crate::session::Session;

/// A client of all source registries. Cheap to clone; all clones share
/// connections and tokens.
#[derive(Clone)]
pub struct Client {
    pub(crate) http: Arc<Http>,
    pub(crate) tokens: Arc<Tokens>,
}

impl Client {
    /// A client that works as `config` says.
    ///
    /// # Errors
    /// [`ConfigError::Tls`].
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Ok(Self { http: Arc::new(Http::new(config)?), tokens: Arc::new(Tokens::new()) })
    }

    /// Finds the image for `platform`: on the mirrors of its registry, then in
    /// the registry itself. Only its manifest is fetched.
    ///
    /// # Errors
    /// See [`Error`]; that of the registry itself if no mirror has the image.
    pub async fn resolve(
        &self,
        reference: &ImageReference,
        platform: &Platform,
        credentials: &dyn CredentialSource,
    ) -> Result<Pull, Error> {
        let named = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.to_string()),
            (None, None) => return Err(Error::NoTag(reference.to_string())),
        };
        let mut places = Location::all(reference.domain(), &self.http.config);
        // The registry itself is always the last of them.
        let registry =
            places.pop().unwrap_or_else(|| Location::new(reference.domain(), &self.http.config));
        for mirror in &places {
            match self.resolve_at(mirror, reference, &named, platform, credentials).await {
                Err(error) if error.is_of_the_place() => tracing::warn!(
                    registry = mirror.name,
                    error = &error as &dyn std::error::Error,
                    "a mirror does not serve an image"
                ),
                outcome => return outcome,
            }
        }
        self.resolve_at(&registry, reference, &named, platform, credentials).await
    }

    /// The mirror that serves the image for `platform`, if its registry has mirrors
    /// and one of them does. `latest` is asked for where nothing is said. Nothing of
    /// the image is kept.
    pub async fn mirror(
        &self,
        reference: &ImageReference,
        platform: &Platform,
        credentials: &dyn CredentialSource,
    ) -> Option<String> {
        let named = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => Reference::Digest(*digest),
            (None, Some(tag)) => Reference::Tag(tag.to_string()),
            (None, None) => Reference::Tag("latest".to_owned()),
        };
        let mut places = Location::all(reference.domain(), &self.http.config);
        places.pop();
        for mirror in places {
            match self.resolve_at(&mirror, reference, &named, platform, credentials).await {
                Ok(_) => return Some(mirror.name),
                Err(error) => tracing::warn!(
                    registry = mirror.name,
                    error = &error as &dyn std::error::Error,
                    "a mirror does not serve an image"
                ),
            }
        }
        None
    }

    async fn resolve_at(
        &self,
        at: &Location,
        reference: &ImageReference,
        named: &Reference,
        platform: &Platform,
        credentials: &dyn CredentialSource,
    ) -> Result<Pull, Error> {
        let repository = reference.path().clone();
        let credential = credentials.credential(&at.name, &repository).await;
        let credential = credential.map_err(Error::Credential)?;
        let (http, tokens) = (Arc::clone(&self.http), Arc::clone(&self.tokens));
        let session = Session::open(http, tokens, at, repository, credential).await?;
        let image = session.image(named, platform).await?;
        Ok(Pull { session: Arc::new(session), image, platform: platform.clone() })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.http.config).finish_non_exhaustive()
    }
}

/// An image that was found, and the right to read it. Cheap to clone.
#[derive(Clone)]
pub struct Pull {
    session: Arc<Session>,
    image: Image,
    platform: Platform,
}

impl Pull {
    /// The image.
    #[must_use]
    pub const fn image(&self) -> &Image {
        &self.image
    }

    /// The registry or mirror that has it, as references name it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.session.host
    }

    /// Reads the image config, whole and verified. It is for the platform and
    /// has a diff id for each layer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn config(&self) -> Result<(Bytes, ImageConfig), Error> {
        self.session.config(&self.image, &self.platform).await
    }

    /// The bytes of a layer: as many as its descriptor says, or an error. Their
    /// digest is for the taker to verify. A cut connection is made again, and
    /// the stream goes on where it was.
    #[must_use]
    pub fn blob(&self, descriptor: &Descriptor) -> BlobStream {
        Arc::clone(&self.session).blob(descriptor.clone())
    }

    /// A part of a layer, within its size; not verified.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn part(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<Bytes, Error> {
        self.session.blob_part(descriptor, range).await
    }
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (host, digest) = (&self.session.host, &self.image.digest);
        f.debug_struct("Pull").field("host", host).field("digest", digest).finish_non_exhaustive()
    }
}
