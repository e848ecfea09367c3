//! Why an attempt failed, whose fault it was, and what to do about it.

use serde::{Deserialize, Serialize};

/// The reason an attempt ended without an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// What went wrong; decides between ending the job and trying again.
    pub kind: FailureKind,
    /// For people: what happened and what to do. Never holds a secret.
    pub message: String,
    /// The place in the Dockerfile, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Exit code of the process that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "exit_code")]
    pub exit_code: Option<u32>,
}

/// Most characters of a message.
pub const MAX_MESSAGE: usize = 10_000;
/// Most characters of the first line of a message that is cut.
const MAX_FIRST_LINE: usize = 1_000;
/// Most characters of the piece of a Dockerfile.
const MAX_SNIPPET: usize = 4_096;
/// Stands for what is left out.
const GAP: &str = "\n…\n";
const GIB: u64 = 1 << 30;

impl Failure {
    /// A failure without a place in the Dockerfile. The message is cut as
    /// [`Failure::bounded`] says.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), location: None, exit_code: None }.bounded()
    }

    /// An image of `size` bytes where at most `limit` are allowed, in the words
    /// of Daytona's contract. The size is rounded up, so that it never reads as
    /// one that is allowed.
    #[must_use]
    pub fn size_exceeded(size: u64, limit: u64) -> Self {
        let hundredths = (u128::from(size) * 100).div_ceil(u128::from(GIB));
        let (whole, part, limit) = (hundredths / 100, hundredths % 100, limit / GIB);
        let message = format!(
            "Snapshot size ({whole}.{part:02}GB) exceeds maximum allowed size of {limit}GB"
        );
        Self::new(FailureKind::TooLarge, message)
    }

    /// With texts of a size that a record can carry: of a message that is longer
    /// than [`MAX_MESSAGE`] characters the first line, which says what failed, and
    /// the end, which says why, are kept.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Some(short) = first_line_and_tail(&self.message) {
            self.message = short;
        }
        if let Some(location) = &mut self.location
            && let Some((end, _)) = location.snippet.char_indices().nth(MAX_SNIPPET)
        {
            location.snippet.truncate(end);
            location.snippet.push_str(" …");
        }
        self
    }
}

/// A text in [`MAX_MESSAGE`] characters, if it has more.
fn first_line_and_tail(text: &str) -> Option<String> {
    let count = text.chars().count();
    if count <= MAX_MESSAGE {
        return None;
    }
    let mut short: String = text.chars().take_while(|c| *c != '\n').take(MAX_FIRST_LINE).collect();
    let room = MAX_MESSAGE - short.chars().count() - GAP.chars().count();
    short.push_str(GAP);
    short.extend(text.chars().skip(count - room));
    Some(short)
}

/// A place in a Dockerfile, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// First line.
    pub line: u32,
    /// Column, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// The text of the lines meant.
    pub snippet: String,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A RUN step ended with a non-zero exit code.
    RunFailed,
    /// The Dockerfile cannot be read or asks for what does not exist.
    DockerfileInvalid,
    /// A base image does not exist or may not be read.
    BaseImageUnavailable,
    /// A COPY or ADD names a file that the context lacks.
    CopySourceMissing,
    /// The build needs a secret that was not given.
    SecretMissing,
    /// The build context was never uploaded, or not for this organization.
    ContextMissing,
    /// The build context is not a tar, or names paths outside itself.
    ContextInvalid,
    /// The result is not for the platform that was asked for.
    PlatformMismatch,
    /// The image to pull does not exist.
    ImageNotFound,
    /// The registry does not let the credentials, or nobody, read the image.
    RegistryUnauthorized,
    /// The image is of a kind that cannot be pulled: no image at all, an
    /// obsolete form, another platform.
    ImageUnsupported,
    /// The registry does not send what it promises.
    ImageInvalid,
    /// The result, or the image to pull, is larger than allowed.
    TooLarge,
    /// It took longer than allowed.
    TimedOut,
    /// What the job asks for makes no sense to a worker.
    JobInvalid,
    /// Somebody cancelled the job.
    Cancelled,
    /// BuildKit went away or could not be reached.
    BuildkitUnavailable,
    /// The registry to pull from is busy, fails or cannot be reached.
    RegistryUnavailable,
    /// The object store or the registry routes failed.
    StoreUnavailable,
    /// The worker died or lost its lease.
    WorkerLost,
    /// The worker is shutting down and hands the job back.
    HandedBack,
    /// The message of the attempt cannot be read, and was thrown away.
    MessageUnreadable,
    /// A fault of Slipway itself.
    Internal,
}

