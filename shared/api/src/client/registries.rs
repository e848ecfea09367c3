//! Registry credentials.

use reqwest::Method;

use super::{Client, Error};
use crate::registries::{CredentialTest, DockerRegistry, KeyRotation, WriteDockerRegistry};

impl Client {
    /// `POST /docker-registry`. Never repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn create_docker_registry(
        &self,
        wanted: &WriteDockerRegistry,
    ) -> Result<DockerRegistry, Error> {
        let request = self.http.post(self.url(&["docker-registry"])?).json(wanted);
        let request = request.timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }

    /// `GET /docker-registry`: every credential, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn docker_registries(&self) -> Result<Vec<DockerRegistry>, Error> {
        self.get(&["docker-registry"]).await
    }

    /// `GET /docker-registry/{id}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none.
    pub async fn docker_registry(&self, id: &str) -> Result<DockerRegistry, Error> {
        self.get(&["docker-registry", id]).await
    }

    /// `PATCH /docker-registry/{id}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn update_docker_registry(
        &self,
        id: &str,
        wanted: &WriteDockerRegistry,
    ) -> Result<DockerRegistry, Error> {
        let request = self.http.patch(self.url(&["docker-registry", id])?).json(wanted);
        let request = request.timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }

    /// `DELETE /docker-registry/{id}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none.
    pub async fn delete_docker_registry(&self, id: &str) -> Result<(), Error> {
        self.send(self.request(Method::DELETE, &["docker-registry", id])?).await?;
        Ok(())
    }

    /// `POST /v1/registry-credentials/{id}/test`: a worker tries it, in `region`
    /// or in any.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn test_docker_registry(
        &self,
        id: &str,
        region: Option<&str>,
    ) -> Result<CredentialTest, Error> {
        let mut url = self.url(&["v1", "registry-credentials", id, "test"])?;
        if let Some(region) = region {
            url.query_pairs_mut().append_pair("region", region);
        }
        let request = self.http.post(url).timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }

    /// `POST /v1/regions/{region}/rotate-key`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn rotate_key(&self, region: &str) -> Result<KeyRotation, Error> {
        let request = self.http.post(self.url(&["v1", "regions", region, "rotate-key"])?);
        let request = request.timeout(self.settings.upload_answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }
}
