//! What people do to jobs: cancel one, redrive or drop a dead one.
//!
//! Owns the words for what cannot be done. Refuses the decision itself, which is
//! the lifecycle's. Invariant: before a job is redriven nothing is left in the
//! stream of its earlier life, so that no late word of it mixes with the next.

use axum::http::StatusCode;
use slipway_domain::JobId;
use slipway_domain::job::{IllegalTransition, JobEvent, JobRecord, JobState, LogState};
use slipway_domain::snapshot::SnapshotState;

use crate::api::{ApiError, App};
use crate::ledger::Moved;

/// Cancels a job: it is recorded when this returns, and the worker that holds it
/// is told at once.
///
/// # Errors
/// 409 if it has ended in another way, 503 if nothing can be written.
pub async fn cancel(app: &App, job: JobId) -> Result<(), ApiError> {
    app.ledger.check_connected()?;
    apply(app, job, JobEvent::Cancel).await?;
    let state = app.view.records().job(&job).map(|entry| entry.value.state.name());
    match state {
        Some("cancelled") | None => Ok(()),
        Some(state) => {
            let message = format!("job `{job}` has ended: it is {state}, and cannot be cancelled");
            Err(ApiError::new(StatusCode::CONFLICT, "job_over", message))
        }
    }
}

/// Gives a dead job a fresh set of attempts; its snapshot is `pending` again.
///
/// # Errors
/// 409 if it is not dead or its snapshot is being removed, 503 if its log is not
/// stored yet or nothing can be written.
pub async fn redrive(app: &App, job: &JobRecord) -> Result<(), ApiError> {
    app.ledger.check_connected()?;
    let (id, region) = (job.id, &job.region);
    // Looked at before the record is read afresh: if the job is dead and its log
    // archived after this, then nothing up to here belongs to a life to come.
    let last = app.logs.last_chunk(id, region).await?;
    app.ledger.refresh(id).await?;
    let fresh = app.view.records().job(&id).map(|entry| entry.value);
    let fresh = fresh.ok_or_else(|| ApiError::job_not_found(&id.to_string()))?;
    let wanted = app
        .view
        .records()
        .followers(id)
        .any(|snapshot| snapshot.value.state != SnapshotState::Removing);
    if !wanted {
        let message = format!("the snapshot of job `{id}` is being removed");
        return Err(ApiError::new(StatusCode::CONFLICT, "snapshot_gone", message));
    }
    let settled = matches!(fresh.state, JobState::Dead { .. }) && fresh.log == LogState::Archived;
    if let (true, Some(last)) = (settled, last) {
        app.logs.purge(id, region, last).await?;
    }
    apply(app, id, JobEvent::Redrive).await?;
    tracing::info!(job.id = %id, "a dead job is tried once more");
    Ok(())
}

/// Takes a dead job from the list; its snapshot stays as it is.
///
/// # Errors
/// 409 if it is not dead, 503 if nothing can be written.
pub async fn discard(app: &App, job: JobId) -> Result<(), ApiError> {
    app.ledger.check_connected()?;
    apply(app, job, JobEvent::Drop).await
}

async fn apply(app: &App, job: JobId, event: JobEvent) -> Result<(), ApiError> {
    match app.ledger.move_job(job, event).await? {
        Moved::Applied => Ok(()),
        Moved::Unknown => Err(ApiError::job_not_found(&job.to_string())),
        Moved::Refused(refused) => {
            let message = refused.to_string();
            Err(match refused {
                IllegalTransition::Unsettled { .. } => {
                    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "job_unsettled", message)
                }
                IllegalTransition::NotDead { .. }
                | IllegalTransition::StaleAttempt { .. }
                | IllegalTransition::FutureAttempt { .. }
                | IllegalTransition::OtherClaim { .. } => {
                    ApiError::new(StatusCode::CONFLICT, "job_not_dead", message)
                }
            })
        }
    }
}
