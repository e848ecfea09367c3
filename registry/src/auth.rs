//! Who asks, and what they may do.
//!
//! Owns the reading of `Authorization` headers and the port [`Authorizer`].
//! Refuses to know where identities come from; a worker asks the scheduler,
//! tests and a worker's own pushes use [`StaticAuthorizer`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use slipway_blobstore::{BoxError, Repository};
use slipway_domain::OrganizationId;
use slipway_domain::organization::GENERAL_REPOSITORY;
use slipway_oci::RepositoryName;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::error::Error;

/// What a request brought along.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Nothing.
    Anonymous,
    /// HTTP Basic. With an API key as password any user name will do.
    Basic {
        /// User name.
        user: String,
        /// Password.
        password: SecretString,
    },
    /// A bearer token.
    Bearer(SecretString),
}

impl Credentials {
    /// The password or token, if there is one.
    #[must_use]
    pub const fn secret(&self) -> Option<&SecretString> {
        match self {
            Self::Anonymous => None,
            Self::Basic { password, .. } => Some(password),
            Self::Bearer(token) => Some(token),
        }
    }

    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Error> {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(Self::Anonymous) };
        value.to_str().ok().and_then(Self::parse).ok_or(Error::Unauthorized)
    }

    fn parse(value: &str) -> Option<Self> {
        let (scheme, rest) = value.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Some(Self::Bearer(rest.trim().into()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (user, password) = decoded.split_once(':')?;
        Some(Self::Basic { user: user.to_owned(), password: password.into() })
    }
}

/// Which repositories of an organization a right covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// None.
    Nothing,
    /// All.
    Everything,
    /// The named ones.
    Repositories(BTreeSet<RepositoryName>),
    /// Those whose names go on, after a slash, below this one.
    Below(RepositoryName),
}

impl Scope {
    fn covers(&self, name: &RepositoryName) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Repositories(names) => names.contains(name),
            Self::Below(folder) => name
                .as_str()
                .strip_prefix(folder.as_str())
                .is_some_and(|rest| rest.starts_with('/')),
        }
    }
}

/// What somebody may do, always within one organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Whose repositories.
    pub organization: OrganizationId,
    /// What may be read; with `general` also of other organizations.
    pub pull: Scope,
    /// What may be written, and therefore read and deleted.
    pub push: Scope,
}

impl Access {
    pub(crate) fn may_pull(&self, repository: &Repository) -> bool {
        let is_open = self.owns(repository) || repository.name.as_str() == GENERAL_REPOSITORY;
        is_open && self.pull.covers(&repository.name) || self.may_push(repository)
    }

    pub(crate) fn may_push(&self, repository: &Repository) -> bool {
        self.owns(repository) && self.push.covers(&repository.name)
    }

    fn owns(&self, repository: &Repository) -> bool {
        *self.organization.as_uuid() == repository.organization
    }
}

/// Why an [`Authorizer`] gave no access.
#[derive(Debug, thiserror::Error)]
pub enum AuthorizerError {
    /// The credentials are missing, unknown or expired.
    #[error("credentials are not valid")]
    Refused,
    /// Nobody could be asked; the client is told to try again.
    #[error("credentials cannot be checked now")]
    Unavailable(#[source] BoxError),
}

/// Decides who somebody is. Asked for every request: an implementation that
/// asks over the network keeps a cache of its own.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// The rights that `credentials` give.
    ///
    /// # Errors
    /// See [`AuthorizerError`].
    async fn authorize(&self, credentials: Credentials) -> Result<Access, AuthorizerError>;

    /// The span, as a `traceparent`, whose work requests with `credentials` are.
    fn trace(&self, credentials: &Credentials) -> Option<String> {
        let _ = credentials;
        None
    }
}

/// A table of secrets in memory, compared in constant time. Secrets can be
/// granted for a time, such as that of one build, and another authorizer can
/// be asked about secrets that are not in the table.
#[derive(Default)]
pub struct StaticAuthorizer {
    entries: Arc<Mutex<Vec<TableEntry>>>,
    next: Option<Arc<dyn Authorizer>>,
}

struct TableEntry {
    hash: [u8; 32],
    access: Access,
    /// The span, as a `traceparent`, that requests with the secret belong to.
    trace: Option<String>,
}

impl StaticAuthorizer {
    /// An empty table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks `next` about every secret that is not in the table, and about
    /// requests without one.
    #[must_use]
    pub fn or_else(self, next: Arc<dyn Authorizer>) -> Self {
        Self { next: Some(next), ..self }
    }

    /// Gives `access` to whoever has `secret`, for good.
    pub fn insert(&self, secret: &SecretString, access: Access) {
        self.lock().push(TableEntry { hash: hash(secret), access, trace: None });
    }

    /// Gives `access` to whoever has a new random secret, until the grant is
    /// dropped.
    #[must_use]
    pub fn grant(&self, access: Access) -> Grant {
        // Two version 4 UUIDs hold 244 bits of the system's randomness.
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let secret = SecretString::from(secret);
        self.insert(&secret, access);
        Grant { secret, entries: Arc::clone(&self.entries) }
    }

