//! Whether a registry takes a credential, without reading an image.

use std::sync::Arc;

use slipway_oci::RepositoryName;

use crate::client::Client;
use crate::credential::Credential;
use crate::error::Error;
use crate::location::Location;
use crate::session::Session;

/// What a registry says about a credential that it does not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It, or the token server that it names, takes the credential.
    Credential,
    /// It asks for none.
    Anybody,
}

impl Client {
    /// Shows `credential` to the registry `host`, as for a pull of `repository`,
    /// which does not have to exist.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] if it is refused; otherwise that the registry
    /// could not be asked.
    pub async fn check(
        &self,
        host: &str,
        repository: RepositoryName,
        credential: Credential,
    ) -> Result<Accepted, Error> {
        let at = Location::new(host, &self.http.config);
        let (http, tokens) = (Arc::clone(&self.http), Arc::clone(&self.tokens));
        Session::open(http, tokens, &at, repository, credential).await?.check().await
    }
}
