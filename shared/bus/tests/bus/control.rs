use std::time::Duration;

use slipway_bus::Bus;
use slipway_bus::control::{ControlDelivery, ControlSubscription};
use slipway_bus::trace::in_trace;

use super::{connect, region, soon, start, worker};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Says it until it is heard: a word sent before the server knows the listener
/// reaches nobody, as is allowed.
async fn say(
    bus: &Bus,
    to: &str,
    verb: &str,
    listener: &mut ControlSubscription,
) -> ControlDelivery<String> {
    let (control, us, to) = (bus.control(), region("us"), worker(to));
    soon(async {
        loop {
            control.publish(&us, &to, verb, "hello").await.unwrap();
            let patience = Duration::from_millis(100);
            if let Ok(word) = tokio::time::timeout(patience, listener.next()).await {
                return word.unwrap();
            }
        }
    })
    .await
}

#[tokio::test]
async fn word_reaches_its_worker_only_also_after_a_restart() {
    let (mut server, bus) = start().await;
    let us = region("us");
    let ears = connect(&server).await;
    let mut one = ears.control().subscribe(&us, &worker("w1")).await.unwrap();
    let mut two = ears.control().subscribe(&us, &worker("w2")).await.unwrap();
    let word = say(&bus, "w1", "cancel", &mut one).await;
    assert_eq!((word.verb.as_str(), word.payload.unwrap().as_str()), ("cancel", "hello"));
    assert_eq!(word.trace, None);
    server.restart().await;
    assert_eq!(say(&bus, "w1", "again", &mut one).await.verb, "again");
    // Only its own word is waiting for the other one.
    assert_eq!(say(&bus, "w2", "drain", &mut two).await.verb, "drain");
}

#[tokio::test]
async fn word_carries_the_trace_it_was_sent_in() {
    let (server, bus) = start().await;
    let ears = connect(&server).await;
    let mut one = ears.control().subscribe(&region("us"), &worker("w1")).await.unwrap();
    let said = say(&bus, "w1", "cancel", &mut one);
    let word = in_trace(TRACE.parse().unwrap(), said).await;
    assert_eq!(word.trace.unwrap().as_str(), TRACE);
}
