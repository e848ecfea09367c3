//! The lease of a job: who may report on it, and whether to claim it.
//!
//! Lives under the key `job.<job>` of the region's lease bucket. Invariant: it
//! is only ever changed by compare-and-set, and its attempt never goes down
//! while it exists.

use serde::{Deserialize, Serialize};

use crate::attempt::{Attempt, AttemptNumber};
use crate::ids::WorkerId;

/// The value under a job's lease key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Lease {
    /// A worker holds it; it expires unless renewed.
    Held {
        /// The claim.
        attempt: Attempt,
        /// Who claims.
        worker: WorkerId,
    },
    /// The scheduler closed the job: nobody may claim this attempt or an
    /// earlier one, and whoever held it must stop.
    Closed {
        /// The last attempt that is closed.
        attempt: AttemptNumber,
    },
}

/// What a worker does with a message for an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimDecision {
    /// Claim it: no lease, or one of an earlier attempt.
    Claim,
    /// Throw the message away: the attempt is taken, over, or outdated.
    Discard,
}

/// Decides whether attempt `wanted` may be claimed over `existing`.
#[must_use]
pub fn decide_claim(existing: Option<&Lease>, wanted: AttemptNumber) -> ClaimDecision {
    let newest = match existing {
        None => return ClaimDecision::Claim,
        Some(Lease::Held { attempt, .. }) => attempt.number,
        Some(Lease::Closed { attempt }) => *attempt,
    };
    if newest < wanted { ClaimDecision::Claim } else { ClaimDecision::Discard }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::attempt::Nonce;

    fn held(n: u32) -> Lease {
        let attempt =
            Attempt { number: AttemptNumber::new(n), nonce: Nonce::from_uuid(uuid::Uuid::nil()) };
        Lease::Held { attempt, worker: "w".parse().unwrap() }
    }

    #[test]
    fn only_a_newer_attempt_takes_over() {
        let two = AttemptNumber::new(2);
        assert_eq!(decide_claim(None, two), ClaimDecision::Claim);
        assert_eq!(decide_claim(Some(&held(1)), two), ClaimDecision::Claim);
        assert_eq!(decide_claim(Some(&held(2)), two), ClaimDecision::Discard);
        assert_eq!(decide_claim(Some(&held(3)), two), ClaimDecision::Discard);
        assert_eq!(
            decide_claim(Some(&Lease::Closed { attempt: two }), two),
            ClaimDecision::Discard
        );
        let closed = Lease::Closed { attempt: AttemptNumber::FIRST };
        assert_eq!(decide_claim(Some(&closed), two), ClaimDecision::Claim);
    }
}
