//! Why a solve gave no result.
//!
//! Owns the typed reasons and which of them are worth another try. Refuses the
//! daemon's internals: stack traces and command lines are never read, addresses
//! of build contexts never shown.

use std::fmt;

use crate::endpoint::Endpoint;
use crate::redact::Redactor;
use crate::request::{InvalidRequest, SolveRequest};

mod classify;
mod details;

/// Why a solve gave no result. Texts are fit to be shown to the build's owner.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A `RUN` ended with an exit code other than 0.
    #[error("`{command}` failed with exit code {exit_code}{}", At(.location))]
    ProcessFailed {
        /// The command as the Dockerfile has it, without the shell around it.
        command: String,
        /// Its exit code; 137 also means that it was killed.
        exit_code: u32,
        /// The instruction.
        location: Option<SourceLocation>,
    },
    /// The Dockerfile is malformed, or asks for what cannot be.
    #[error("{message}{}", At(.location))]
    Dockerfile {
        /// What is wrong.
        message: String,
        /// The instruction, unless the fault is in no single one.
        location: Option<SourceLocation>,
    },
    /// The registry does not have the image of a `FROM` or `COPY --from`, or
    /// does not show it to us.
    #[error("image `{reference}` was not found{}", At(.location))]
    BaseImageNotFound {
        /// The image, in full.
        reference: String,
        /// The instruction.
        location: Option<SourceLocation>,
    },
    /// The registry of an image could not be reached, or failed.
    #[error("image `{reference}` could not be fetched: {message}{}", At(.location))]
    BaseImageUnavailable {
        /// The image, in full.
        reference: String,
        /// What the registry, or the way to it, said.
        message: String,
        /// The instruction.
        location: Option<SourceLocation>,
    },
    /// A `COPY` or `ADD` names what its source does not hold.
    #[error("`{path}` was not found in what it is copied from{}", At(.location))]
    MissingCopySource {
        /// The path.
        path: String,
        /// The instruction.
        location: Option<SourceLocation>,
    },
    /// A `RUN` requires a secret that the request does not have.
    #[error("secret `{id}` was not given{}", At(.location))]
    MissingSecret {
        /// Id of the secret.
        id: String,
        /// The instruction.
        location: Option<SourceLocation>,
    },
    /// A registry wants other credentials than we have.
    #[error("registry refused the credentials for `{reference}`{}", At(.location))]
    Unauthorized {
        /// The image, or the repository that was pushed to.
        reference: String,
        /// The instruction, if it was a pull.
        location: Option<SourceLocation>,
    },
    /// The image was built and could not be pushed.
    #[error("image could not be pushed: {message}")]
    PushFailed {
        /// What the registry, or the way to it, said.
        message: String,
        /// Whether the registry failed rather than refused.
        is_retryable: bool,
    },
    /// A build context could not be fetched.
    #[error("build context could not be fetched: {message}")]
    ContextUnavailable {
        /// What happened; contexts are called by their number.
        message: String,
    },
    /// What was fetched as a build context is not what the request promised.
    #[error("build context does not have the digest that was promised: {message}")]
    ContextMismatch {
        /// What was promised and what came. An answer of 404 has the digest of
        /// nothing, `sha256:e3b0c442…`.
        message: String,
    },
    /// The machine that BuildKit runs on is short of something.
    #[error("BuildKit cannot go on: {reason}")]
    MachineFailed {
        /// What the system said; not where, which is the daemon's own affair.
        reason: &'static str,
    },
    /// The solve was stopped.
    #[error("build was cancelled")]
    Canceled,
    /// The request cannot be expressed.
    #[error("solve request was refused")]
    InvalidRequest(#[source] InvalidRequest),
    /// Nothing usable answers at the endpoint.
    #[error("BuildKit at `{endpoint}` is unavailable")]
    EndpointUnavailable {
        /// Where we looked.
        endpoint: Endpoint,
        /// What came instead.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The connection was lost, or BuildKit went away.
    #[error("connection to BuildKit failed: {message}")]
    Transport {
        /// What the connection said.
        message: String,
    },
    /// BuildKit failed in a way we have no name for.
    #[error("{message}{}", At(.location))]
    Other {
        /// What BuildKit said.
        message: String,
        /// The instruction, if BuildKit named one.
        location: Option<SourceLocation>,
    },
}

/// A place in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLocation {
    /// Name of the file.
    pub file: String,
    /// First line, from 1.
    pub line: u32,
    /// Last line, not before the first.
    pub end_line: u32,
    /// Column in the first line, in characters from 1: where the fault is, or
    /// else where the instruction begins.
    pub column: u32,
    /// The lines, joined by line breaks.
    pub snippet: String,
}

impl Error {
    /// Whether the same request may well succeed if it is made again.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::EndpointUnavailable { .. }
            | Self::Transport { .. }
            | Self::ContextUnavailable { .. }
            | Self::MachineFailed { .. }
            | Self::BaseImageUnavailable { .. } => true,
            Self::PushFailed { is_retryable, .. } => *is_retryable,
            Self::ProcessFailed { .. }
            | Self::Dockerfile { .. }
            | Self::BaseImageNotFound { .. }
            | Self::MissingCopySource { .. }
            | Self::MissingSecret { .. }
            | Self::Unauthorized { .. }
            | Self::ContextMismatch { .. }
            | Self::Canceled
            | Self::InvalidRequest(_)
            | Self::Other { .. } => false,
        }
    }

    /// Where in the Dockerfile it happened.
    pub fn location(&self) -> Option<&SourceLocation> {
        match self {
            Self::ProcessFailed { location, .. }
            | Self::Dockerfile { location, .. }
            | Self::BaseImageNotFound { location, .. }
            | Self::BaseImageUnavailable { location, .. }
            | Self::MissingCopySource { location, .. }
            | Self::MissingSecret { location, .. }
            | Self::Unauthorized { location, .. }
            | Self::Other { location, .. } => location.as_ref(),
            Self::PushFailed { .. }
            | Self::ContextUnavailable { .. }
            | Self::ContextMismatch { .. }
            | Self::MachineFailed { .. }
            | Self::Canceled
            | Self::InvalidRequest(_)
            | Self::EndpointUnavailable { .. }
            | Self::Transport { .. } => None,
        }
    }

    pub(crate) fn transport(message: impl Into<String>) -> Self {
        Self::Transport { message: message.into() }
    }

    /// The answer `status` to `request`, in our words.
    pub(crate) fn from_status(
        status: &tonic::Status,
        request: &SolveRequest,
        redactor: &Redactor,
    ) -> Self {
        classify::classify(status, request, redactor)
    }
}

impl From<InvalidRequest> for Error {
    fn from(invalid: InvalidRequest) -> Self {
        Self::InvalidRequest(invalid)
    }
}

impl fmt::Display for SourceLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// ` at FILE:LINE:COLUMN`, or nothing.
struct At<'a>(&'a Option<SourceLocation>);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(location) => write!(f, " at {location}"),
            None => Ok(()),
        }
    }
}
