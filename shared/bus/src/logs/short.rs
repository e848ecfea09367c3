//! A short log by one request.
//!
//! Owns a batched direct get (ADR-31), which makes no consumer: for logs that are read
//! once, when they are over. Refuses to say that what it got is everything: any replica
//! may answer, and the answer has a bound. A log that has its end in the answer is
//! whole, since a stream has one order.

use async_nats::{HeaderMap, HeaderName, Message, StatusCode, header};
use futures::StreamExt as _;
use serde::Serialize;
use slipway_domain::{JobId, Region};
use tokio::time::Instant;

use super::{Chunk, Error, Logs};
use crate::topology;

/// Most chunks of an answer.
const CHUNKS: usize = 64;
/// Bytes after which an answer has no further chunk.
const BYTES: usize = 256 << 10;

#[derive(Serialize)]
struct Ask<'a> {
    seq: u64,
    next_by_subj: &'a str,
    batch: usize,
    max_bytes: usize,
}

impl Logs {
    /// The first chunks of a job's log, in order, as whichever server answers has
    /// them: all of a short log, unless that server is behind.
    ///
    /// # Errors
    /// [`Error::NoAnswer`].
    pub async fn first_chunks(&self, region: &Region, job: JobId) -> Result<Vec<Chunk>, Error> {
        let stream = topology::logs_stream(region);
        let subject = self.bus.api_subject(&format!("DIRECT.GET.{stream}"));
        let filter = topology::log_filter(region, &job);
        let ask = Ask { seq: 1, next_by_subj: &filter, batch: CHUNKS, max_bytes: BYTES };
        let ask = serde_json::to_vec(&ask).expect("numbers and text serialize");
        let (client, unanswered) = (self.bus.client(), || Error::NoAnswer { job });
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|_| unanswered())?;
        let deadline = Instant::now() + self.bus.request_timeout();
        let asked = client.publish_with_reply(subject, inbox, ask.into()).await;
        asked.map_err(|_| unanswered())?;
        let mut chunks = vec![];
        loop {
            let answer = tokio::time::timeout_at(deadline, answers.next()).await;
            let answer = answer.ok().flatten().ok_or_else(unanswered)?;
            match answer.status.as_ref().map(StatusCode::as_u16) {
                None | Some(200) => chunks.extend(chunk(answer)),
                // The end of the batch, or nothing to begin with.
                Some(204 | 404) => return Ok(chunks),
                Some(_) => return Err(unanswered()),
            }
        }
    }
}

/// A stored message, in the form of a direct get.
fn chunk(answer: Message) -> Option<Chunk> {
    let headers = answer.headers?;
    let (worker, _) = topology::worker_and_job(text(&headers, header::NATS_SUBJECT)?)?;
    let stream_seq = text(&headers, header::NATS_SEQUENCE)?.parse().ok()?;
    Some(Chunk { worker, stream_seq, bytes: answer.payload })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get_last(name).map(|value| value.as_str())
}
