//! Vertices of a solve as spans, with BuildKit's own times.

use std::collections::HashMap;

use opentelemetry::KeyValue;
use slipway_buildkit::BuildEvent;
use slipway_domain::spec::JobKind;
use slipway_runtime::telemetry::trace::{self, Ended};

use crate::metrics::{Metrics, Phase};

/// What BuildKit calls the vertex that makes and pushes the image.
const EXPORT: &str = "exporting to image";

/// Records the vertices of one solve below the span that it runs in.
pub(super) struct Vertices {
    metrics: Metrics,
    parent: Option<String>,
    known: HashMap<u32, Vertex>,
}

#[derive(Default)]
struct Vertex {
    name: String,
    outcome: &'static str,
    error: Option<String>,
}

impl Vertices {
    /// Below the current span.
    pub(super) fn here(metrics: Metrics) -> Self {
        Self { metrics, parent: trace::current(), known: HashMap::new() }
    }

    pub(super) fn event(&mut self, event: &BuildEvent) {
        match event {
            BuildEvent::VertexStarted { index, name } => {
                self.known.entry(*index).or_default().name.clone_from(name);
            }
            BuildEvent::VertexCached { index } => self.ended(*index, "cached", None),
            BuildEvent::VertexDone { index, .. } => self.ended(*index, "done", None),
            BuildEvent::VertexCanceled { index } => self.ended(*index, "canceled", None),
            BuildEvent::VertexFailed { index, error } => {
                self.ended(*index, "failed", Some(error.clone()));
            }
            BuildEvent::VertexTimed { index, started, ended } => {
                let Some(vertex) = self.known.get(index) else { return };
                if vertex.name == EXPORT {
                    let took = ended.duration_since(*started).unwrap_or_default();
                    self.metrics.phase(JobKind::Build, Phase::Push, took);
                }
                Ended {
                    name: vertex.name.clone(),
                    parent: self.parent.as_deref(),
                    own: None,
                    start: *started,
                    end: *ended,
                    attributes: vec![
                        KeyValue::new("buildkit.vertex", i64::from(*index)),
                        KeyValue::new("outcome", vertex.outcome),
                    ],
                    error: vertex.error.clone(),
                }
                .record();
            }
            BuildEvent::Log { .. } | BuildEvent::Progress { .. } | BuildEvent::Warning { .. } => {}
        }
    }

    fn ended(&mut self, index: u32, outcome: &'static str, error: Option<String>) {
        let vertex = self.known.entry(index).or_default();
        (vertex.outcome, vertex.error) = (outcome, error);
    }
}
