//! Bodies of `/api/docker-registry`, and of Slipway's own additions about
//! registry credentials.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

/// A registry credential, as every endpoint answers it (`DockerRegistry`). The
/// password is never among it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DockerRegistry {
    /// UUID.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The registry, or a part of it, normalised.
    pub url: String,
    /// User name; the ARN of a role for Amazon ECR by role.
    pub username: String,
    /// A remark; may be empty.
    pub project: String,
    /// Always `organization`.
    pub registry_type: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// `POST /api/docker-registry`, and `PATCH /api/docker-registry/{id}`.
#[derive(Debug, Clone, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WriteDockerRegistry {
    /// What people call it.
    pub name: String,
    /// The registry, or a part of it; empty for Docker Hub.
    pub url: String,
    /// User name.
    pub username: String,
    /// Password or token. Absent or empty: the old one, or none for a role.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "expose")]
    #[schema(value_type = Option<String>)]
    pub password: Option<SecretString>,
    /// A remark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
}

fn expose<S: Serializer>(secret: &Option<SecretString>, to: S) -> Result<S::Ok, S::Error> {
    match secret {
        Some(secret) => to.serialize_some(secret.expose_secret()),
        None => to.serialize_none(),
    }
}

/// `POST /api/v1/registry-credentials/{id}/test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialTest {
    /// Whether the registry takes it.
    pub works: bool,
    /// Why, or why not.
    pub message: String,
    /// Where it was tried.
    pub region: String,
    /// Who tried.
    pub worker: String,
}

/// `POST /api/v1/regions/{region}/rotate-key`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRotation {
    /// The region.
    pub region: String,
    /// Its public keys from now on.
    pub keys: Vec<String>,
    /// Credentials that are sealed to them, of every organization.
    pub resealed: u32,
    /// Credentials that no worker could open; if there are any, the old
    /// identities are kept.
    pub failed: u32,
}
