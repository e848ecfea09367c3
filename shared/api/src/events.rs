//! A job's log as server-sent events (HTML Standard, section 9.2), resumed when
//! the connection is cut.
//!
//! Invariant: every entry after the starting point is yielded once, in order,
//! whatever happens to the connection; [`LogMerge`] drops what comes twice.

use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use reqwest::header::{ACCEPT, HeaderName, HeaderValue};
use reqwest::{Method, Request};
use slipway_domain::{LogEntry, LogEvent, LogMerge, LogSeq};
use sse_stream::{Sse, SseByteStream};
use tokio::time::Instant;
use url::Url;

use crate::client::{Client, Error};
use crate::own::Job;

/// Something about a job.
#[derive(Debug, Clone, PartialEq)]
pub enum JobEvent {
    /// The next entry of its log; the last one is [`LogEvent::End`].
    Log(LogEntry),
    /// It moved, or waits for another reason than before.
    Job(Box<Job>),
    /// The connection was lost and is made again after this pause.
    Reconnecting {
        /// Before the next attempt.
        pause: Duration,
    },
}

/// The events of one job, from [`Client::job_events`].
///
/// With `follow` it ends after [`LogEvent::End`], otherwise with what is there.
/// A connection that is cut, silent for too long or refused with 429 or 502 to
/// 504 is made again, with `Last-Event-ID` and growing pauses; only when that
/// fails several times without a new entry in between is there an error, and
/// then the stream ends.
pub struct JobEvents {
    client: Client,
    url: Url,
    follow: bool,
    last: LogSeq,
    merge: LogMerge,
    failures: u32,
    /// Not before then is the connection made again.
    resume_at: Option<Instant>,
    connection: Option<BoxStream<'static, Result<Sse, sse_stream::Error>>>,
    is_over: bool,
}

impl JobEvents {
    pub(crate) fn new(client: Client, url: Url, after: LogSeq, follow: bool) -> Self {
        Self {
            client,
            url,
            follow,
            last: after,
            merge: LogMerge::after(after),
            failures: 0,
            resume_at: None,
            connection: None,
            is_over: false,
        }
    }

    /// The position after which the next entry will come; to go on later.
    #[must_use]
    pub const fn position(&self) -> LogSeq {
        self.last
    }

    /// The next event, or `None` at the end. Cancel-safe.
    ///
    /// # Errors
    /// Those of the last attempt to connect; [`Error::Unstable`] if connections
    /// come about but bring nothing.
    pub async fn next(&mut self) -> Option<Result<JobEvent, Error>> {
        loop {
            if self.is_over {
                return None;
            }
            let Some(connection) = &mut self.connection else {
                match self.connect().await {
                    Ok(()) => continue,
                    Err(error) => return Some(self.after_failure(error)),
                }
            };
            match connection.next().await {
                Some(Ok(event)) => match self.read(&event) {
                    Ok(Some(event)) => return Some(Ok(event)),
                    Ok(None) => {}
                    Err(error) => return Some(self.after_failure(error)),
                },
                // All there is was read; nothing more was asked for.
                None if !self.follow => self.is_over = true,
                None | Some(Err(_)) => {
                    let request = format!("GET {}", self.url.path());
                    return Some(self.after_failure(Error::Unstable { request }));
                }
            }
        }
    }

    /// The events as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<JobEvent, Error>> + Send {
        stream::unfold(self, |mut events| async move {
            let event = events.next().await?;
            Some((event, events))
        })
    }

    async fn connect(&mut self) -> Result<(), Error> {
        if let Some(at) = self.resume_at {
            tokio::time::sleep_until(at).await;
        }
        let mut request = Request::new(Method::GET, self.url.clone());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if self.last > LogSeq::ZERO {
            let id = HeaderValue::from(self.last.get());
            headers.insert(HeaderName::from_static("last-event-id"), id);
        }
        let response = self.client.send_once(request).await?;
        self.connection = Some(SseByteStream::new(response.bytes_stream()).boxed());
        Ok(())
    }

    fn read(&mut self, event: &Sse) -> Result<Option<JobEvent>, Error> {
        let data = event.data.as_deref().unwrap_or_default();
        match event.event.as_deref() {
            Some("log" | "end") => {
                let entry = self.parse::<LogEntry>(data)?;
                if !self.merge.accept(&entry) {
                    return Ok(None);
                }
                self.last = entry.seq;
                self.failures = 0;
                self.is_over = matches!(entry.event, LogEvent::End { .. });
                Ok(Some(JobEvent::Log(entry)))
            }
            Some("job") => Ok(Some(JobEvent::Job(Box::new(self.parse(data)?)))),
            Some("interrupted") => {
                let request = format!("GET {}", self.url.path());
                Err(Error::Unstable { request })
            }
            // Whatever a later server adds.
            _ => Ok(None),
        }
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, data: &str) -> Result<T, Error> {
        serde_json::from_str(data).map_err(|source| {
            let request = format!("GET {}", self.url.path());
            Error::Malformed { request, source }
        })
    }

    /// Says what happens next: another attempt, or the end.
    fn after_failure(&mut self, error: Error) -> Result<JobEvent, Error> {
        self.connection = None;
        self.failures += 1;
        let is_passing = error.is_retryable() || matches!(error, Error::Unstable { .. });
        let resume = &self.client.settings().resume;
        if !is_passing || self.failures >= resume.attempts {
            self.is_over = true;
            return Err(error);
        }
        let pause = resume.pause(self.failures, error.retry_after());
        self.resume_at = Some(Instant::now() + pause);
        Ok(JobEvent::Reconnecting { pause })
    }
}
