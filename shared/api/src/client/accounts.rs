//! Organizations, API keys and general snapshots.

use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Client, Error};
use crate::account::{
    ApiKey, CreateApiKey, CreateOrganization, CreatedApiKey, Organization, OrganizationUsage,
    SetGeneral, SetLimits, Suspend,
};
use crate::types::Snapshot;

impl Client {
    /// `GET /organizations`: one's own.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn own_organizations(&self) -> Result<Vec<Organization>, Error> {
        self.get(&["organizations"]).await
    }

    /// `GET /v1/organizations`: every one, for the operator.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn organizations(&self) -> Result<Vec<Organization>, Error> {
        self.get(&["v1", "organizations"]).await
    }

    /// `GET /organizations/{id or name}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, or a foreign one.
    pub async fn organization(&self, id_or_name: &str) -> Result<Organization, Error> {
        self.get(&["organizations", id_or_name]).await
    }

    /// `GET /organizations/{id or name}/usage`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, or a foreign one.
    pub async fn organization_usage(&self, id_or_name: &str) -> Result<OrganizationUsage, Error> {
        self.get(&["organizations", id_or_name, "usage"]).await
    }

    /// `POST /v1/organizations`. Never repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn create_organization(
        &self,
        wanted: &CreateOrganization,
    ) -> Result<Organization, Error> {
        self.with_body(Method::POST, &["v1", "organizations"], wanted).await
    }

    /// `PATCH /v1/organizations/{id or name}/limits`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn set_limits(
        &self,
        id_or_name: &str,
        wanted: &SetLimits,
    ) -> Result<Organization, Error> {
        let path = ["v1", "organizations", id_or_name, "limits"];
        self.with_body(Method::PATCH, &path, wanted).await
    }

    /// `POST /v1/organizations/{id or name}/suspend`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn suspend(&self, id_or_name: &str, wanted: &Suspend) -> Result<Organization, Error> {
        let path = ["v1", "organizations", id_or_name, "suspend"];
        self.with_body(Method::POST, &path, wanted).await
    }

    /// `POST /v1/organizations/{id or name}/resume`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn resume(&self, id_or_name: &str) -> Result<Organization, Error> {
        let path = ["v1", "organizations", id_or_name, "resume"];
        self.json(self.request(Method::POST, &path)?).await
    }

    /// Lists API keys, newest first: of the key's own organization, or of
    /// another for the operator.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn api_keys(&self, organization: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        self.get(&keys(organization)).await
    }

    /// Makes an API key. Never repeated.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn create_api_key(
        &self,
        organization: Option<&str>,
        wanted: &CreateApiKey,
    ) -> Result<CreatedApiKey, Error> {
        self.with_body(Method::POST, &keys(organization), wanted).await
    }

    /// Revokes an API key.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none.
    pub async fn revoke_api_key(
        &self,
        organization: Option<&str>,
        name: &str,
    ) -> Result<(), Error> {
        let path = [keys(organization), vec![name]].concat();
        self.send(self.request(Method::DELETE, &path)?).await?;
        Ok(())
    }

    /// `PATCH /admin/snapshots/{id}/general`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn set_general(&self, id: &str, general: bool) -> Result<Snapshot, Error> {
        let path = ["admin", "snapshots", id, "general"];
        self.with_body(Method::PATCH, &path, &SetGeneral { general }).await
    }

    async fn with_body<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: &(impl Serialize + Sync),
    ) -> Result<T, Error> {
        let request = self.http.request(method, self.url(path)?).json(body);
        let request = request.timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }
}

/// Where the API keys of an organization are.
fn keys(organization: Option<&str>) -> Vec<&str> {
    match organization {
        Some(organization) => vec!["v1", "organizations", organization, "api-keys"],
        None => vec!["api-keys"],
    }
}
