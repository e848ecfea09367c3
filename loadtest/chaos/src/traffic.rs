//! What users ask of the system meanwhile: a stream of builds and pulls, some of
//! them deleted again, over HTTP and through any scheduler.
//!
//! Which requests are made is a function of the seed; when is not quite, for each
//! waits for the one before it to be sent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use slipway_api::Client;
use slipway_api::client::Error as ApiError;
use slipway_api::types::{CreateBuildInfo, CreateSnapshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::history::{History, What};
use crate::plan;
use crate::settings::REGIONS;
use crate::source::Source;

/// The random numbers of the traffic.
const PURPOSE: u64 = 1;
/// Pause between two requests, in milliseconds.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 50..=700;
/// Requests under way at once, at most: more wait for their turn.
const AT_ONCE: usize = 32;
/// Number of the first image that is asked for when the blows are over.
const LAST: u64 = 1 << 20;
/// How long a deletion is tried again without an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(500);

/// Those who ask.
pub(crate) struct Traffic {
    pub(crate) seed: u64,
    pub(crate) clients: Vec<Client>,
    pub(crate) source: Source,
    pub(crate) history: Arc<History>,
}

/// One request.
struct Wish {
    body: CreateSnapshot,
    expects: Option<String>,
    /// Which scheduler is asked.
    client: usize,
    /// After how long it is deleted, if it is.
    delete_after: Option<Duration>,
}

impl Traffic {
    /// Asks until `stop`, and returns when every request has come to its answer.
    pub(crate) async fn run(&self, stop: &CancellationToken) {
        let mut random = plan::stream(self.seed, PURPOSE);
        let mut asked = FuturesUnordered::new();
        for n in 0.. {
            let wish = self.wish(&mut random, n);
            let pause = Duration::from_millis(random.random_range(PAUSE_MS));
            asked.push(self.grant(wish));
            let due = Instant::now() + pause;
            loop {
                let is_full = asked.len() >= AT_ONCE;
                // Cancel-safe: requests stay in the set.
                tokio::select! {
                    () = stop.cancelled() => {
                        while asked.next().await.is_some() {}
                        return;
                    }
                    Some(_) = asked.next() => {}
                    () = tokio::time::sleep_until(due), if !is_full => break,
                }
            }
        }
    }

    /// Asks for one image more in each region, until it is promised: the system
    /// serves again when the blows are over. Notes where it does not in time.
    pub(crate) async fn prove(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for (image, region) in (LAST..).zip(REGIONS) {
            for n in 0.. {
                let (reference, digest) = self.source.image(image);
                let body = CreateSnapshot {
                    name: format!("chaos-last-{region}-{n}"),
                    region_id: Some(region.to_owned()),
                    image_name: Some(reference),
                    ..CreateSnapshot::default()
                };
                let client = n % self.clients.len();
                let wish = Wish { body, expects: Some(digest), client, delete_after: None };
                if self.grant(wish).await {
                    break;
                }
                if Instant::now() > deadline {
                    let what = format!("no request for {region} is taken any more");
                    return self.history.note(What::Unsettled { what });
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    fn wish(&self, random: &mut ChaCha8Rng, n: u64) -> Wish {
        let region = REGIONS[random.random_range(0..REGIONS.len())];
        let is_pull = random.random_bool(0.5);
        // Some images are pulled more than once, and some builds are the same.
        let content = if random.random_bool(0.2) { n / 2 } else { n };
        let mut body = CreateSnapshot {
            name: format!("chaos-{n}"),
            region_id: Some(region.to_owned()),
            ..CreateSnapshot::default()
        };
        let mut expects = None;
        if is_pull {
            let (reference, digest) = self.source.image(content);
            body.image_name = Some(reference);
            expects = Some(digest);
        } else {
            body.build_info = Some(CreateBuildInfo {
                dockerfile_content: DOCKERFILE.to_owned(),
                build_args: BTreeMap::from([(
                    "CHAOS".to_owned(),
                    format!("{} {content}", self.seed),
                )]),
                ..CreateBuildInfo::default()
            });
        }
        let delete = random.random_bool(0.2);
        let after = Duration::from_millis(random.random_range(0..3_000));
        Wish {
            body,
            expects,
            client: random.random_range(0..self.clients.len()),
            delete_after: delete.then_some(after),
        }
    }

    /// Asks, and returns whether it was promised.
    async fn grant(&self, wish: Wish) -> bool {
        let name = wish.body.name.clone();
        let work = if wish.body.image_name.is_some() { "pull" } else { "build" };
        self.history.note(What::Asked {
            name: name.clone(),
            region: wish.body.region_id.clone().unwrap_or_default(),
            work: work.to_owned(),
            expects: wish.expects,
        });
        match self.clients[wish.client].create_snapshot(&wish.body).await {
            Ok(snapshot) => self.history.note(What::Acknowledged {
                name: name.clone(),
                snapshot: snapshot.id,
                job: snapshot.job_id.unwrap_or_default(),
            }),
            Err(ApiError::Refused { status, message, .. }) => {
                self.history.note(What::Refused { name, status, reason: message });
                return false;
            }
            Err(error) => {
                let reason = slipway_runtime::telemetry::chain(&error);
                self.history.note(What::Unknown { name, reason });
                return false;
            }
        }
        if let Some(after) = wish.delete_after {
            tokio::time::sleep(after).await;
            self.delete(&name).await;
        }
        true
    }

    async fn delete(&self, name: &str) {
        self.history.note(What::DeleteAsked { name: name.to_owned() });
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for client in &self.clients {
                match client.delete_snapshot(name).await {
                    Ok(()) => return self.history.note(What::Deleted { name: name.to_owned() }),
                    // An earlier try was heard, though its answer was lost.
                    Err(error) if error.status() == Some(404) => return,
                    Err(_) => {}
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

/// One layer with one file, without a base image.
const DOCKERFILE: &str = "\
FROM scratch
ARG CHAOS
COPY <<FILE /chaos
${CHAOS}
FILE
";
