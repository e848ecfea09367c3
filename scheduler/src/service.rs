//! NATS micro services: `slipway.submit` and `slipway.cancel` for clients, `slipway.authorize` for
//! the regions' registries, `slipway.credentials` for their workers.

use std::time::Duration;

use jiff::Timestamp;
use slipway_api::own::{AuthorizeRequest, CancelRequest, Job, SubmitRequest, SubmitResponse};
use slipway_bus::services::{Error, Fault, Offer, Request, Service};
use slipway_bus::{Bus, TraceParent, topology};
use slipway_domain::credential::CredentialsRequest;
use slipway_domain::organization::Permission;
use tracing::Instrument as _;

use crate::api::{ApiError, App, Caller, jobs, present};
use crate::{operate, registry, submit, trace};

/// Longest time that a submission may take before its caller is told to retry.
const DEADLINE: Duration = Duration::from_secs(30);

/// Offers the services until they are dropped.
///
/// # Errors
/// They cannot be registered.
pub async fn start(bus: &Bus, app: &App) -> Result<[Service; 4], Error> {
    let submitter = app.clone();
    let submit = bus.serve(offer("slipway-submit", "Submits a snapshot", topology::SUBMIT), {
        move |request: Request<SubmitRequest>| {
            let app = submitter.clone();
            async move {
                let parent = request.trace.as_ref().map(TraceParent::as_str);
                let span = trace::request(topology::SUBMIT, parent);
                let work = submit_for_key(&app, request.body).instrument(span);
                match tokio::time::timeout(DEADLINE, work).await {
                    Ok(answer) => answer.map_err(fault),
                    Err(_) => Err(Fault::new(503, "not stored in time, try again")),
                }
            }
        }
    });
    let canceller = app.clone();
    let cancel = bus.serve(offer("slipway-cancel", "Cancels a job", topology::CANCEL), {
        move |request: Request<CancelRequest>| {
            let app = canceller.clone();
            async move {
                let work = cancel_for_key(&app, request.body);
                match tokio::time::timeout(DEADLINE, work).await {
                    Ok(answer) => answer.map_err(fault),
                    Err(_) => Err(Fault::new(503, "not stored in time, try again")),
                }
            }
        }
    });
    let authorizer = app.clone();
    let what = "Says whose an API key is";
    let authorize = bus.serve(offer("slipway-authorize", what, topology::AUTHORIZE), {
        move |request: Request<AuthorizeRequest>| {
            let app = authorizer.clone();
            async move { registry::authorize(&app, request.body).await }
        }
    });
    let keeper = app.registries.clone();
    let what = "Gives a job's registry credentials, sealed to its region";
    let credentials = bus.serve(offer("slipway-credentials", what, topology::CREDENTIALS), {
        move |request: Request<CredentialsRequest>| {
            let answer = keeper.for_job(&request.body).map_err(|error| fault(error.into()));
            std::future::ready(answer)
        }
    });
    Ok([submit.await?, cancel.await?, authorize.await?, credentials.await?])
}

pub(crate) fn offer(name: &str, description: &str, subject: &str) -> Offer {
    Offer {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: description.to_owned(),
        subject: subject.to_owned(),
    }
}

async fn submit_for_key(app: &App, request: SubmitRequest) -> Result<SubmitResponse, ApiError> {
    let caller = Caller::of_key(&app.view, &request.api_key, Timestamp::now())?;
    caller.must(Permission::WriteSnapshots)?;
    let snapshot =
        submit::submit(app, caller.organization, submit::new_id(), request.snapshot).await?;
    Ok(SubmitResponse { snapshot_id: snapshot.id.to_string(), job_id: snapshot.job.to_string() })
}

async fn cancel_for_key(app: &App, request: CancelRequest) -> Result<Job, ApiError> {
    let caller = Caller::of_key(&app.view, &request.api_key, Timestamp::now())?;
    caller.must(Permission::WriteSnapshots)?;
    let job = jobs::find(app, &caller.organization, &request.job_id)?.id;
    operate::cancel(app, job).await?;
    let job = jobs::find(app, &caller.organization, &request.job_id)?;
    Ok(present::job(&job, &app.view, &app.queue))
}

/// The same status and words as over HTTP, with the stable code in front.
fn fault(error: ApiError) -> Fault {
    Fault::new(error.status.as_u16(), format!("{}: {}", error.code, error.message))
}
