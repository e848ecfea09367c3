#![allow(clippy::unwrap_used, clippy::disallowed_methods)]
use slipway_bus::topology::Topology;
use slipway_bus::{Bus, connect};
use slipway_domain::spec::JobKind;
use slipway_domain::{AttemptNumber, Class, JobId, Region};
use slipway_testkit::NatsServer;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;

fn us() -> Region {
    "us".parse().unwrap()
}

async fn start() -> (NatsServer, Bus) {
    let server = NatsServer::start().await;
    let bus = connect(&slipway_bus::Config::new(server.url(), "slots-test")).await.unwrap();
    bus.ensure(&Topology::single(us())).await.unwrap();
    (server, bus)
}

fn slots(all: u32) -> (Slots, CancellationToken) {
    let stopping = CancellationToken::new();
    (Slots::new(all, Intake::new(stopping.clone())), stopping)
}

fn door(bus: &Bus, slots: &Slots) -> Door {
    let takers = Class::ALL.iter().map(|class| bus.jobs().puller(&us(), *class).taker());
    Door::new(slots.clone(), takers.collect())
}

async fn publish(bus: &Bus, class: Class) -> JobId {
    let job = JobId::from_uuid(Uuid::now_v7());
    let (kind, first) = (JobKind::Build, AttemptNumber::FIRST);
    bus.jobs().publish(&us(), class, kind, job, first, &job).await.unwrap();
    job
}

/// The next job that somebody else gets.
async fn elsewhere(bus: &Bus, class: Class) -> Delivery<JobId> {
    bus.jobs().puller(&us(), class).next(std::future::pending()).await.unwrap()
}

#[tokio::test]
async fn every_slot_gets_a_job_and_no_job_comes_without_a_slot() {
    let (_server, bus) = start().await;
    let (slots, _stopping) = slots(3);
    let mut door = door(&bus, &slots);
    let mut jobs = vec![];
    for _ in 0..5 {
        jobs.push(publish(&bus, Class::Cpu).await);
    }
    let mut held = vec![];
    for job in &jobs[..3] {
        held.push(door.next::<JobId>().await.unwrap());
        assert_eq!(held.last().unwrap().0.job, *job);
    }
    let next = tokio::spawn(async move { door.next::<JobId>().await });
    // What was asked for in the other class is taken back, and nothing asked for:
    // somebody else gets what is there.
    let gpu = publish(&bus, Class::Gpu).await;
    assert_eq!(elsewhere(&bus, Class::Gpu).await.job, gpu);
    let fourth = elsewhere(&bus, Class::Cpu).await;
    assert_eq!((fourth.job, fourth.delivered), (jobs[3], 1));
    drop(held.remove(0));
    let (fifth, _slot) = next.await.unwrap().unwrap();
    assert_eq!((fifth.job, fifth.delivered), (jobs[4], 1));
}

#[tokio::test]
async fn with_a_slot_left_the_other_class_stays_asked_for() {
    let (_server, bus) = start().await;
    let (slots, stopping) = slots(3);
    let mut door = door(&bus, &slots);
    let cpu = publish(&bus, Class::Cpu).await;
    let (first, _slot) = door.next::<JobId>().await.unwrap();
    assert_eq!(first.job, cpu);
    // Nobody waits at the door, and yet what comes is for it, before who asks now.
    let (one, two) = (publish(&bus, Class::Gpu).await, publish(&bus, Class::Gpu).await);
    assert_eq!(elsewhere(&bus, Class::Gpu).await.job, two);
    let (next, _other) = door.next::<JobId>().await.unwrap();
    assert_eq!((next.job, next.delivered), (one, 1));
    stopping.cancel();
    assert!(door.next::<JobId>().await.is_none());
    for class in Class::ALL {
        let job = publish(&bus, class).await;
        let delivery = elsewhere(&bus, class).await;
        assert_eq!((delivery.job, delivery.delivered), (job, 1));
    }
}

#[tokio::test]
async fn jobs_of_two_classes_that_come_at_once_for_one_slot_are_both_done() {
    let (_server, bus) = start().await;
    let (few, _) = slots(1);
    let mut narrow = door(&bus, &few);
    for _ in 0..20 {
        let wanted = [publish(&bus, Class::Cpu).await, publish(&bus, Class::Gpu).await];
        let (first, slot) = narrow.next::<JobId>().await.unwrap();
        let busy = tokio::spawn(async move { (narrow.next::<JobId>().await, narrow) });
        // The other one is nobody's who has no slot: somebody else gets it.
        let (many, stopping) = slots(1);
        let mut other = door(&bus, &many);
        let (second, _slot) = other.next::<JobId>().await.unwrap();
        stopping.cancel();
        assert!(other.next::<JobId>().await.is_none());
        let mut taken = [first.job, second.job];
        taken.sort_unstable();
        let mut published = wanted;
        published.sort_unstable();
        assert_eq!(taken, published);
        first.ack().await.unwrap();
        second.ack().await.unwrap();
        drop(slot);
        let again = publish(&bus, Class::Gpu).await;
        let (third, back) = busy.await.unwrap();
        let (third, _slot) = third.unwrap();
        assert_eq!(third.job, again);
        third.ack().await.unwrap();
        narrow = back;
    }
}

#[tokio::test]
async fn a_door_that_closes_hands_back_what_is_on_its_way() {
    let (_server, bus) = start().await;
    for round in 0..20 {
        let (slots, stopping) = slots(2);
        let mut door = door(&bus, &slots);
        let close = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            stopping.cancel();
        };
        let (next, job, ()) = tokio::join!(door.next::<JobId>(), publish(&bus, Class::Cpu), close);
        let delivery = match next {
            Some((delivery, _slot)) => delivery,
            None => elsewhere(&bus, Class::Cpu).await,
        };
        assert_eq!(delivery.job, job);
        delivery.ack().await.unwrap();
        assert!(door.next::<JobId>().await.is_none());
    }
}

#[tokio::test]
async fn all_are_free_when_the_last_one_is() {
    use futures::FutureExt as _;

    let (slots, _stopping) = slots(2);
    let (one, two) = (slots.try_take().unwrap(), slots.take().await.unwrap());
    assert!(slots.try_take().is_none());
    drop(one);
    assert_eq!(slots.all_free().now_or_never(), None);
    drop(two);
    slots.all_free().await;
}
