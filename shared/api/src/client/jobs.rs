//! Jobs: looking at them, cancelling them, and what to do about dead ones.

use reqwest::Method;

use super::{Client, Error};
use crate::own::{Job, JobList, ListJobs};

impl Client {
    /// `GET /v1/jobs/{id}`.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none.
    pub async fn job(&self, id: &str) -> Result<Job, Error> {
        self.get(&["v1", "jobs", id]).await
    }

    /// `GET /v1/jobs`: a page of them, newest first.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn jobs(&self, what: &ListJobs) -> Result<JobList, Error> {
        self.page(&["v1", "jobs"], what).await
    }

    /// `GET /v1/jobs/dead`: a page of the dead ones that were not dropped.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's reason, or that it was not reached.
    pub async fn dead_jobs(&self, what: &ListJobs) -> Result<JobList, Error> {
        self.page(&["v1", "jobs", "dead"], what).await
    }

    /// `POST /v1/jobs/{id}/cancel`: stops a job and returns it. One that is
    /// cancelled already stays so.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, 409 if it has ended.
    pub async fn cancel_job(&self, id: &str) -> Result<Job, Error> {
        self.json(self.request(Method::POST, &["v1", "jobs", id, "cancel"])?).await
    }

    /// `POST /v1/jobs/{id}/redrive`: gives a dead job a fresh set of attempts.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, 409 if it is not dead,
    /// 503 if it cannot be done yet.
    pub async fn redrive_job(&self, id: &str) -> Result<Job, Error> {
        self.json(self.request(Method::POST, &["v1", "jobs", id, "redrive"])?).await
    }

    /// `POST /v1/jobs/{id}/drop`: takes a dead job from the list of the dead.
    ///
    /// # Errors
    /// [`Error::Refused`] with status 404 if there is none, 409 if it is not dead.
    pub async fn drop_job(&self, id: &str) -> Result<Job, Error> {
        self.json(self.request(Method::POST, &["v1", "jobs", id, "drop"])?).await
    }

    async fn page(&self, segments: &[&str], what: &ListJobs) -> Result<JobList, Error> {
        let request = self.http.get(self.url(segments)?).query(what);
        let request = request.timeout(self.settings.answer);
        self.json(request.build().map_err(Error::Setup)?).await
    }
}
