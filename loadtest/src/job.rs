//! One job, as a client sees it: followed to its end, then judged.

use jiff::Timestamp;
use slipway_api::Client;
use slipway_api::events::JobEvent;
use slipway_api::own::Job;
use slipway_api::types::Snapshot;
use slipway_domain::{LogEvent, LogSeq};

use crate::failures::Failure;

/// The job of a snapshot.
pub fn id(snapshot: &Snapshot) -> Result<&str, Failure> {
    let missing = || Failure::new("submit", "no job", "the server names no job");
    snapshot.job_id.as_deref().ok_or_else(missing)
}

/// Hands over everything that happens to a job, and checks that its log has no
/// gap and comes to its end. Without `follow`, the end must be there already.
pub async fn read(
    client: &Client,
    id: &str,
    follow: bool,
    mut happened: impl FnMut(&JobEvent),
) -> Result<(), Failure> {
    let part = if follow { "log" } else { "log read afterwards" };
    let events = client.job_events(id, LogSeq::ZERO, follow);
    let mut events = events.map_err(|error| Failure::api(part, &error))?;
    let mut before = LogSeq::ZERO;
    while let Some(event) = events.next().await {
        let event = event.map_err(|error| Failure::api(part, &error))?;
        happened(&event);
        let JobEvent::Log(entry) = &event else { continue };
        if !entry.seq.follows(before) {
            let message = format!("entry {} of job {id} comes after {before}", entry.seq);
            return Err(Failure::new(part, "gap", message));
        }
        before = entry.seq;
        if matches!(entry.event, LogEvent::End { .. }) {
            return Ok(());
        }
    }
    Err(Failure::new(part, "no end", format!("the log of job {id} stops at {before}")))
}

/// Whether a job that is over has made what it was to make.
pub async fn judge(client: &Client, job: &Job) -> Result<(), Failure> {
    if let Some(failure) = &job.failure {
        let kind = serde_json::to_value(failure.kind).ok();
        let kind = kind.as_ref().and_then(|kind| kind.as_str()).unwrap_or("unknown");
        return Err(Failure::new("build", kind, failure.message.clone()));
    }
    if job.state != "succeeded" {
        return Err(Failure::new("build", &job.state, format!("job {}", job.id)));
    }
    let snapshot = client.snapshot(&job.snapshot_id).await;
    let snapshot = snapshot.map_err(|error| Failure::api("get", &error))?;
    if snapshot.state != "active" || snapshot.digest.is_none() {
        let message = format!("snapshot {} of job {}", snapshot.id, job.id);
        return Err(Failure::new("build", &format!("succeeded, yet {}", snapshot.state), message));
    }
    Ok(())
}

/// From one time of the server's clock to another; zero if that was set back.
pub fn between(from: Timestamp, to: Timestamp) -> std::time::Duration {
    to.duration_since(from).try_into().unwrap_or_default()
}