impl FailureKind {
    /// The word for it in records, messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RunFailed => "run_failed",
            Self::DockerfileInvalid => "dockerfile_invalid",
            Self::BaseImageUnavailable => "base_image_unavailable",
            Self::CopySourceMissing => "copy_source_missing",
            Self::SecretMissing => "secret_missing",
            Self::ContextMissing => "context_missing",
            Self::ContextInvalid => "context_invalid",
            Self::PlatformMismatch => "platform_mismatch",
            Self::ImageNotFound => "image_not_found",
            Self::RegistryUnauthorized => "registry_unauthorized",
            Self::ImageUnsupported => "image_unsupported",
            Self::ImageInvalid => "image_invalid",
            Self::TooLarge => "too_large",
            Self::TimedOut => "timed_out",
            Self::JobInvalid => "job_invalid",
            Self::Cancelled => "cancelled",
            Self::BuildkitUnavailable => "buildkit_unavailable",
            Self::RegistryUnavailable => "registry_unavailable",
            Self::StoreUnavailable => "store_unavailable",
            Self::WorkerLost => "worker_lost",
            Self::HandedBack => "handed_back",
            Self::MessageUnreadable => "message_unreadable",
            Self::Internal => "internal",
        }
    }
}

/// Whose doing a failure was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The user's own input: the same input fails again, so the job ends.
    Input,
    /// The infrastructure: another attempt may succeed.
    Infrastructure,
}

impl FailureKind {
    /// Whose doing it was.
    #[must_use]
    pub const fn cause(self) -> Cause {
        match self {
            Self::RunFailed
            | Self::DockerfileInvalid
            | Self::BaseImageUnavailable
            | Self::CopySourceMissing
            | Self::SecretMissing
            | Self::ContextMissing
            | Self::ContextInvalid
            | Self::PlatformMismatch
            | Self::ImageNotFound
            | Self::RegistryUnauthorized
            | Self::ImageUnsupported
            | Self::ImageInvalid
            | Self::TooLarge
            | Self::TimedOut
            | Self::JobInvalid
            | Self::Cancelled => Cause::Input,
            Self::BuildkitUnavailable
            | Self::RegistryUnavailable
            | Self::StoreUnavailable
            | Self::WorkerLost
            | Self::HandedBack
            | Self::MessageUnreadable
            | Self::Internal => Cause::Infrastructure,
        }
    }

    /// Whether the Dockerfile itself failed, which clients see as the state
    /// `build_failed` instead of `error`.
    #[must_use]
    pub const fn is_build_failure(self) -> bool {
        matches!(
            self,
            Self::RunFailed
                | Self::DockerfileInvalid
                | Self::BaseImageUnavailable
                | Self::CopySourceMissing
                | Self::SecretMissing
        )
    }

    /// Whether another attempt may start at once, since the worker that held
    /// this one is gone and waiting would help nobody.
    #[must_use]
    pub const fn retries_at_once(self) -> bool {
        matches!(self, Self::WorkerLost | Self::HandedBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_keeps_its_first_line_and_its_end() {
        let exact = "é".repeat(MAX_MESSAGE);
        assert_eq!(Failure::new(FailureKind::RunFailed, exact.clone()).message, exact);

        let long = format!("RUN make failed\n{}the reason at last", "é\n".repeat(MAX_MESSAGE));
        let cut = Failure::new(FailureKind::RunFailed, long).message;
        assert_eq!(cut.chars().count(), MAX_MESSAGE);
        assert!(cut.starts_with("RUN make failed\n…\n"), "{:.40}", cut);
        assert!(cut.ends_with("é\nthe reason at last"));
        assert_eq!(Failure::new(FailureKind::RunFailed, cut.clone()).message, cut, "cut once");

        let one_line = format!("begin {} end", "x".repeat(2 * MAX_MESSAGE));
        let cut = Failure::new(FailureKind::RunFailed, one_line).message;
        assert_eq!(cut.chars().count(), MAX_MESSAGE);
        assert!(cut.starts_with("begin x") && cut.ends_with("x end"));
    }

    #[test]
    fn a_long_piece_of_a_dockerfile_is_cut() {
        let snippet = "é".repeat(MAX_SNIPPET + 1);
        let location = Some(Location { line: 1, column: None, snippet });
        let failure = Failure { location, ..Failure::new(FailureKind::RunFailed, "x") }.bounded();
        let snippet = failure.location.map(|location| location.snippet).unwrap_or_default();
        assert_eq!(snippet, format!("{} …", "é".repeat(MAX_SNIPPET)));
    }

    #[test]
    fn a_size_that_is_too_large_never_reads_as_allowed() {
        for (size, text) in [
            (GIB * 20 + 1, "Snapshot size (20.01GB) exceeds maximum allowed size of 20GB"),
            (GIB * 41 / 2, "Snapshot size (20.50GB) exceeds maximum allowed size of 20GB"),
            (GIB * 1024, "Snapshot size (1024.00GB) exceeds maximum allowed size of 20GB"),
        ] {
            let failure = Failure::size_exceeded(size, 20 * GIB);
            assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::TooLarge, text));
        }
        assert!(!FailureKind::TooLarge.is_build_failure(), "its state is `error`");
    }

    #[test]
    fn the_word_of_a_kind_is_the_one_in_records() {
        for kind in
            [FailureKind::RunFailed, FailureKind::WorkerLost, FailureKind::BuildkitUnavailable]
        {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
    }
}
