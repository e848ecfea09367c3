//! The one place that turns a failed build into a job's failure.

use slipway_buildkit::{Error, SourceLocation};
use slipway_domain::Failure;
use slipway_domain::failure::{Cause, FailureKind, Location};

use slipway_registry::ReadError;

use crate::contexts;

/// Characters of a reason or of a piece of a Dockerfile.
const MAX_TEXT: usize = 4096;

/// Why a context could not be offered.
pub(super) fn of_context(error: contexts::Error) -> Failure {
    let kind = match &error {
        contexts::Error::Missing { .. } => FailureKind::ContextMissing,
        contexts::Error::Invalid { .. } => FailureKind::ContextInvalid,
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
        Error::EndpointUnavailable { .. } | Error::Transport { .. } | Error::Canceled => {
            FailureKind::BuildkitUnavailable
        }
        // BuildKit has failures without a name; most are the Dockerfile's, and
        // those that point at it certainly are.
        Error::Other { location: Some(_), .. } => FailureKind::DockerfileInvalid,
        Error::Other { location: None, .. } => FailureKind::Internal,
    };
    let exit_code = match &error {
        Error::ProcessFailed { exit_code, .. } => Some(*exit_code),
        _ => None,
    };
    Failure { location: error.location().map(location), exit_code, ..explain(kind, &error) }
}

/// The user reads what happened; what is behind it is for our log alone. Both
/// are bounded, since the record carries them.
fn explain(kind: FailureKind, error: &dyn std::error::Error) -> Failure {
    if kind.cause() == Cause::Infrastructure {
        let error = slipway_runtime::telemetry::chain(error);
        tracing::warn!(error, "an attempt fails");
    }
    Failure::new(kind, bounded(&error.to_string()))
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

fn location(place: &SourceLocation) -> Location {
    Location { line: place.line, column: Some(place.column), snippet: bounded(&place.snippet) }
}
