//! What every test here needs: the client, and servers of the test's own.

mod contexts;
mod proxy;
mod registry;
mod tree;

pub use contexts::ContextServer;
pub use proxy::{Proxy, TlsProxy};
pub use registry::Registry;
pub use tree::Tree;

use std::time::Instant;

use slipway_buildkit::render::Renderer;
use slipway_buildkit::{BuildEvent, Client, Endpoint, Error, Outcome, SolveRequest, Stream};

/// The base image of the dev stack: busybox.
pub fn base_image() -> String {
    slipway_testkit::stack::base_image()
}

/// The dev stack's BuildKit.
pub fn endpoint() -> Endpoint {
    slipway_testkit::stack::buildkit_endpoint().parse().unwrap()
}

pub async fn client() -> Client {
    Client::connect(&endpoint(), None).await.unwrap()
}

/// Text that no earlier build had, so that nothing of it is cached.
pub fn nonce() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A request to build `instructions` on the base image.
pub fn on_base(instructions: &str) -> SolveRequest {
    SolveRequest::new(format!("FROM {}\n{instructions}\n", base_image()))
}

/// A finished solve.
pub struct Built {
    pub events: Vec<BuildEvent>,
    pub outcome: Result<Outcome, Error>,
}

/// Runs `request` to its end.
pub async fn build(request: SolveRequest) -> Built {
    let mut solve = client().await.solve(request);
    let mut events = Vec::new();
    while let Some(event) = solve.next_event().await {
        events.push(event);
    }
    let outcome = solve.outcome().await;
    Built { events, outcome }
}

impl Built {
    /// The outcome of a build that must have succeeded.
    pub fn ok(&self) -> &Outcome {
        self.outcome.as_ref().unwrap_or_else(|error| panic!("{error:?}: {:#?}", self.lines()))
    }

    /// The error of a build that must have failed.
    pub fn error(&self) -> &Error {
        self.outcome.as_ref().unwrap_err()
    }

    /// All lines, as a user sees them.
    pub fn lines(&self) -> Vec<String> {
        let mut renderer = Renderer::new();
        let now = Instant::now();
        let mut lines = Vec::new();
        for event in self.events.iter().cloned() {
            renderer.event(event, now, |line| lines.push(line.text.to_owned()));
        }
        renderer.finish(|line| lines.push(line.text.to_owned()));
        lines
    }

    /// What the processes wrote to `stream`, lines in order, without prefixes.
    pub fn output(&self, stream: Stream) -> Vec<String> {
        let mut bytes = Vec::new();
        for event in &self.events {
            if let BuildEvent::Log { stream: of, bytes: chunk, .. } = event
                && *of == stream
            {
                bytes.extend_from_slice(chunk);
            }
        }
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    /// The number of the vertex whose name holds `part`.
    pub fn vertex(&self, part: &str) -> u32 {
        let found = self.events.iter().find_map(|event| match event {
            BuildEvent::VertexStarted { index, name } if name.contains(part) => Some(*index),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("no vertex `{part}` in {:#?}", self.lines()))
    }

    /// Whether that vertex came from the cache.
    pub fn is_cached(&self, part: &str) -> bool {
        let index = self.vertex(part);
        self.events.contains(&BuildEvent::VertexCached { index })
    }
}
