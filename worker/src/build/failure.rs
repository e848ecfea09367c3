//! The one place that turns a failed build into a job's failure.

use slipway_buildkit::{Error, SourceLocation};
use slipway_domain::Failure;
use slipway_domain::failure::{Cause, FailureKind, Location};

use slipway_registry::ReadError;

use crate::contexts;

/// Why a context could not be offered.
pub(super) fn of_context(error: contexts::Error) -> Failure {
    let kind = match &error {
        contexts::Error::Missing { .. } => FailureKind::ContextMissing,
        contexts::Error::Invalid { .. } | contexts::Error::Replaced { .. } => {
            FailureKind::ContextInvalid
        }
        contexts::Error::Store { .. } => FailureKind::StoreUnavailable,
    };
    explain(kind, &error)
}

/// Why an image that was pushed is not one for a snapshot.
pub(super) fn of_image(error: ReadError) -> Failure {
    let kind = match &error {
        ReadError::Platform { .. } => FailureKind::PlatformMismatch,
        ReadError::Store { .. } | ReadError::Damaged(_) => FailureKind::StoreUnavailable,
        ReadError::Manifest { .. } | ReadError::NoImage { .. } | ReadError::Config { .. } => {
            FailureKind::Internal
        }
    };
    explain(kind, &error)
}

/// The object store failed.
pub(super) fn of_store(error: slipway_blobstore::Error) -> Failure {
    explain(FailureKind::StoreUnavailable, &error)
}

/// Why a solve gave no image.
pub(super) fn of_build(error: Error) -> Failure {
    let kind = match &error {
        Error::ProcessFailed { .. } => FailureKind::RunFailed,
        Error::Dockerfile { .. } | Error::InvalidRequest(_) => FailureKind::DockerfileInvalid,
        Error::BaseImageNotFound { .. } | Error::Unauthorized { location: Some(_), .. } => {
            FailureKind::BaseImageUnavailable
        }
        Error::MissingCopySource { .. } => FailureKind::CopySourceMissing,
        Error::MissingSecret { .. } => FailureKind::SecretMissing,
        Error::BaseImageUnavailable { .. } => FailureKind::Internal,
        Error::PushFailed { .. }
        | Error::Unauthorized { location: None, .. }
        | Error::ContextUnavailable { .. }
        | Error::ContextMismatch { .. } => FailureKind::StoreUnavailable,
        Error::EndpointUnavailable { .. }
        | Error::Transport { .. }
        | Error::MachineFailed { .. }
        | Error::Canceled => FailureKind::BuildkitUnavailable,
        // BuildKit has failures without a name; most are the Dockerfile's, and
        // those that point at it certainly are.
        Error::Other { location: Some(_), .. } => FailureKind::DockerfileInvalid,
        Error::Other { location: None, .. } => FailureKind::Internal,
    };
    let exit_code = match &error {
        Error::ProcessFailed { exit_code, .. } => Some(*exit_code),
        _ => None,
    };
    let location = error.location().map(location);
    Failure { location, exit_code, ..explain(kind, &error) }.bounded()
}

/// The user reads what happened; what is behind it is for our log alone.
fn explain(kind: FailureKind, error: &dyn std::error::Error) -> Failure {
    if kind.cause() == Cause::Infrastructure {
        let error = slipway_runtime::telemetry::chain(error);
        tracing::warn!(error, "an attempt fails");
    }
    Failure::new(kind, error.to_string())
}

fn location(place: &SourceLocation) -> Location {
    Location { line: place.line, column: Some(place.column), snippet: place.snippet.clone() }
}
