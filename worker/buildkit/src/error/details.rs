//! What BuildKit attaches to a failed call.
//!
//! `grpc-status-details-bin` holds a `google.rpc.Status` whose entries carry
//! JSON. Owns the reading of the entries that say something to a user; the
//! others (Go stack traces with the daemon's command line) are never decoded.

use base64::Engine;
use bollard_buildkit_proto::google::rpc;
use prost::Message;
use serde::Deserialize;

/// The useful details of one failed call.
#[derive(Debug, Default)]
pub(super) struct Details {
    /// Exit code of the process that failed.
    pub exit_code: Option<u32>,
    /// Where in the Dockerfile, the outermost place first.
    pub source: Option<Source>,
    /// Whether an operation failed, rather than the reading of the Dockerfile.
    pub has_vertex: bool,
}

/// A place in a file.
#[derive(Debug)]
pub(super) struct Source {
    pub file: String,
    pub text: String,
    /// First and last line, from 1.
    pub lines: (u32, u32),
    /// Column of the first line, from 1, where BuildKit knows it.
    pub column: Option<u32>,
}

impl Details {
    pub(super) fn of(status: &tonic::Status) -> Self {
        let mut details = Self::default();
        let Ok(attached) = rpc::Status::decode(status.details()) else { return details };
        for entry in attached.details {
            let kind = entry.type_url.rsplit('/').next().unwrap_or_default();
            match kind.trim_end_matches("+json") {
                "gatewayapi.ExitMessage" | "moby.buildkit.v1.frontend.ExitMessage" => {
                    let exit = serde_json::from_slice::<ExitMessage>(&entry.value);
                    details.exit_code = exit.ok().map(|exit| exit.code);
                }
                "errdefs.Source" => {
                    let source = serde_json::from_slice::<SourceMessage>(&entry.value).ok();
                    details.source = details.source.or(source.and_then(SourceMessage::into_source));
                }
                "errdefs.Vertex" => details.has_vertex = true,
                _ => {}
            }
        }
        details
    }
}

#[derive(Deserialize)]
struct ExitMessage {
    #[serde(alias = "Code", default)]
    code: u32,
}

#[derive(Deserialize)]
struct SourceMessage {
    info: InfoMessage,
    #[serde(default)]
    ranges: Vec<RangeMessage>,
}

#[derive(Deserialize)]
struct InfoMessage {
    #[serde(default)]
    filename: String,
    /// Base64 of the file.
    #[serde(default)]
    data: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RangeMessage {
    start: PositionMessage,
    end: PositionMessage,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PositionMessage {
    line: u32,
    character: u32,
}

impl SourceMessage {
    /// An instruction over several lines has one range for each.
    fn into_source(self) -> Option<Source> {
        let first = self.ranges.iter().min_by_key(|range| range.start.line)?;
        let start = first.start.line;
        let end = self.ranges.iter().map(|range| range.end.line).max()?.max(start);
        let data = base64::engine::general_purpose::STANDARD.decode(&self.info.data).ok()?;
        (start > 0).then(|| Source {
            file: self.info.filename,
            text: String::from_utf8_lossy(&data).into_owned(),
            lines: (start, end),
            column: Some(first.start.character).filter(|column| *column > 0),
        })
    }
}
