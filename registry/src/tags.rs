//! Tags of a repository: `GET /v2/<name>/tags/list`, in order, with pages.

use axum::Json;
use axum::extract::Query;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};
use futures::TryStreamExt;
use serde::Deserialize;
use slipway_blobstore::{ObjectKey, Prefix, Repository};

use crate::error::Error;
use crate::registry::Registry;

#[derive(Debug, Deserialize)]
struct Page {
    /// At most so many.
    n: Option<usize>,
    /// Only those that follow this one.
    last: Option<String>,
}

impl Registry {
    pub(crate) async fn list_tags(
        &self,
        repository: &Repository,
        uri: &Uri,
    ) -> Result<Response, Error> {
        let page: Query<Page> =
            Query::try_from_uri(uri).unwrap_or(Query(Page { n: None, last: None }));
        let mut tags = self.tags(repository).await?;
        if tags.is_empty() && !self.has_manifests(repository).await? {
            return Err(Error::NameUnknown);
        }
        if let Some(last) = &page.last {
            tags.retain(|tag| tag > last);
        }
        let more = page.n.is_some_and(|count| count < tags.len());
        tags.truncate(page.n.unwrap_or(usize::MAX));
        let body = Json(serde_json::json!({ "name": repository.to_string(), "tags": tags }));
        match (more, tags.last(), page.n) {
            (true, Some(last), Some(count)) => {
                let next =
                    format!("</v2/{repository}/tags/list?n={count}&last={last}>; rel=\"next\"");
                Ok(([(header::LINK, next)], body).into_response())
            }
            _ => Ok(body.into_response()),
        }
    }

    async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Error> {
        let mut entries = self.inner.store.list(&Prefix::Tags(repository.clone()));
        let mut tags = Vec::new();
        while let Some(entry) = entries.try_next().await? {
            if let ObjectKey::TagLink { tag, .. } = entry.key {
                tags.push(tag.to_string());
            }
        }
        tags.sort();
        Ok(tags)
    }

    async fn has_manifests(&self, repository: &Repository) -> Result<bool, Error> {
        let mut entries = self.inner.store.list(&Prefix::ManifestLinks(repository.clone()));
        Ok(entries.try_next().await?.is_some())
    }
}
