use std::time::Duration;

use slipway_bus::events::{EventConsumer, EventDelivery};

use super::{connect, job, region, soon, start, worker};

async fn next(consumer: &mut EventConsumer) -> EventDelivery<String> {
    soon(consumer.next()).await
}

#[tokio::test]
async fn event_is_delivered_until_it_is_acked() {
    let (_server, bus) = start().await;
    let events = bus.events();
    let (us, w1, job) = (region("us"), worker("w1"), job());
    for _ in 0..2 {
        events.publish(&us, &w1, job, "started", "m1").await.unwrap();
    }
    let mut consumer = events.consume(&us);
    let first = next(&mut consumer).await;
    assert_eq!((&first.worker, first.job, first.delivered), (&w1, job, 1));
    first.nak(Duration::ZERO).await.unwrap();
    let second = next(&mut consumer).await;
    assert_eq!((second.payload.as_deref().unwrap(), second.delivered), ("started", 2));
    assert_eq!(second.sequence, first.sequence);
    second.ack().await.unwrap();
    events.publish(&us, &w1, job, "published", "m2").await.unwrap();
    assert_eq!(next(&mut consumer).await.payload.unwrap(), "published");
}

#[tokio::test]
async fn replicas_share_the_events_and_a_stopping_one_hands_back() {
    let (server, bus) = start().await;
    let (us, w1) = (region("us"), worker("w1"));
    for n in 0..10 {
        bus.events().publish(&us, &w1, job(), &n.to_string(), &format!("m{n}")).await.unwrap();
    }
    let mut one = bus.events().consume(&us);
    let first = next(&mut one).await;
    first.ack().await.unwrap();
    // It has fetched the other nine, too.
    one.stop().await;
    let mut two = connect(&server).await.events().consume(&us);
    let mut seen = vec![first.payload.unwrap()];
    while seen.len() < 10 {
        let event = next(&mut two).await;
        event.ack().await.unwrap();
        seen.push(event.payload.unwrap());
    }
    seen.sort();
    assert_eq!(seen, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn events_published_while_the_server_is_down_arrive_after_its_restart() {
    let (mut server, bus) = start().await;
    let (us, w1, job) = (region("us"), worker("w1"), job());
    let mut consumer = bus.events().consume(&us);
    bus.events().publish(&us, &w1, job, "before", "m0").await.unwrap();
    next(&mut consumer).await.ack().await.unwrap();
    server.kill9().await;
    let events = bus.events();
    let publish = events.publish(&us, &w1, job, "during", "m1");
    let (published, ()) = soon(async { tokio::join!(publish, server.restart()) }).await;
    published.unwrap();
    // The crash may undo the first ack, which is why events bear repeating.
    let mut event = next(&mut consumer).await;
    if event.payload.as_deref().unwrap() == "before" {
        event.ack().await.unwrap();
        event = next(&mut consumer).await;
    }
    assert_eq!(event.payload.as_deref().unwrap(), "during");
    event.ack().await.unwrap();
}

#[tokio::test]
async fn all_events_can_be_read_whether_consumed_or_not() {
    let (_server, bus) = start().await;
    let (us, w1, w2) = (region("us"), worker("w1"), worker("w2"));
    assert_eq!(soon(bus.events().read_all::<String>(&us)).await.unwrap(), [""; 0]);
    bus.events().publish(&us, &w1, job(), "one", "m1").await.unwrap();
    bus.events().publish(&us, &w2, job(), "two", "m2").await.unwrap();
    next(&mut bus.events().consume(&us)).await.ack().await.unwrap();
    let all = soon(bus.events().read_all::<String>(&us)).await.unwrap();
    assert_eq!(all, ["one", "two"]);
}
