//! The services of a session, each a small answer to BuildKit's questions.

use std::collections::BTreeMap;
use std::pin::Pin;

use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::Health;
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{
    GetSecretRequest, GetSecretResponse, secrets_server,
};
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, CredentialsResponse, FetchTokenRequest, FetchTokenResponse,
    GetTokenAuthorityRequest, GetTokenAuthorityResponse, VerifyTokenAuthorityRequest,
    VerifyTokenAuthorityResponse, auth_server::Auth,
};
use futures::Stream;
use secrecy::{ExposeSecret, SecretSlice};
use tonic::{Request, Response, Status};

use crate::request::RegistryCredentials;

/// Says that we live. BuildKit asks every five seconds and drops a session
/// that fails twice.
pub(super) struct Healthy;

#[tonic::async_trait]
impl Health for Healthy {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let status = ServingStatus::Serving.into();
        Ok(Response::new(HealthCheckResponse { status }))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("one service only"))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("use Check"))
    }
}

/// Hands out registry credentials. BuildKit itself exchanges them for tokens:
/// `Unavailable` is how a client says that it does not.
pub(super) struct Credentials {
    known: RegistryCredentials,
}

impl Credentials {
    pub(super) fn new(known: RegistryCredentials) -> Self {
        Self { known }
    }
}

fn no_token_authority<T>() -> Result<Response<T>, Status> {
    Err(Status::unavailable("tokens are fetched by BuildKit"))
}

#[tonic::async_trait]
impl Auth for Credentials {
    async fn credentials(
        &self,
        request: Request<CredentialsRequest>,
    ) -> Result<Response<CredentialsResponse>, Status> {
        let host = request.into_inner().host;
        let credential = self.known.get(&host);
        tracing::debug!(host, known = credential.is_some(), "registry credentials asked for");
        // An empty answer means: go on as nobody.
        let (username, secret) = credential
            .map(|known| (known.username.clone(), known.secret.expose_secret().to_owned()))
            .unwrap_or_default();
        Ok(Response::new(CredentialsResponse { username, secret }))
    }

    async fn fetch_token(
        &self,
        _: Request<FetchTokenRequest>,
    ) -> Result<Response<FetchTokenResponse>, Status> {
        no_token_authority()
    }

    async fn get_token_authority(
        &self,
        _: Request<GetTokenAuthorityRequest>,
    ) -> Result<Response<GetTokenAuthorityResponse>, Status> {
        no_token_authority()
    }

    async fn verify_token_authority(
        &self,
        _: Request<VerifyTokenAuthorityRequest>,
    ) -> Result<Response<VerifyTokenAuthorityResponse>, Status> {
        no_token_authority()
    }
}

/// Hands out the secrets of this solve by id.
pub(super) struct Secrets {
    by_id: BTreeMap<String, SecretSlice<u8>>,
}

impl Secrets {
    pub(super) fn new(by_id: BTreeMap<String, SecretSlice<u8>>) -> Self {
        Self { by_id }
    }
}

#[tonic::async_trait]
impl secrets_server::Secrets for Secrets {
    async fn get_secret(
        &self,
        request: Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        let id = request.into_inner().id;
        let secret = self
            .by_id
            .get(&id)
            .ok_or_else(|| Status::not_found(format!("secret {id}: not found")))?;
        Ok(Response::new(GetSecretResponse { data: secret.expose_secret().to_vec() }))
    }
}
