//! One JSON object per line on standard output.

use std::io;

use serde::Serialize;
use serde_json::{Value, json};
use slipway_domain::LogEntry;

use super::{Happening, Screen};

/// The screen of programs.
pub struct Json;

impl Screen for Json {
    fn show(&mut self, happening: &Happening<'_>) -> io::Result<()> {
        let value = match happening {
            // Of no use without a bar to draw.
            Happening::Packing(_) | Happening::Uploading { .. } => return Ok(()),
            Happening::ContextChanged => json!({"event": "context_changed"}),
            Happening::ContextReady { packed, is_known } => json!({
                "event": "context",
                "digest": packed.digest.to_string(),
                "sizeBytes": packed.digest.size,
                "entries": packed.total.entries,
                "uploaded": !is_known,
            }),
            Happening::Submitted(snapshot) => json!({
                "event": "submitted",
                "id": snapshot.id,
                "name": snapshot.name,
                "jobId": snapshot.job_id,
                "state": snapshot.state,
            }),
            Happening::Detached(_) => return Ok(()),
            Happening::Job(job) => json!({
                "event": "job",
                "state": job.state,
                "waiting": job.waiting,
                "attempt": job.attempts.last().map(|attempt| attempt.number),
                "worker": job.attempts.last().and_then(|attempt| attempt.worker.as_ref()),
            }),
            Happening::Attempt(number) => json!({"event": "attempt", "number": number}),
            Happening::Entry(entry) => log(entry)?,
            Happening::Reconnecting { pause } => {
                json!({"event": "reconnecting", "seconds": pause.as_secs_f64()})
            }
            Happening::Finished(report) => report.json(),
        };
        line(&value)
    }
}

fn log(entry: &LogEntry) -> io::Result<Value> {
    let mut value = serde_json::to_value(entry)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("event".to_owned(), "log".into());
    }
    Ok(value)
}

/// Prints anything as one line.
pub fn line(value: &impl Serialize) -> io::Result<()> {
    write(&mut io::stdout(), value)
}

/// The same elsewhere.
pub fn write(out: &mut impl io::Write, value: &impl Serialize) -> io::Result<()> {
    let text = serde_json::to_string(value)?;
    writeln!(out, "{text}")
}
