//! How a build ended: what is said of it at the end.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use slipway_api::Client;
use slipway_api::own::Job;
use slipway_api::types::Snapshot;

use super::error::Error;
use super::follow::Ending;
use super::format;

/// How often, and how long apart, the record is looked at until it agrees with
/// the end of the log: the two are read from different places.
const LOOKS: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(250);

/// Everything known about a finished build.
#[derive(Debug)]
pub struct Report {
    snapshot: Snapshot,
    job: Option<Job>,
    ending: Ending,
    elapsed: Duration,
}

impl Report {
    /// Asks the server for what the log does not say.
    pub async fn collect(
        client: &Client,
        submitted: &Snapshot,
        job: &str,
        ending: Ending,
        elapsed: Duration,
    ) -> Result<Self, Error> {
        let snapshot = settled(client, submitted).await?;
        // Only adorns the report; without it there is still one.
        let job = client.job(job).await.ok();
        Ok(Self { snapshot, job, ending, elapsed })
    }

    /// Whether the snapshot can be used.
    pub fn is_success(&self) -> bool {
        self.ending.state == "succeeded" && self.snapshot.state == "active"
    }

    /// Lines for a snapshot that can be used.
    pub fn summary(&self) -> String {
        let snapshot = &self.snapshot;
        let mut text = format!("snapshot {} is active\n", snapshot.name);
        let mut line = |name: &str, value: &str| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {name:<8}{value}");
        };
        line("id", &snapshot.id);
        line("digest", format::or_dash(snapshot.digest.as_deref()));
        line("size", &format::gibibytes(snapshot.size));
        line("time", &format::duration(self.elapsed));
        if let Some((cached, total)) = self.steps() {
            match self.work() {
                "pull" => line("layers", &format!("{total}, {cached} of them there already")),
                _ => line("steps", &format!("{total}, {cached} of them from the cache")),
            }
        }
        if !snapshot.region_ids.is_empty() {
            line("region", &snapshot.region_ids.join(", "));
        }
        line("ref", format::or_dash(snapshot.reference.as_deref()));
        text
    }

    /// Lines for a build that ended badly, after a headline.
    pub fn failure(&self) -> (String, String) {
        let name = &self.snapshot.name;
        let failure = self.job.as_ref().and_then(|job| job.failure.as_ref());
        let reason = failure
            .map(|failure| failure.message.as_str())
            .or(self.ending.reason.as_deref())
            .or(self.snapshot.error_reason.as_deref())
            .unwrap_or("the server gives no reason");
        let work = self.work();
        let headline = match self.ending.state.as_str() {
            "failed" => format!("the {work} of {name} failed: {reason}"),
            "cancelled" => format!("the {work} of {name} was cancelled: {reason}"),
            "dead" => format!("the {work} of {name} was given up: {reason}"),
            "succeeded" => {
                format!(
                    "the {work} of {name} succeeded, but it is {}: {reason}",
                    self.snapshot.state
                )
            }
            state => format!("the {work} of {name} ended as {state}: {reason}"),
        };
        let mut text = String::new();
        if let Some(location) = failure.and_then(|failure| failure.location.as_ref()) {
            for (line, code) in (location.line..).zip(location.snippet.lines()) {
                // Writing to a string does not fail.
                let _ = writeln!(text, "  Dockerfile:{line}: {code}");
            }
        }
        if let Some(code) = failure.and_then(|failure| failure.exit_code) {
            let _ = writeln!(text, "  exit  code {code}");
        }
        let _ = writeln!(text, "  time  {}", format::duration(self.elapsed));
        let _ = writeln!(text, "  log   slipway snapshot logs {name}");
        (headline, text)
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let snapshot = &self.snapshot;
        let (cached, total) = self.steps().unzip();
        json!({
            "event": "result",
            "success": self.is_success(),
            "jobState": self.ending.state,
            "reason": self.ending.reason.as_ref().or(snapshot.error_reason.as_ref()),
            "failure": self.job.as_ref().and_then(|job| job.failure.as_ref()),
            "id": snapshot.id,
            "name": snapshot.name,
            "state": snapshot.state,
            "digest": snapshot.digest,
            "ref": snapshot.reference,
            "sizeBytes": format::gibibytes_as_bytes(snapshot.size),
            "regionIds": snapshot.region_ids,
            "cachedSteps": cached,
            "totalSteps": total,
            "seconds": self.elapsed.as_secs_f64(),
        })
    }

    /// What was done to make the snapshot.
    fn work(&self) -> &'static str {
        if self.snapshot.image_name.is_empty() { "build" } else { "pull" }
    }

    fn steps(&self) -> Option<(u32, u32)> {
        let job = self.job.as_ref()?;
        Some((job.cached_steps?, job.total_steps?))
    }
}

/// The snapshot once it is no longer on its way, or deleted.
async fn settled(client: &Client, submitted: &Snapshot) -> Result<Snapshot, Error> {
    let mut last = submitted.clone();
    for _ in 0..LOOKS {
        match client.snapshot(&submitted.id).await {
            Ok(found) => last = found,
            Err(error) if error.status() == Some(404) => {
                last.state = "removing".to_owned();
                return Ok(last);
            }
            Err(error) => return Err(error.into()),
        }
        if !matches!(last.state.as_str(), "pending" | "building" | "pulling") {
            break;
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Ok(last)
}
