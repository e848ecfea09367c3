//! Rate limits: how many requests an organization may make in a window.
//!
//! Off unless configured. Counted in each replica by itself. Invariant: every
//! answer to a valid key says how much is left.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use slipway_domain::OrganizationId;

use super::{ApiError, App, Caller};
use crate::config::RateLimit;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit-authenticated");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining-authenticated");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset-authenticated");
const RETRY: HeaderName = HeaderName::from_static("retry-after-authenticated");
/// Organizations after which those that rest are forgotten.
const MANY: usize = 10_000;

type Counters = RateLimiter<
    OrganizationId,
    HashMapStateStore<OrganizationId>,
    DefaultClock,
    StateInformationMiddleware,
>;

/// Counts requests. Cheap to clone.
#[derive(Clone)]
pub struct Limiter {
    counters: Arc<Counters>,
    limit: RateLimit,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limiter").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Limiter {
    /// A limiter that has counted nothing yet.
    #[must_use]
    pub fn new(limit: RateLimit) -> Self {
        let period = limit.window / limit.requests.get();
        let quota = Quota::with_period(period.max(std::time::Duration::from_nanos(1)))
            .expect("the period is not zero")
            .allow_burst(limit.requests);
        let counters = RateLimiter::hashmap(quota).with_middleware::<StateInformationMiddleware>();
        Self { counters: Arc::new(counters), limit }
    }

    /// Counts a request: what is left, or how many seconds to wait.
    fn count(&self, organization: OrganizationId) -> Result<u32, u64> {
        if self.counters.len() > MANY {
            self.counters.retain_recent();
        }
        match self.counters.check_key(&organization) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(not_yet) => {
                let wait = not_yet.wait_time_from(DefaultClock::default().now());
                Err(wait.as_secs() + 1)
            }
        }
    }

    fn headers(&self, outcome: Result<u32, u64>, headers: &mut HeaderMap) {
        let requests: NonZeroU32 = self.limit.requests;
        let remaining = outcome.unwrap_or(0);
        let used = u64::from(requests.get().saturating_sub(remaining));
        let reset = (self.limit.window.as_secs() * used).div_ceil(u64::from(requests.get()));
        headers.insert(LIMIT, requests.get().into());
        headers.insert(REMAINING, remaining.into());
        headers.insert(RESET, HeaderValue::from(reset));
        if let Err(seconds) = outcome {
            headers.insert(RETRY, seconds.into());
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
    }
}

/// Middleware: counts requests with a valid key.
pub async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let Some(limiter) = &app.limiter else { return next.run(request).await };
    let Ok(caller) = Caller::of_headers(&app.view, request.headers()) else {
        return next.run(request).await;
    };
    let outcome = limiter.count(caller.organization);
    let mut response = match outcome {
        Ok(_) => next.run(request).await,
        Err(seconds) => {
            let message = format!("Too many requests: try again in {seconds} seconds");
            ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", message).into_response()
        }
    };
    limiter.headers(outcome, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_organization_has_its_own_budget() {
        let window = Duration::from_secs(3600);
        let limiter = Limiter::new(RateLimit { requests: NonZeroU32::new(2).unwrap(), window });
        let organization = |n| OrganizationId::from_uuid(uuid::Uuid::from_u128(n));
        assert_eq!(limiter.count(organization(1)), Ok(1));
        assert_eq!(limiter.count(organization(1)), Ok(0));
        let refused = limiter.count(organization(1));
        assert!(refused.is_err_and(|wait| (1..=1801).contains(&wait)), "{refused:?}");
        assert_eq!(limiter.count(organization(2)), Ok(1));
        let mut headers = HeaderMap::new();
        limiter.headers(Err(7), &mut headers);
        let text = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(text("x-ratelimit-limit-authenticated"), "2");
        assert_eq!(text("x-ratelimit-remaining-authenticated"), "0");
        assert_eq!(text("x-ratelimit-reset-authenticated"), "3600");
        assert_eq!(
            (text("retry-after-authenticated"), text("retry-after")),
            ("7".into(), "7".into())
        );
    }
}
