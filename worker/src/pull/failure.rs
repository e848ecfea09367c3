//! The one place that turns what went wrong in a pull into a job's failure.

use slipway_domain::Failure;
use slipway_domain::failure::FailureKind;
use slipway_registry::{DepositError, LookupError};
use slipway_runtime::telemetry::chain;
use slipway_source::{Error, Fault};

/// Why the source registry gave no image.
pub(super) fn of_source(error: Error) -> Failure {
    let kind = kind(&error);
    let message = match error.fault() {
        Fault::Missing => format!("{}: check its name and tag", chain(&error)),
        Fault::Rights => {
            format!("{}: check the image's name, or add a credential for it", chain(&error))
        }
        Fault::Unsupported | Fault::TooLarge | Fault::Registry | Fault::Unavailable => {
            chain(&error)
        }
    };
    Failure::new(kind, message)
}

fn kind(error: &Error) -> FailureKind {
    match error.fault() {
        Fault::Missing => FailureKind::ImageNotFound,
        Fault::Rights => FailureKind::RegistryUnauthorized,
        Fault::Unsupported => FailureKind::ImageUnsupported,
        Fault::TooLarge => FailureKind::TooLarge,
        Fault::Registry => FailureKind::ImageInvalid,
        Fault::Unavailable => FailureKind::RegistryUnavailable,
    }
}

/// Why a blob did not get into the store: its source, its content, or the
/// store.
pub(super) fn of_store(error: slipway_blobstore::Error) -> Failure {
    match &error {
        slipway_blobstore::Error::Body { source, .. } => match source.downcast_ref::<Error>() {
            Some(source) => Failure::new(kind(source), chain(source)),
            None => Failure::new(FailureKind::Internal, chain(&error)),
        },
        slipway_blobstore::Error::Mismatch { source, .. } => {
            let text = format!("the registry does not send what its manifest promises: {source}");
            Failure::new(FailureKind::ImageInvalid, text)
        }
        _ => Failure::new(FailureKind::StoreUnavailable, chain(&error)),
    }
}

/// Why the region's repository did not take the image.
pub(super) fn of_deposit(error: DepositError) -> Failure {
    Failure::new(FailureKind::StoreUnavailable, chain(&error))
}

/// Why the region's registry could not be read.
pub(super) fn of_lookup(error: LookupError) -> Failure {
    Failure::new(FailureKind::StoreUnavailable, chain(&error))
}
