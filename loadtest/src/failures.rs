//! What went wrong within a run, counted by reason.

use std::collections::BTreeMap;

use serde::Serialize;
use slipway_api::client::Error as ApiError;

/// One thing that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In which part and why, in few words that many failures share, for
    /// example `submit: quota_exceeded`.
    pub reason: String,
    /// What was said about it.
    pub message: String,
}

impl Failure {
    /// A failure of `part`, for example `log`.
    #[must_use]
    pub fn new(part: &str, why: &str, message: impl Into<String>) -> Self {
        Self { reason: format!("{part}: {why}"), message: message.into() }
    }

    /// A request that was made for `part` and not answered well.
    #[must_use]
    pub fn api(part: &str, error: &ApiError) -> Self {
        Self::new(part, &word(error), error.to_string())
    }
}

fn word(error: &ApiError) -> String {
    let word = match error {
        ApiError::Refused { code: Some(code), .. } => return code.clone(),
        ApiError::Refused { status, .. } => return status.to_string(),
        ApiError::Unreachable { .. } => "unreachable",
        ApiError::Interrupted { .. } | ApiError::Stalled { .. } => "interrupted",
        ApiError::Unstable { .. } => "unstable",
        ApiError::Malformed { .. } => "malformed",
        ApiError::BadName(_) | ApiError::BadBase(_) | ApiError::BadKey | ApiError::Setup(_) => {
            "not sent"
        }
    };
    word.to_owned()
}

/// Failures by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Failures {
    by_reason: BTreeMap<String, Counted>,
}

/// Failures of one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// How many.
    pub count: u64,
    /// What was said about the first of them.
    pub example: String,
}

impl Failures {
    /// Counts one.
    pub fn add(&mut self, failure: Failure) {
        let counted = self.by_reason.entry(failure.reason);
        counted.or_insert_with(|| Counted { count: 0, example: failure.message }).count += 1;
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.by_reason.values().map(|counted| counted.count).sum()
    }

    /// Every reason with its failures.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Counted)> {
        self.by_reason.iter().map(|(reason, counted)| (reason.as_str(), counted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_by_reason_with_their_first_message() {
        let mut failures = Failures::default();
        for message in ["first", "second"] {
            failures.add(Failure::new("log", "gap", message));
        }
        let refused = |code: Option<&str>| ApiError::Refused {
            status: 503,
            message: "later".to_owned(),
            code: code.map(str::to_owned),
            retry_after: None,
        };
        failures.add(Failure::api("submit", &refused(Some("unavailable"))));
        failures.add(Failure::api("submit", &refused(None)));
        let all: Vec<_> = failures
            .iter()
            .map(|(reason, counted)| (reason, counted.count, counted.example.as_str()))
            .collect();
        assert_eq!(
            all,
            [
                ("log: gap", 2, "first"),
                ("submit: 503", 1, "later"),
                ("submit: unavailable", 1, "later"),
            ]
        );
        assert_eq!(failures.count(), 4);
    }
}
