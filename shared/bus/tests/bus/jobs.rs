use std::future::pending;

use futures::StreamExt as _;
use slipway_bus::JobQueue;
use slipway_bus::jobs::{Delivery, Puller};
use slipway_domain::spec::JobKind;
use slipway_domain::{AttemptNumber, Class, JobId};
use slipway_testkit::NatsServer;
use tokio::sync::oneshot;

use super::{connect, eventually, job, region, soon, start};

async fn publish(queue: &JobQueue, at: &str, class: Class, job: JobId) {
    let first = AttemptNumber::FIRST;
    queue.publish(&region(at), class, JobKind::Build, job, first, &job).await.unwrap();
}

async fn take(puller: &Puller) -> Delivery<JobId> {
    soon(puller.next(pending())).await.unwrap()
}

async fn delivered(queue: &JobQueue) -> u64 {
    queue.pending(&region("us"), Class::Cpu).await.unwrap().delivered
}

/// How many messages a stream holds. What its consumers say is to come is counted a moment
/// after a message was acknowledged; this is not.
async fn messages(server: &NatsServer, stream: &str) -> u64 {
    let raw = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    raw.get_stream(stream).await.unwrap().cached_info().state.messages
}

#[tokio::test]
async fn busy_worker_never_holds_a_second_job() {
    let (server, bus) = start().await;
    let queue = bus.jobs();
    let (one, two) = (job(), job());
    let first = queue.puller(&region("us"), Class::Cpu);
    publish(&queue, "us", Class::Cpu, one).await;
    let held = take(&first).await;
    assert_eq!(*held.payload.as_ref().unwrap(), one);
    publish(&queue, "us", Class::Cpu, two).await;
    // The busy worker is not asked: only what it took is out, and nobody waits.
    // What waits is counted a moment after it is stored.
    eventually(async || queue.pending(&region("us"), Class::Cpu).await.unwrap().waiting == 1).await;
    let now = queue.pending(&region("us"), Class::Cpu).await.unwrap();
    assert_eq!((now.waiting, now.delivered, now.idle_slots), (1, 1, 0));
    let second = connect(&server).await.jobs().puller(&region("us"), Class::Cpu);
    let other = take(&second).await;
    assert_eq!(*other.payload.as_ref().unwrap(), two);
    held.ack().await.unwrap();
    other.ack().await.unwrap();
    let now = queue.pending(&region("us"), Class::Cpu).await.unwrap();
    assert_eq!((now.waiting, now.delivered), (0, 0));
}

#[tokio::test]
async fn every_free_slot_gets_one_job_as_it_comes() {
    let (_server, bus) = start().await;
    let queue = bus.jobs();
    let puller = queue.puller(&region("us"), Class::Cpu);
    let slots: Vec<_> = (0..8)
        .map(|_| {
            let puller = puller.clone();
            tokio::spawn(async move { puller.next::<JobId>(pending()).await })
        })
        .collect();
    eventually(async || queue.pending(&region("us"), Class::Cpu).await.unwrap().idle_slots == 8)
        .await;
    let mut published = Vec::new();
    for _ in 0..8 {
        let job = job();
        publish(&queue, "us", Class::Cpu, job).await;
        published.push(job);
    }
    let mut taken = Vec::new();
    for slot in slots {
        taken.push(soon(slot).await.unwrap().unwrap().payload.unwrap());
    }
    taken.sort_unstable();
    published.sort_unstable();
    assert_eq!(taken, published);
}

#[tokio::test]
async fn job_reaches_neither_another_region_nor_another_class() {
    let (_server, bus) = start().await;
    let queue = bus.jobs();
    let (us, gpu) = (job(), job());
    publish(&queue, "us", Class::Cpu, us).await;
    publish(&queue, "us", Class::Gpu, gpu).await;
    for class in Class::ALL {
        let now = queue.pending(&region("eu"), class).await.unwrap();
        assert_eq!((now.waiting, now.delivered), (0, 0));
    }
    assert_eq!(take(&queue.puller(&region("us"), Class::Gpu)).await.payload.unwrap(), gpu);
    assert_eq!(take(&queue.puller(&region("us"), Class::Cpu)).await.payload.unwrap(), us);
}

#[tokio::test]
async fn purged_job_is_never_delivered() {
    let (_server, bus) = start().await;
    let queue = bus.jobs();
    let (cancelled, other) = (job(), job());
    publish(&queue, "us", Class::Cpu, cancelled).await;
    publish(&queue, "us", Class::Cpu, other).await;
    assert_eq!(queue.purge(&region("us"), cancelled).await.unwrap(), 1);
    assert_eq!(queue.purge(&region("us"), cancelled).await.unwrap(), 0);
    let puller = queue.puller(&region("us"), Class::Cpu);
    assert_eq!(take(&puller).await.payload.unwrap(), other);
}

