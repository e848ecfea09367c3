//! Trace context as text, and spans whose times are known only afterwards.
//!
//! A span's place travels as a `traceparent` (W3C Trace Context, section 3.2.2)
//! in headers, messages and records. Invariant: text that is no `traceparent` is
//! as good as none.

use std::cell::Cell;
use std::time::SystemTime;

use opentelemetry::trace::{Span as _, TracerProvider as _};
use opentelemetry::trace::{
    SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId,
    TraceState, Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

thread_local! {
    static PROMISED: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// The ids that the span which this thread begins now has to have.
pub(super) fn promised() -> Option<(TraceId, SpanId)> {
    PROMISED.get()
}

/// The place of the current span as a `traceparent`; `None` outside of any.
#[must_use]
pub fn current() -> Option<String> {
    Context::map_current(|context| {
        let span = context.span();
        let place = span.span_context();
        place.is_valid().then(|| text(place))
    })
}

/// Makes `span`, which has not been entered yet, a child of what `traceparent`
/// names. Without a valid one the span stays where it is.
pub fn set_parent(span: &tracing::Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // It only fails for a span that nobody records.
        let _unrecorded = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// A place for a span that begins now and is recorded when it has ended: below
/// `parent`, or the beginning of a trace that is sampled.
#[must_use]
pub fn promise(parent: Option<&str>) -> String {
    let ids = RandomIdGenerator::default();
    let (trace, flags) = match parent.and_then(parse) {
        Some(parent) => (parent.trace_id(), parent.trace_flags()),
        None => (ids.new_trace_id(), TraceFlags::SAMPLED),
    };
    text(&SpanContext::new(trace, ids.new_span_id(), flags, false, TraceState::NONE))
}

/// A span that has ended.
#[derive(Debug, Clone)]
pub struct Ended<'a> {
    /// What was done, for example `job` or `[2/5] RUN make`.
    pub name: String,
    /// The span that it is a part of.
    pub parent: Option<&'a str>,
    /// Its own place, if [`promise`] gave it one.
    pub own: Option<&'a str>,
    /// When it began.
    pub start: SystemTime,
    /// When it ended.
    pub end: SystemTime,
    /// What is known about it.
    pub attributes: Vec<KeyValue>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Ended<'_> {
    /// Records it. Without a parent and a place of its own it belongs to no
    /// trace, and is left away.
    pub fn record(self) {
        let own = self.own.and_then(parse);
        let mut context = Context::new();
        match (self.parent.and_then(parse), &own) {
            (Some(parent), _) => context = context.with_remote_span_context(parent),
            (None, Some(own)) if own.is_sampled() => {}
            (None, _) => return,
        }
        let tracer = opentelemetry::global::tracer_provider().tracer("slipway");
        let builder = SpanBuilder::from_name(self.name)
            .with_kind(SpanKind::Internal)
            .with_start_time(self.start)
            .with_attributes(self.attributes);
        PROMISED.set(own.map(|own| (own.trace_id(), own.span_id())));
        let mut span = tracer.build_with_context(builder, &context);
        PROMISED.set(None);
        if let Some(error) = self.error {
            span.set_status(Status::error(error));
        }
        span.end_with_timestamp(self.end.max(self.start));
    }
}

fn text(place: &SpanContext) -> String {
    let flags = place.trace_flags().to_u8() & 1;
    format!("00-{}-{}-{flags:02x}", place.trace_id(), place.span_id())
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-');
    let mut field = |length: usize| {
        fields.next().filter(|field| {
            field.len() == length
                && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    if version != "00" || fields.next().is_some() {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()? & 1);
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let place = SpanContext::new(trace, span, flags, true, TraceState::NONE);
    place.is_valid().then_some(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_survives_reading_and_writing() {
        assert_eq!(text(&parse(VALID).unwrap()), VALID);
        let zero = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for bad in ["", "00", &VALID[..54], &format!("{VALID}-00"), &VALID.to_uppercase(), &zero] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_promised_place_stays_in_the_trace_of_its_parent() {
        let own = promise(Some(VALID));
        assert_eq!((&own[..35], &own[52..]), (&VALID[..35], "-01"));
        assert_ne!(own, VALID);
        let unsampled = format!("{}00", &VALID[..53]);
        assert!(promise(Some(&unsampled)).ends_with("-00"), "who asks decides");
        assert!(parse(&promise(None)).is_some_and(|place| place.is_sampled()));
    }
}
