//! Workers: looking at them, and orders to take no new jobs.

use reqwest::{Method, Request};

use super::{Client, Error};
use crate::own::Worker;

impl Client {
    /// `GET /v1/workers`.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        self.get(&["v1", "workers"]).await
    }

    /// `POST /v1/workers/{id}/drain`: has a worker take no new jobs and returns it.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, 409 if workers of
    /// several regions have the name and none is given.
    pub async fn drain_worker(&self, id: &str, region: Option<&str>) -> Result<Worker, Error> {
        self.json(self.order(Method::POST, id, region)?).await
    }

    /// `DELETE /v1/workers/{id}/drain`: has a worker take jobs again.
    ///
    /// # Errors
    /// As [`drain_worker`](Self::drain_worker).
    pub async fn undrain_worker(&self, id: &str, region: Option<&str>) -> Result<(), Error> {
        self.send(self.order(Method::DELETE, id, region)?).await?;
        Ok(())
    }

    fn order(&self, method: Method, id: &str, region: Option<&str>) -> Result<Request, Error> {
        let mut request = self.request(method, &["v1", "workers", id, "drain"])?;
        if let Some(region) = region {
            request.url_mut().query_pairs_mut().append_pair("region", region);
        }
        Ok(request)
    }
}