    /// Goes through the whole table whatever it finds.
    fn look_up(&self, secret: &SecretString) -> Option<Access> {
        let hash = hash(secret);
        let mut found = None;
        for entry in self.lock().iter() {
            if bool::from(entry.hash.ct_eq(&hash)) {
                found = Some(entry.access.clone());
            }
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<TableEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Authorizer for StaticAuthorizer {
    async fn authorize(&self, credentials: Credentials) -> Result<Access, AuthorizerError> {
        match (credentials.secret().and_then(|secret| self.look_up(secret)), &self.next) {
            (Some(access), _) => Ok(access),
            (None, Some(next)) => next.authorize(credentials).await,
            (None, None) => Err(AuthorizerError::Refused),
        }
    }

    fn trace(&self, credentials: &Credentials) -> Option<String> {
        let hash = hash(credentials.secret()?);
        let entries = self.lock();
        entries.iter().find(|entry| bool::from(entry.hash.ct_eq(&hash)))?.trace.clone()
    }
}

impl std::fmt::Debug for StaticAuthorizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticAuthorizer").field("entries", &self.lock().len()).finish()
    }
}

/// A right for a time; ends when it is dropped.
pub struct Grant {
    secret: SecretString,
    entries: Arc<Mutex<Vec<TableEntry>>>,
}

impl Grant {
    /// The secret: a password with any user name, or a bearer token.
    #[must_use]
    pub const fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// Makes requests with the secret parts of a span, given as a `traceparent`.
    #[must_use]
    pub fn in_trace(self, span: Option<String>) -> Self {
        let hash = hash(&self.secret);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.iter_mut().filter(|entry| entry.hash == hash) {
            entry.trace.clone_from(&span);
        }
        drop(entries);
        self
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let hash = hash(&self.secret);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.hash != hash);
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant").finish_non_exhaustive()
    }
}

/// Hashes of equal length, so that a comparison tells nothing about the length
/// of a secret either.
fn hash(secret: &SecretString) -> [u8; 32] {
    Sha256::digest(secret.expose_secret()).into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn access() -> Access {
        let organization = OrganizationId::from_uuid(Uuid::from_u128(1));
        Access { organization, pull: Scope::Everything, push: Scope::Nothing }
    }

    fn header(value: &str) -> Option<Credentials> {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        Credentials::from_headers(&headers).ok()
    }

    #[test]
    fn reads_both_schemes_and_refuses_the_rest() {
        let Some(Credentials::Basic { user, password }) = header("basic dTpwOnE=") else {
            panic!("not basic")
        };
        assert_eq!((user.as_str(), password.expose_secret()), ("u", "p:q"));
        let Some(Credentials::Bearer(token)) = header("Bearer abc") else { panic!("not bearer") };
        assert_eq!(token.expose_secret(), "abc");
        for value in ["", "Basic", "Basic !!", "Basic dXNlcg==", "Digest x", "abc"] {
            assert!(header(value).is_none(), "{value}");
        }
        let anonymous = Credentials::from_headers(&HeaderMap::new()).unwrap();
        assert!(matches!(anonymous, Credentials::Anonymous));
    }

    #[test]
    fn rights_end_at_the_organization_and_at_their_scope() {
        let repository = |organization: u128, name: &str| Repository {
            organization: Uuid::from_u128(organization),
            name: name.parse().unwrap(),
        };
        let names = BTreeSet::from(["a/b".parse().unwrap()]);
        let access = Access { push: Scope::Repositories(names), ..access() };
        assert!(access.may_push(&repository(1, "a/b")) && access.may_pull(&repository(1, "c")));
        for foreign in [repository(2, "a/b"), repository(1, "a"), repository(1, "a/b/c")] {
            assert!(!access.may_push(&foreign), "{foreign}");
        }
        assert!(!access.may_pull(&repository(2, "a/b")));
        assert!(access.may_pull(&repository(2, "general")), "general images are everybody's");
        assert!(!access.may_push(&repository(2, "general")));
        let below = Access { push: Scope::Below("a".parse().unwrap()), ..access.clone() };
        assert!(below.may_push(&repository(1, "a/b")) && below.may_push(&repository(1, "a/b/c")));
        for foreign in [repository(1, "a"), repository(1, "ab/c"), repository(2, "a/b")] {
            assert!(!below.may_push(&foreign), "{foreign}");
        }
        let push_only = Access { pull: Scope::Nothing, ..access };
        assert!(push_only.may_pull(&repository(1, "a/b")), "a push looks first");
    }

    #[tokio::test]
    async fn a_grant_ends_when_it_is_dropped() {
        let table = StaticAuthorizer::new();
        let bearer = |grant: &Grant| Credentials::Bearer(grant.secret().clone());
        let (one, two) = (table.grant(access()), table.grant(access()));
        assert_ne!(one.secret().expose_secret(), two.secret().expose_secret());
        assert_eq!(table.authorize(bearer(&one)).await.unwrap(), access());
        let credentials = bearer(&one);
        drop(one);
        assert!(table.authorize(credentials).await.is_err());
        assert!(table.authorize(bearer(&two)).await.is_ok());
        assert!(table.authorize(Credentials::Anonymous).await.is_err());
    }

    #[tokio::test]
    async fn unknown_secrets_go_to_the_next_authorizer() {
        let next = StaticAuthorizer::new();
        next.insert(&"second".into(), access());
        let table = StaticAuthorizer::new().or_else(Arc::new(next));
        assert!(table.authorize(Credentials::Bearer("second".into())).await.is_ok());
        assert!(table.authorize(Credentials::Bearer("third".into())).await.is_err());
    }
}
