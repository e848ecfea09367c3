//! From a failed call to a typed reason.
//!
//! BuildKit answers nearly every failed build with the code `Unknown`, so the
//! details decide first (exit code, place in the Dockerfile, vertex) and the
//! text only where there are none. The texts are those of BuildKit 0.13 to
//! 0.25; one that changes falls back to a wider reason, never to a wrong one.

use crate::error::details::{Details, Source};
use crate::error::{Error, SourceLocation};
use crate::redact::Redactor;
use crate::request::SolveRequest;
use slipway_oci::Digest;

/// The reason in `status`, the answer to `request`.
pub(super) fn classify(
    status: &tonic::Status,
    request: &SolveRequest,
    redactor: &Redactor,
) -> Error {
    let text = status.message().trim_start_matches("failed to solve: ");
    if is_transport(status) {
        return Error::transport(redactor.message(text));
    }
    let failure = Failure { text, details: Details::of(status), redactor };
    // From the surest sign to the vaguest.
    failure
        .process()
        .or_else(|| failure.canceled(status.code()))
        .or_else(|| failure.push())
        .or_else(|| failure.machine())
        .or_else(|| failure.base_image())
        .or_else(|| failure.context(request))
        .or_else(|| failure.secret())
        .or_else(|| failure.copy_source())
        .or_else(|| failure.dockerfile())
        .unwrap_or_else(|| failure.other())
}

/// A failed call, half read.
struct Failure<'a> {
    text: &'a str,
    details: Details,
    redactor: &'a Redactor,
}

/// Errors of the connection come with a local cause, or as these texts when a
/// daemon goes away in mid-call.
fn is_transport(status: &tonic::Status) -> bool {
    let text = status.message();
    std::error::Error::source(status).is_some()
        || status.code() == tonic::Code::Unavailable
        || text.contains("h2 protocol error")
        || text.contains("no active session for")
        || text.ends_with("transport is closing")
}

