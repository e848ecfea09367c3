//! `slipway snapshot logs`.

use slipway_api::Client;
use slipway_domain::{LogEvent, LogSeq};

use super::args::Logs;
use super::error::Error;
use super::follow::follow;
use super::interrupt::Interrupt;
use super::screen::{Happening, LogScreen, Screen};

/// Prints a log to standard output and ends with it. The exit code tells
/// whether the log could be read, not how the build ended.
pub async fn run(client: &Client, args: Logs) -> Result<(), Error> {
    let snapshot = client.snapshot(&args.name).await?;
    let job = snapshot.job_id.ok_or_else(|| Error::NoJob(args.name.clone()))?;
    let mut screen = LogScreen::new(args.json);
    let mut events = client.job_events(&job, LogSeq::from_u64(args.from), args.follow)?;
    if args.follow {
        let ending = follow(events, &mut screen, &Interrupt::install()).await?;
        return Ok(screen.ended(&ending)?);
    }
    while let Some(event) = events.next().await {
        if let slipway_api::events::JobEvent::Log(entry) = event? {
            match &entry.event {
                LogEvent::End { .. } if !args.json => {}
                _ => screen.show(&Happening::Entry(&entry))?,
            }
        }
    }
    Ok(screen.flush()?)
}
