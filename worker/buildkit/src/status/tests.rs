#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

fn at(millis: u64) -> Option<Timestamp> {
    Some(Timestamp {
        seconds: i64::try_from(1_700_000_000 + millis / 1000).unwrap(),
        nanos: i32::try_from(millis % 1000).unwrap() * 1_000_000,
    })
}

fn vertex(digest: &str, started: Option<u64>, completed: Option<u64>) -> proto::Vertex {
    proto::Vertex {
        digest: digest.to_owned(),
        name: format!("name of {digest}"),
        started: started.and_then(at),
        completed: completed.and_then(at),
        ..proto::Vertex::default()
    }
}

fn log(digest: &str, millis: u64, text: &str) -> proto::VertexLog {
    let vertex = digest.to_owned();
    proto::VertexLog { vertex, timestamp: at(millis), stream: 2, msg: text.into() }
}

fn vertices(vertexes: Vec<proto::Vertex>) -> proto::StatusResponse {
    proto::StatusResponse { vertexes, ..proto::StatusResponse::default() }
}

fn events(messages: Vec<proto::StatusResponse>) -> Vec<BuildEvent> {
    let all = all_events(messages).into_iter();
    all.filter(|event| !matches!(event, BuildEvent::VertexTimed { .. })).collect()
}

fn all_events(messages: Vec<proto::StatusResponse>) -> Vec<BuildEvent> {
    let mut tracker = Tracker::new(Redactor::default());
    messages.into_iter().flat_map(|message| tracker.apply(message)).collect()
}

fn started(index: u32, digest: &str) -> BuildEvent {
    BuildEvent::VertexStarted { index, name: format!("name of {digest}") }
}

fn done(index: u32, millis: u64) -> BuildEvent {
    BuildEvent::VertexDone { index, duration: Duration::from_millis(millis) }
}

#[test]
fn vertices_are_numbered_as_they_begin() {
    let events = events(vec![
        vertices(vec![vertex("a", None, None), vertex("b", None, None)]),
        vertices(vec![vertex("b", Some(0), None)]),
        vertices(vec![vertex("a", Some(5), Some(10)), vertex("b", Some(0), Some(20))]),
    ]);
    assert_eq!(events, [started(1, "b"), started(2, "a"), done(2, 5), done(1, 20)]);
}

#[test]
fn what_is_told_again_is_no_news() {
    let whole = || vertices(vec![vertex("a", Some(0), Some(10))]);
    let begun = || vertices(vec![vertex("a", Some(0), None)]);
    let events = events(vec![begun(), begun(), whole(), whole(), begun()]);
    assert_eq!(events, [started(1, "a"), done(1, 10)]);
}

#[test]
fn a_vertex_that_begins_again_keeps_its_number() {
    let events = events(vec![
        vertices(vec![vertex("a", Some(0), Some(10))]),
        vertices(vec![vertex("a", Some(20), None)]),
        vertices(vec![vertex("a", Some(20), Some(25))]),
    ]);
    assert_eq!(events, [started(1, "a"), done(1, 10), started(1, "a"), done(1, 15)]);
}

#[test]
fn logs_come_between_start_and_end_of_their_vertex() {
    let mut message = vertices(vec![vertex("a", Some(0), Some(10))]);
    message.logs.push(log("a", 7, "text"));
    let expected = BuildEvent::Log {
        index: 1,
        stream: Stream::Stderr,
        offset: Some(Duration::from_millis(7)),
        bytes: Bytes::from_static(b"text"),
    };
    assert_eq!(events(vec![message]), [started(1, "a"), expected, done(1, 10)]);
}

#[test]
fn the_times_of_each_phase_are_those_of_buildkit() {
    let events = all_events(vec![
        vertices(vec![vertex("a", Some(0), Some(10))]),
        vertices(vec![vertex("a", Some(20), None)]),
        vertices(vec![vertex("a", Some(20), Some(25))]),
    ]);
    let time = |millis| SystemTime::UNIX_EPOCH + since_epoch(&at(millis).unwrap()).unwrap();
    let timed = |started, ended| BuildEvent::VertexTimed {
        index: 1,
        started: time(started),
        ended: time(ended),
    };
    assert_eq!([&events[2], &events[5]], [&timed(0, 10), &timed(20, 25)]);
}

#[test]
fn ends_are_told_apart() {
    let mut cached = vertex("a", Some(0), Some(0));
    cached.cached = true;
    let mut failed = vertex("b", Some(0), Some(1));
    failed.error = "exit code: 1".into();
    let mut canceled = vertex("c", Some(0), Some(1));
    canceled.error = "process did not complete: context canceled".into();
    let events = events(vec![vertices(vec![cached, failed, canceled])]);
    assert_eq!(
        events[3..],
        [
            BuildEvent::VertexCached { index: 1 },
            BuildEvent::VertexFailed { index: 2, error: "exit code: 1".into() },
            BuildEvent::VertexCanceled { index: 3 },
        ]
    );
}

#[test]
fn progress_and_warnings_are_translated() {
    let status = |completed: Option<u64>| proto::VertexStatus {
        id: "layer".into(),
        vertex: "a".into(),
        current: 5,
        total: 10,
        started: at(0),
        completed: completed.and_then(at),
        ..proto::VertexStatus::default()
    };
    let warning = proto::VertexWarning {
        vertex: "a".into(),
        short: b"old\nform".to_vec(),
        url: "https://example.com/rule".into(),
        ..proto::VertexWarning::default()
    };
    let message = proto::StatusResponse {
        statuses: vec![status(None), status(Some(30))],
        warnings: vec![warning],
        ..proto::StatusResponse::default()
    };
    let progress = |done: Option<u64>| BuildEvent::Progress {
        index: 1,
        id: "layer".into(),
        current: 5,
        total: 10,
        done: done.map(Duration::from_millis),
    };
    let warning = BuildEvent::Warning {
        index: Some(1),
        message: "old form".into(),
        line: None,
        url: Some("https://example.com/rule".into()),
    };
    let nameless = BuildEvent::VertexStarted { index: 1, name: String::new() };
    assert_eq!(events(vec![message]), [nameless, progress(None), progress(Some(30)), warning]);
}

proptest! {
    /// Updates in any order, repeated and in part.
    #[test]
    fn starts_and_ends_alternate_and_numbers_have_no_gaps(
        updates in prop::collection::vec(("[a-d]", prop::option::of(0u64..50), prop::option::of(0u64..50)), 0..60)
    ) {
        let messages = updates
            .iter()
            .map(|(digest, started, completed)| vertices(vec![vertex(digest, *started, *completed)]))
            .collect();
        let mut running = HashMap::new();
        let mut last = 0;
        for event in events(messages) {
            match event {
                BuildEvent::VertexStarted { index, .. } => {
                    prop_assert!(index <= last + 1);
                    last = last.max(index);
                    prop_assert_ne!(running.insert(index, true), Some(true));
                }
                BuildEvent::VertexDone { index, .. } => {
                    prop_assert_eq!(running.insert(index, false), Some(true));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
