//! One running solve.
//!
//! Owns the task that drives it: dial, session, status and the solve itself.
//! All of it is one future in one task, so that dropping the handle drops every
//! gRPC call at once; BuildKit then ends the processes of the build.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use futures::{Stream, StreamExt, TryFutureExt};
use slipway_oci::Digest;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tonic::Response;
use tonic::transport::Channel;

use crate::client::Target;
use crate::error::Error;
use crate::event::BuildEvent;
use crate::pace::Pace;
use crate::redact::Redactor;
use crate::request::SolveRequest;
use crate::session::{Keys, Session};
use crate::status::Tracker;
use crate::{attrs, dial};

/// Status messages whose events wait for a slow reader. BuildKit puts into one what
/// happened since the last.
const MESSAGE_BUFFER: usize = 4;

/// How long the end of the status stream is waited for once the solve is over.
const STATUS_GRACE: Duration = Duration::from_secs(2);

/// The same if no status ever came: a solve that failed before its job existed
/// has none, and BuildKit would keep us waiting for six seconds.
const NO_STATUS_GRACE: Duration = Duration::from_millis(100);

/// How long a solve may go on without its session before we give it up.
const SESSION_LOST_GRACE: Duration = Duration::from_secs(10);

/// A running solve. It runs whether or not events are read, except that it
/// keeps only a few of them ready; dropping it cancels the solve.
///
/// BuildKit before 0.15 forgets a cancellation that comes in the tenths of a
/// second in which it starts a container: that one process then runs to its own
/// end (moby/buildkit pull request 5106).
#[derive(Debug)]
pub struct Solve {
    id: String,
    events: mpsc::Receiver<Vec<BuildEvent>>,
    /// Those of a message that was begun.
    begun: std::vec::IntoIter<BuildEvent>,
    /// Holds the one task of this solve, and aborts it on drop.
    driver: JoinSet<Result<Outcome, Error>>,
}

/// How a solve ended that ended well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Digest of the manifest that was pushed; `None` without an export.
    pub digest: Option<Digest>,
    /// Digest of the image config.
    pub config_digest: Option<Digest>,
    /// All that BuildKit said about the export.
    pub exporter_response: BTreeMap<String, String>,
}

impl Solve {
    pub(crate) fn start(target: Arc<Target>, request: SolveRequest) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        let (sender, events) = mpsc::channel(MESSAGE_BUFFER);
        let mut driver = JoinSet::new();
        driver.spawn(drive(target, id.clone(), request, sender));
        Self { id, events, begun: Vec::new().into_iter(), driver }
    }

    /// BuildKit's id of this solve.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The next event; `None` when the solve is over.
    ///
    /// Cancel-safe: no event is lost if the future is dropped.
    pub async fn next_event(&mut self) -> Option<BuildEvent> {
        loop {
            if let Some(event) = self.begun.next() {
                return Some(event);
            }
            self.begun = self.events.recv().await?.into_iter();
        }
    }

    /// How the solve ended. Events not read until now are thrown away.
    ///
    /// # Errors
    /// Why there is no result; see [`Error`].
    ///
    /// # Panics
    /// If the solve's task did: a fault of this crate.
    pub async fn outcome(mut self) -> Result<Outcome, Error> {
        while self.events.recv().await.is_some() {}
        match self.driver.join_next().await {
            Some(Ok(outcome)) => outcome,
            Some(Err(panicked)) if panicked.is_panic() => {
                std::panic::resume_unwind(panicked.into_panic())
            }
            // The runtime is going down.
            Some(Err(_)) | None => Err(Error::Canceled),
        }
    }
}

async fn drive(
    target: Arc<Target>,
    id: String,
    request: SolveRequest,
    events: mpsc::Sender<Vec<BuildEvent>>,
) -> Result<Outcome, Error> {
    request.validate()?;
    let channel = target.dial().await?;
    let keys = Keys { credentials: request.credentials.clone(), secrets: request.secrets.clone() };
    let session = Session::open(channel.clone(), keys).await?;
    let wire = attrs::solve_request(&request, &id, session.id());
    let redactor = Redactor::new(&request.contexts);
    let tracker = Tracker::new(redactor.clone());
    let solve = Box::pin(run(channel, wire, tracker, events));
    let answer = with_session(solve, session).await?;
    answer
        .map(Outcome::from_response)
        .map_err(|status| Error::from_status(&status, &request, &redactor))
}

/// Runs `solve` while the session answers.
async fn with_session<T>(solve: impl Future<Output = T>, session: Session) -> Result<T, Error> {
    let mut solve = pin!(solve);
    // Both branches go on where they were: neither future is dropped until
    // this function returns.
    tokio::select! {
        biased;
        answer = &mut solve => return Ok(answer),
        () = session.serve() => {}
    }
    tokio::time::timeout(SESSION_LOST_GRACE, solve)
        .await
        .map_err(|_| Error::transport("BuildKit closed the session of a running solve"))
}

/// The solve and its status, together.
async fn run(
    channel: Channel,
    wire: proto::SolveRequest,
    tracker: Tracker,
    events: mpsc::Sender<Vec<BuildEvent>>,
) -> Result<proto::SolveResponse, tonic::Status> {
    let (over, is_over) = oneshot::channel();
    let mut control = dial::control(channel.clone());
    let request = proto::StatusRequest { r#ref: wire.r#ref.clone() };
    let messages = control.status(request).map_ok(Response::into_inner).try_flatten_stream();
    let status = follow(messages, tracker, events, is_over);
    let solve = async {
        let answer = dial::control(channel).solve(wire).await;
        let _ = over.send(());
        answer.map(Response::into_inner)
    };
    // Status is asked for first: a job that ended is no longer found.
    tokio::join!(status, solve).1
}

/// Passes on events until the status stream ends, which it does by itself soon
/// after the job. A reader that is slow is waited for; a stream that is, is not.
/// While the solve runs, messages are taken at our pace.
async fn follow(
    messages: impl Stream<Item = Result<proto::StatusResponse, tonic::Status>>,
    mut tracker: Tracker,
    events: mpsc::Sender<Vec<BuildEvent>>,
    is_over: oneshot::Receiver<()>,
) {
    let mut messages = pin!(messages);
    let mut is_over = pin!(is_over);
    let mut grace = None;
    let mut told = false;
    let mut pace = Pace::new();
    loop {
        let message = match grace {
            // Cancel-safe: `next` on a gRPC stream keeps what it has received, and
            // the pace is kept whoever waits for it.
            None => tokio::select! {
                message = async { pace.turn().await; messages.next().await } => message,
                _ = &mut is_over => {
                    grace = Some(if told { STATUS_GRACE } else { NO_STATUS_GRACE });
                    continue;
                }
            },
            Some(grace) => match tokio::time::timeout(grace, messages.next()).await {
                Ok(message) => message,
                Err(_) => return,
            },
        };
        match message {
            Some(Ok(message)) => {
                told = true;
                pace.took();
                if events.send(tracker.apply(message)).await.is_err() {
                    return;
                }
            }
            // What went wrong is in the solve's own answer.
            Some(Err(_)) | None => return,
        }
    }
}

impl Outcome {
    fn from_response(response: proto::SolveResponse) -> Self {
        let exporter_response: BTreeMap<String, String> =
            response.exporter_response.into_iter().collect();
        let digest = |key| exporter_response.get(key).and_then(|text: &String| text.parse().ok());
        Self {
            digest: digest("containerimage.digest"),
            config_digest: digest("containerimage.config.digest"),
            exporter_response,
        }
    }
}

#[cfg(test)]
mod tests;
