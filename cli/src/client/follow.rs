//! Following a job to its end.

use futures::FutureExt as _;
use slipway_api::events::{JobEvent, JobEvents};
use slipway_domain::{AttemptNumber, LogEvent};

use super::error::Error;
use super::interrupt::Interrupt;
use super::screen::{Happening, Screen};

/// What the last entry of a log says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// The job's last state, for example `succeeded`.
    pub state: String,
    /// Why, if it did not succeed.
    pub reason: Option<String>,
}

/// Shows everything that happens until the job has ended. The connection may
/// be cut meanwhile; only if it stays so there is an error.
pub async fn follow(
    mut events: JobEvents,
    screen: &mut dyn Screen,
    interrupt: &Interrupt,
) -> Result<Ending, Error> {
    let mut attempt = AttemptNumber::FIRST;
    loop {
        // Cancel-safe, both times: what waits keeps its place when dropped.
        let event = match events.next().now_or_never() {
            Some(event) => event,
            None => {
                screen.flush()?;
                tokio::select! {
                    event = events.next() => event,
                    () = interrupt.pressed() => {
                        screen.close();
                        return Err(Error::Interrupted { advice: None });
                    }
                }
            }
        };
        let event = match event {
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                screen.close();
                return Err(Error::Api(error));
            }
            // A log that is followed ends with its last entry, seen below.
            None => return Ok(Ending { state: "unknown".to_owned(), reason: None }),
        };
        match event {
            JobEvent::Job(job) => screen.show(&Happening::Job(&job))?,
            JobEvent::Reconnecting { pause } => screen.show(&Happening::Reconnecting { pause })?,
            JobEvent::Log(entry) => {
                if let LogEvent::End { state, reason } = entry.event {
                    return Ok(Ending { state, reason });
                }
                if entry.seq.attempt() > attempt {
                    attempt = entry.seq.attempt();
                    screen.show(&Happening::Attempt(attempt.get()))?;
                }
                screen.show(&Happening::Entry(&entry))?;
            }
        }
    }
}
