#![allow(clippy::unwrap_used)]

use super::*;
use tokio::time::{Instant, sleep};

/// What a reader had: the number in each message, and when it had it.
type Had = Vec<(u32, Duration)>;

/// A message that says a number.
fn message(n: u32) -> Result<proto::StatusResponse, tonic::Status> {
    let log = proto::VertexLog { msg: n.to_string().into(), ..proto::VertexLog::default() };
    Ok(proto::StatusResponse { logs: vec![log], ..proto::StatusResponse::default() })
}

/// The numbers in some events.
fn numbers(events: Vec<BuildEvent>) -> impl Iterator<Item = u32> {
    events.into_iter().filter_map(|event| match event {
        BuildEvent::Log { bytes, .. } => {
            Some(std::str::from_utf8(&bytes).unwrap().parse().unwrap())
        }
        _ => None,
    })
}

/// Follows `messages` of a solve that is over after `length`.
async fn followed(
    messages: impl Stream<Item = Result<proto::StatusResponse, tonic::Status>>,
    length: Duration,
) -> Had {
    let begun = Instant::now();
    let (sender, mut events) = mpsc::channel(MESSAGE_BUFFER);
    let (over, is_over) = oneshot::channel();
    let solve = async {
        sleep(length).await;
        over.send(()).ok();
    };
    let read = async {
        let mut had = vec![];
        while let Some(events) = events.recv().await {
            had.extend(numbers(events).map(|n| (n, begun.elapsed())));
        }
        had
    };
    let tracker = Tracker::new(Redactor::default());
    tokio::join!(follow(messages, tracker, sender, is_over), solve, read).2
}

const LONG: Duration = Duration::from_secs(3600);

/// Messages that are there whenever one is asked for.
fn flood(messages: u32) -> impl Stream<Item = Result<proto::StatusResponse, tonic::Status>> {
    futures::stream::iter((0..messages).map(message))
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_messages_is_taken_in_turns() {
    let had = followed(flood(10_000), LONG).await;
    assert!(had.iter().map(|(n, _)| *n).eq(0..10_000), "messages are lost or out of order");
    let within = |millis| had.iter().filter(|(_, at)| at.as_millis() < millis).count();
    assert!((1..=100).contains(&within(10)), "{} in the first period", within(10));
    // BuildKit has time to gather, and what is on its way soon is read.
    assert!((1_000..=5_000).contains(&within(1_000)), "{} in a second", within(1_000));
}

#[tokio::test(start_paused = true)]
async fn a_trickle_of_messages_is_passed_on_at_once() {
    let pause = Duration::from_millis(1);
    let messages = futures::stream::iter(0..1_000).then(async |n| {
        sleep(pause).await;
        message(n)
    });
    for (n, at) in followed(messages, LONG).await {
        assert_eq!(at, pause * (n + 1), "message {n}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_when_the_solve_is_over_does_not_wait() {
    let over = Duration::from_millis(105);
    let had = followed(flood(10_000), over).await;
    assert!(had.iter().map(|(n, _)| *n).eq(0..10_000), "messages are lost or out of order");
    assert_eq!(had.last().unwrap().1, over);
}