#[tokio::test]
async fn taker_that_got_what_it_asked_for_has_nothing_to_take_back() {
    let (server, bus) = start().await;
    let queue = bus.jobs();
    let raw = async_nats::connect(server.url()).await.unwrap();
    let mut requests = raw.subscribe("$JS.API.CONSUMER.>").await.unwrap();
    raw.flush().await.unwrap();
    let mut taker = queue.puller(&region("us"), Class::Cpu).taker();
    let (one, two) = (job(), job());
    publish(&queue, "us", Class::Cpu, one).await;
    let held: Delivery<JobId> = soon(taker.next()).await;
    soon(taker.give_up()).await;
    publish(&queue, "us", Class::Cpu, two).await;
    // It did not ask again, and said nothing else: this request comes after the first.
    assert_eq!(delivered(&queue).await, 1);
    let other: Delivery<JobId> = soon(taker.next()).await;
    assert_eq!((held.payload.unwrap(), other.payload.unwrap()), (one, two));
    for wanted in ["MSG.NEXT", "INFO", "MSG.NEXT"] {
        let heard = soon(requests.next()).await.unwrap().subject;
        assert!(heard.starts_with(&format!("$JS.API.CONSUMER.{wanted}.")), "{wanted}: {heard}");
    }
}

#[tokio::test]
async fn taker_that_asks_for_nothing_goes_on_after_a_restart_of_the_server() {
    let (mut server, bus) = start().await;
    let queue = bus.jobs();
    let mut taker = queue.puller(&region("us"), Class::Cpu).taker();
    for _ in 0..3 {
        let wanted = job();
        soon(publish(&queue, "us", Class::Cpu, wanted)).await;
        let delivery: Delivery<JobId> = soon(taker.next()).await;
        assert_eq!((*delivery.payload.as_ref().unwrap(), delivery.delivered), (wanted, 1));
        soon(delivery.ack()).await.unwrap();
        soon(taker.give_up()).await;
        server.restart().await;
    }
}

#[tokio::test]
async fn attempt_is_queued_once_however_often_it_is_published() {
    let (server, bus) = start().await;
    let queue = bus.jobs();
    let job = job();
    for _ in 0..3 {
        publish(&queue, "us", Class::Cpu, job).await;
    }
    assert_eq!(messages(&server, "JOBS_us").await, 1);
    let second = AttemptNumber::new(2);
    let us = region("us");
    queue.publish(&us, Class::Cpu, JobKind::Build, job, second, &job).await.unwrap();
    assert_eq!(messages(&server, "JOBS_us").await, 2);
}

#[tokio::test]
async fn waiting_slot_survives_a_restart_of_the_server() {
    let (mut server, bus) = start().await;
    let queue = bus.jobs();
    let puller = queue.puller(&region("us"), Class::Cpu);
    let slot = tokio::spawn(async move { puller.next::<JobId>(pending()).await });
    eventually(async || queue.pending(&region("us"), Class::Cpu).await.unwrap().idle_slots == 1)
        .await;
    server.restart().await;
    let job = job();
    soon(publish(&queue, "us", Class::Cpu, job)).await;
    let delivery = soon(slot).await.unwrap().unwrap();
    assert_eq!((delivery.payload.as_ref().unwrap(), delivery.delivered), (&job, 1));
    delivery.ack().await.unwrap();
    assert_eq!(delivered(&queue).await, 0);
}

#[tokio::test]
async fn cancelled_slot_takes_nothing_with_it() {
    let (_server, bus) = start().await;
    let queue = bus.jobs();
    let puller = queue.puller(&region("us"), Class::Cpu);
    for round in 0..40 {
        let (cancel, cancelled) = oneshot::channel::<()>();
        let slot = puller.next::<JobId>(async {
            let _ = cancelled.await;
        });
        let job = job();
        // The job and the cancellation race; whoever wins, the job stays ours.
        let race = async {
            for _ in 0..round {
                tokio::task::yield_now().await;
            }
            let _ = cancel.send(());
        };
        let publish = publish(&queue, "us", Class::Cpu, job);
        let (slot, (), ()) = Box::pin(soon(async { tokio::join!(slot, publish, race) })).await;
        let delivery = match slot {
            Some(delivery) => delivery,
            None => take(&puller).await,
        };
        assert_eq!(*delivery.payload.as_ref().unwrap(), job);
        delivery.ack().await.unwrap();
    }
    assert_eq!(delivered(&queue).await, 0);
}

#[tokio::test]
async fn handed_back_job_comes_again_and_poison_is_ended() {
    let (_server, bus) = start().await;
    let queue = bus.jobs();
    let puller = queue.puller(&region("us"), Class::Cpu);
    let first = AttemptNumber::FIRST;
    let us = region("us");
    queue.publish(&us, Class::Cpu, JobKind::Build, job(), first, "no job id").await.unwrap();
    let poison = take(&puller).await;
    assert!(poison.payload.is_err());
    poison.nak(std::time::Duration::ZERO).await.unwrap();
    let again = take(&puller).await;
    assert_eq!(again.delivered, 2);
    again.term("not a job").await.unwrap();
    let now = queue.pending(&us, Class::Cpu).await.unwrap();
    assert_eq!((now.waiting, now.delivered), (0, 0));
}
