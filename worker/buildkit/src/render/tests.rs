#![allow(clippy::unwrap_used)]

use super::*;
use bytes::Bytes;

/// The texts of the lines that `render` hands out.
fn texts(render: impl FnOnce(&mut dyn FnMut(Line<'_>))) -> Vec<String> {
    let mut texts = Vec::new();
    render(&mut |line| texts.push(line.text.to_owned()));
    texts
}

fn rendered(events: Vec<BuildEvent>) -> Vec<String> {
    let now = Instant::now();
    let mut renderer = Renderer::new();
    texts(|line| {
        for event in events {
            renderer.event(event, now, &mut *line);
        }
        renderer.finish(line);
    })
}

fn started(index: u32, name: &str) -> BuildEvent {
    BuildEvent::VertexStarted { index, name: name.to_owned() }
}

fn done(index: u32, millis: u64) -> BuildEvent {
    BuildEvent::VertexDone { index, duration: Duration::from_millis(millis) }
}

fn log(index: u32, stream: Stream, millis: Option<u64>, text: &'static str) -> BuildEvent {
    let offset = millis.map(Duration::from_millis);
    BuildEvent::Log { index, stream, offset, bytes: Bytes::from_static(text.as_bytes()) }
}

fn progress(id: &str, current: u64, total: u64, done: Option<u64>) -> BuildEvent {
    let done = done.map(Duration::from_millis);
    BuildEvent::Progress { index: 1, id: id.to_owned(), current, total, done }
}

#[test]
fn a_vertex_is_shown_as_docker_does() {
    let lines = rendered(vec![
        started(3, "[2/5] RUN make"),
        log(3, Stream::Stdout, Some(123), "he"),
        log(3, Stream::Stdout, Some(124), "llo\nwor"),
        log(3, Stream::Stderr, None, "careful\n"),
        log(3, Stream::Stdout, Some(1500), "ld"),
        done(3, 440),
        started(4, "[3/5] COPY . ."),
        BuildEvent::VertexCached { index: 4 },
    ]);
    assert_eq!(
        lines,
        [
            "#3 [2/5] RUN make",
            "#3 0.124 hello",
            "#3 careful",
            "#3 1.500 world",
            "#3 DONE 0.4s",
            "#4 [3/5] COPY . .",
            "#4 CACHED",
        ]
    );
}

#[test]
fn failure_cancellation_and_warnings_are_shown() {
    let lines = rendered(vec![
        BuildEvent::VertexFailed { index: 1, error: "exit code: 1\nmore".into() },
        BuildEvent::VertexCanceled { index: 2 },
        BuildEvent::Warning { index: None, message: "old form".into(), line: Some(7), url: None },
    ]);
    assert_eq!(
        lines,
        ["#1 ERROR: exit code: 1", "#1 more", "#2 CANCELED", "WARNING: old form (line 7)"]
    );
}

#[test]
fn phases_of_a_vertex_are_told_once() {
    let lines = rendered(vec![
        started(1, "[1/2] FROM x"),
        done(1, 10),
        started(1, "[1/2] FROM x"),
        done(1, 20),
        started(1, "[1/2] FROM x"),
        done(1, 2000),
    ]);
    assert_eq!(lines, ["#1 [1/2] FROM x", "#1 DONE 0.0s", "#1 DONE 2.0s"]);
}

#[test]
fn progress_is_shown_at_most_once_a_second() {
    let start = Instant::now();
    let mut renderer = Renderer::new();
    let lines = texts(|line| {
        for step in 0..=30u64 {
            let now = start + Duration::from_millis(100 * step);
            let moved = progress("layer", step * 1_234_567, 40_000_000, None);
            renderer.event(moved, now, &mut *line);
            renderer.event(progress("pushing", 0, 0, None), now, &mut *line);
        }
        let now = start + Duration::from_secs(4);
        let done = progress("layer", 40_000_000, 40_000_000, Some(3456));
        renderer.event(done, now, &mut *line);
        renderer.event(progress("pushing", 0, 0, Some(50)), now, line);
    });
    assert_eq!(
        lines,
        [
            "#1 layer",
            "#1 pushing",
            "#1 layer 12.3MB / 40.0MB",
            "#1 layer 24.7MB / 40.0MB",
            "#1 layer 37.0MB / 40.0MB",
            "#1 layer 40.0MB / 40.0MB 3.5s done",
            "#1 pushing 0.1s done",
        ]
    );
}

#[test]
fn an_unfinished_line_waits_for_the_tick() {
    let start = Instant::now();
    let mut renderer = Renderer::new();
    assert_eq!(renderer.next_tick(), None);
    let wait = log(2, Stream::Stderr, None, "wait");
    assert!(texts(|line| renderer.event(wait, start, line)).is_empty());
    let due = renderer.next_tick().unwrap();
    assert_eq!(texts(|line| renderer.tick(due, line)), ["#2 wait"]);
    assert_eq!(renderer.next_tick(), None);
    assert!(texts(|line| renderer.finish(line)).is_empty());
}