impl Failure<'_> {
    fn process(&self) -> Option<Error> {
        let exit_code = self.details.exit_code?;
        let command = quoted(self.text).unwrap_or_default();
        let command = command.strip_prefix("/bin/sh -c ").unwrap_or(&command);
        let command = self.redactor.message(command.trim_end());
        Some(Error::ProcessFailed { command, exit_code, location: self.location(None) })
    }

    fn canceled(&self, code: tonic::Code) -> Option<Error> {
        let canceled = code == tonic::Code::Cancelled || self.text.ends_with("context canceled");
        canceled.then_some(Error::Canceled)
    }

    fn push(&self) -> Option<Error> {
        let (repository, reason) = self.text.strip_prefix("failed to push ")?.split_once(": ")?;
        Some(match http_status(reason) {
            Some(401 | 403) => {
                Error::Unauthorized { reference: self.redactor.line(repository), location: None }
            }
            status => Error::PushFailed {
                message: self.redactor.message(reason),
                is_retryable: status.is_none_or(is_passing),
            },
        })
    }

    /// What the system of BuildKit's machine refuses ends the message, whatever
    /// instruction it struck.
    fn machine(&self) -> Option<Error> {
        const SIGNS: [&str; 5] = [
            "no space left on device",
            "disk quota exceeded",
            "input/output error",
            "cannot allocate memory",
            "too many open files",
        ];
        let reason = SIGNS.into_iter().find(|sign| self.text.ends_with(sign))?;
        Some(Error::MachineFailed { reason })
    }

    fn base_image(&self) -> Option<Error> {
        let (reference, reason) = match after(self.text, "failed to resolve source metadata for ") {
            // A reference has no `: `, its port and tag notwithstanding.
            Some(rest) => rest.split_once(": ")?,
            // A layer, later: the message does not say of which image.
            None if self.text.contains("httpReadSeeker") => {
                (self.image_of_instruction()?, self.text)
            }
            None => return None,
        };
        let location = self.location(Some(familiar(reference)));
        let status = http_status(reason);
        let reference = self.redactor.line(reference);
        // What a rule of the request denies is as good as not there.
        if reason.contains("pull access denied")
            || reason.contains("denied by policy")
            || status == Some(404)
            || (status.is_none() && reason.ends_with("not found"))
        {
            return Some(Error::BaseImageNotFound { reference, location });
        }
        if matches!(status, Some(401 | 403)) {
            return Some(Error::Unauthorized { reference, location });
        }
        if status.is_some_and(is_passing) || is_network(reason) {
            let message = self.redactor.message(reason);
            return Some(Error::BaseImageUnavailable { reference, message, location });
        }
        let message = format!("image `{reference}`: {}", self.redactor.message(reason));
        Some(Error::Dockerfile { message, location })
    }

    /// Contexts have no place in the Dockerfile; an `ADD` of a URL has.
    fn context(&self, request: &SolveRequest) -> Option<Error> {
        if self.details.source.is_some() {
            return None;
        }
        if let Some(digests) = after(self.text, "digest mismatch ") {
            let (got, wanted) = digests.split_once(": ")?;
            // BuildKit before 0.20 takes the body of an error for the archive.
            if got == Digest::sha256("").to_string() {
                let message = format!("nothing came for {wanted}");
                return Some(Error::ContextUnavailable { message });
            }
            let message = format!("expected {wanted}, got {got}");
            return Some(Error::ContextMismatch { message });
        }
        let is_of_context = request.contexts.iter().any(|context| self.text.contains(&context.url));
        is_of_context
            .then(|| Error::ContextUnavailable { message: self.redactor.message(self.text) })
    }

    fn secret(&self) -> Option<Error> {
        let id = after(self.text, "secret ")?.strip_suffix(": not found")?;
        let location = self.location(Some(id));
        Some(Error::MissingSecret { id: self.redactor.line(id), location })
    }

    fn copy_source(&self) -> Option<Error> {
        self.details.source.as_ref()?;
        let found = |path: &str| {
            let path = path.to_owned();
            let location = self.location(Some(path.trim_start_matches('/')));
            Some(Error::MissingCopySource { path: self.redactor.line(&path), location })
        };
        let is_checksum = self.text.contains("failed to compute cache key")
            || self.text.contains("failed to calculate checksum of ref");
        if is_checksum && self.text.ends_with("\": not found") {
            let from = self.text.trim_end_matches("\": not found").rfind('"')?;
            return found(&quoted(&self.text[from..])?);
        }
        let path = self.text.strip_suffix(": no such file or directory")?;
        let path = path.split_once("/buildkit-mount")?.1;
        found(path.trim_start_matches(|c: char| c.is_ascii_digit()))
    }

    /// A fault that was found before anything ran.
    fn dockerfile(&self) -> Option<Error> {
        const WITHOUT_PLACE: [&str; 3] =
            ["target stage ", "the Dockerfile cannot be empty", "dockerfile parse error"];
        let is_dockerfile = match &self.details.source {
            Some(_) => !self.details.has_vertex,
            None => WITHOUT_PLACE.iter().any(|start| self.text.starts_with(start)),
        };
        let message = match self.text.strip_prefix("dockerfile parse error on line ") {
            Some(rest) => rest.split_once(": ").map_or(rest, |(_, message)| message),
            None => self.text,
        };
        let location = self.location(blamed(message).as_deref());
        is_dockerfile
            .then(|| Error::Dockerfile { message: self.redactor.message(message), location })
    }

    fn other(&self) -> Error {
        Error::Other { message: self.redactor.message(self.text), location: self.location(None) }
    }

    /// The image that the instruction at fault starts from.
    fn image_of_instruction(&self) -> Option<&str> {
        let source = self.details.source.as_ref()?;
        let mut words = source.first_line().split_whitespace();
        let is_from = words.next()?.eq_ignore_ascii_case("from");
        is_from.then(|| words.find(|word| !word.starts_with("--")))?
    }

    /// Where it happened, at the column of `blamed` if that can be found.
    fn location(&self, blamed: Option<&str>) -> Option<SourceLocation> {
        let source = self.details.source.as_ref()?;
        let (line, end_line) = source.lines;
        let skipped = usize::try_from(line - 1).unwrap_or(usize::MAX);
        let length = usize::try_from(end_line - line + 1).unwrap_or(1);
        let lines: Vec<&str> = source.text.lines().skip(skipped).take(length).collect();
        Some(SourceLocation {
            file: self.redactor.line(&source.file),
            line,
            end_line,
            column: source.column.unwrap_or_else(|| column(source.first_line(), blamed)),
            snippet: self.redactor.message(&lines.join("\n")),
        })
    }
}

