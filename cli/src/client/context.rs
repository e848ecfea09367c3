//! From a folder to a context that the server has.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt as _;
use slipway_api::Client;
use slipway_api::client::UploadError;
use slipway_context::{ContextDigest, IgnoreRules, Packed, Packer, Progress, pack};
use tokio::sync::watch;
use tokio::time::{Duration, MissedTickBehavior};

use super::error::Error;
use super::screen::{Happening, Screen};

/// How often progress is shown.
const REFRESH: Duration = Duration::from_millis(100);

/// Packs the folder and uploads it, unless the server already has it. If it
/// changes meanwhile that is done once more.
pub async fn provide(
    client: &Client,
    folder: &Path,
    dockerfile: Option<&Path>,
    screen: &mut dyn Screen,
) -> Result<ContextDigest, Error> {
    let rules = IgnoreRules::for_build(folder, dockerfile).map_err(Error::Ignore)?;
    let packer = Packer::new(folder, rules);
    let mut is_last = false;
    loop {
        let error = match attempt(client, &packer, screen).await {
            Err(Error::Pack(error)) if error.is_change() => Some(error),
            Err(Error::Changing(error)) => error,
            outcome => return outcome,
        };
        if is_last {
            return Err(Error::Changing(error));
        }
        is_last = true;
        screen.show(&Happening::ContextChanged)?;
    }
}

async fn attempt(
    client: &Client,
    packer: &Packer,
    screen: &mut dyn Screen,
) -> Result<ContextDigest, Error> {
    let packed = first_pass(packer, screen).await?;
    let digest = packed.digest;
    let is_known = client.has_context(&digest.hex()).await?;
    if !is_known {
        upload(client, packer, &packed, screen).await?;
    }
    screen.show(&Happening::ContextReady { packed: &packed, is_known })?;
    Ok(digest)
}

/// Learns digest and size, which costs no space.
async fn first_pass(packer: &Packer, screen: &mut dyn Screen) -> Result<Packed, Error> {
    let (sender, mut progress) = watch::channel(Progress::default());
    let packer = packer.clone();
    let mut pass = tokio::task::spawn_blocking(move || {
        packer.digest(|seen| {
            sender.send_replace(seen);
        })
    });
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        // Cancel-safe: neither a join handle nor an interval loses anything.
        tokio::select! {
            outcome = &mut pass => {
                let outcome = outcome.unwrap_or(Err(pack::Error::Abandoned));
                return outcome.map_err(Error::Pack);
            }
            _ = refresh.tick() => {
                let seen = *progress.borrow_and_update();
                screen.show(&Happening::Packing(seen))?;
            }
        }
    }
}

async fn upload(
    client: &Client,
    packer: &Packer,
    packed: &Packed,
    screen: &mut dyn Screen,
) -> Result<(), Error> {
    let digest = packed.digest;
    let sent = Arc::new(AtomicU64::new(0));
    let hex = digest.hex();
    let content = || {
        let sent = sent.clone();
        sent.store(0, Ordering::Relaxed);
        packer.stream(digest, |_| {}).inspect_ok(move |chunk| {
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        })
    };
    let mut upload = std::pin::pin!(client.put_context(&hex, digest.size, content));
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let outcome = loop {
        // Cancel-safe: the upload is kept over the iterations.
        tokio::select! {
            outcome = &mut upload => break outcome,
            _ = refresh.tick() => {
                let sent = sent.load(Ordering::Relaxed);
                screen.show(&Happening::Uploading { sent, size: digest.size })?;
            }
        }
    };
    outcome.map_err(|error| match error {
        UploadError::Source(error) => Error::Pack(error),
        // What was sent was not what had been announced, as the server saw it.
        UploadError::Api(slipway_api::client::Error::Refused { code: Some(code), .. })
            if code == "context_mismatch" =>
        {
            Error::Changing(None)
        }
        UploadError::Api(error) => Error::Api(error),
    })
}
