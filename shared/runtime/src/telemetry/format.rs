//! Log lines with the ids of the span that they were written in.

use std::fmt;

use opentelemetry::trace::TraceContextExt as _;
use opentelemetry::{Context, SpanId, TraceId};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Adds `trace_id` and `span_id` to the lines of another format, where there is
/// a span.
#[derive(Debug)]
pub(super) struct WithIds<F> {
    inner: F,
    add: fn(&mut String, TraceId, SpanId),
}

impl<F> WithIds<F> {
    /// As last fields of a text line.
    pub(super) fn text(inner: F) -> Self {
        let add = |line: &mut String, trace: TraceId, span: SpanId| {
            line.push_str(&format!(" trace_id={trace} span_id={span}"));
        };
        Self { inner, add }
    }

    /// As last members of the JSON object that a line is.
    pub(super) fn json(inner: F) -> Self {
        let add = |line: &mut String, trace: TraceId, span: SpanId| {
            if line.pop() == Some('}') {
                line.push_str(&format!(",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}"));
            }
        };
        Self { inner, add }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithIds<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let ids = Context::map_current(|current| {
            let span = current.span();
            let ids = span.span_context();
            ids.is_valid().then(|| (ids.trace_id(), ids.span_id()))
        });
        let Some((trace, span)) = ids else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        // It has no colours of its own: the inner format brings them.
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        line.truncate(line.trim_end_matches('\n').len());
        (self.add)(&mut line, trace, span);
        writeln!(writer, "{line}")
    }
}