impl Source {
    fn first_line(&self) -> &str {
        let skipped = usize::try_from(self.lines.0 - 1).unwrap_or(usize::MAX);
        self.text.lines().nth(skipped).unwrap_or_default()
    }
}

/// Column, from 1 and in characters, of `blamed`, or else of the first word.
/// BuildKit itself knows only lines of a Dockerfile.
fn column(line: &str, blamed: Option<&str>) -> u32 {
    let first_word = line.len() - line.trim_start().len();
    let at = blamed
        .filter(|blamed| !blamed.is_empty())
        // ASCII case alone, so that the offsets stay those of `line`.
        .and_then(|blamed| line.to_ascii_lowercase().find(&blamed.to_ascii_lowercase()))
        .unwrap_or(first_word);
    let before = line[..at].chars().count();
    u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1)
}

/// The word of the Dockerfile that a frontend's message complains of.
fn blamed(message: &str) -> Option<String> {
    if let Some(rest) = message.strip_prefix("unknown instruction: ") {
        return rest.split_whitespace().next().map(str::to_owned);
    }
    if let Some(flag) = after(message, "unknown flag: ") {
        return flag.split_whitespace().next().map(|flag| format!("--{}", flag.trim_matches('-')));
    }
    quoted(message)
}

fn after<'a>(text: &'a str, marker: &str) -> Option<&'a str> {
    text.split_once(marker).map(|(_, rest)| rest)
}

/// The first text in quotes, as Go's `%q` writes it, without its escapes.
fn quoted(text: &str) -> Option<String> {
    let mut characters = after(text, "\"")?.chars();
    let mut unquoted = String::new();
    loop {
        match characters.next()? {
            '"' => return Some(unquoted),
            '\\' => match characters.next()? {
                'n' => unquoted.push('\n'),
                't' => unquoted.push('\t'),
                'r' => unquoted.push('\r'),
                plain @ ('"' | '\\') => unquoted.push(plain),
                // `\x1b` and the like: shown as they are written.
                other => unquoted.extend(['\\', other]),
            },
            plain => unquoted.push(plain),
        }
    }
}

/// The last three-digit status in a containerd message such as
/// `unexpected status from HEAD request to http://…: 401 Unauthorized`.
fn http_status(reason: &str) -> Option<u16> {
    let rest = match after(reason, "unexpected status") {
        Some(rest) => rest.rsplit_once(": ")?.1,
        None => return None,
    };
    let digits = rest.split_whitespace().next()?;
    digits.parse().ok().filter(|status| (100..600).contains(status))
}

/// A status that another try may not get.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..)
}

fn is_network(reason: &str) -> bool {
    const SIGNS: [&str; 8] = [
        "failed to do request",
        "dial tcp",
        "i/o timeout",
        "connection reset",
        "connection refused",
        "TLS handshake timeout",
        "unexpected EOF",
        "deadline exceeded",
    ];
    SIGNS.iter().any(|sign| reason.contains(sign))
}

/// A reference as a Dockerfile is likely to have it.
fn familiar(reference: &str) -> &str {
    let short = reference.strip_prefix("docker.io/").unwrap_or(reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    short.strip_suffix(":latest").unwrap_or(short)
}

#[cfg(test)]
mod tests;
