//! The floor of load tests.

use std::collections::BTreeSet;

use bytes::Bytes;
use slipway_bus::floor::Floor;
use slipway_testkit::NatsServer;

use crate::{connect, soon};

#[tokio::test]
async fn a_floor_takes_every_number_once_and_moves_values_by_compare_and_set() {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    let floor = Floor::create(&bus, 1).await.unwrap();
    let payload = Bytes::from_static(b"{}");
    let mut takers = [floor.taker(), floor.taker()];
    for number in 0..20 {
        floor.publish(number, &payload).await.unwrap();
    }
    let mut numbers = BTreeSet::new();
    for turn in 0..20 {
        let taken = soon(takers[turn % 2].next()).await.unwrap();
        assert!(numbers.insert(taken.number), "{} came twice", taken.number);
        taken.ack().await.unwrap();
    }
    assert_eq!(numbers, (0..20).collect());

    let first = floor.put(7, &payload, 0).await.unwrap();
    let second = floor.put(7, &payload, first).await.unwrap();
    assert!(second > first);
    floor.put(7, &payload, first + 17).await.unwrap_err();
    floor.event(7, "started", &payload).await.unwrap();

    floor.remove().await.unwrap();
    assert!(soon(takers[0].next()).await.is_none());
    assert!(floor.publish(21, &payload).await.is_err());
}
