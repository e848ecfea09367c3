#![allow(clippy::unwrap_used)]
use slipway_bus::topology::Topology;
use slipway_testkit::{NatsServer, TcpProxy};

use super::*;

const TTL: Duration = Duration::from_secs(2);
/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

fn region() -> Region {
    "us".parse().unwrap()
}

fn job() -> JobId {
    JobId::from_uuid(Uuid::from_u128(1))
}

async fn connect(url: &str) -> Bus {
    slipway_bus::connect(&slipway_bus::Config::new(url, "lease-test")).await.unwrap()
}

async fn start() -> (NatsServer, Bus) {
    let server = NatsServer::start().await;
    let bus = connect(&server.url()).await;
    bus.ensure(&Topology::single(region())).await.unwrap();
    (server, bus)
}

fn leases(bus: &Bus, worker: &str, patience: Duration) -> Leases {
    let terms = Terms { ttl: TTL, patience };
    Leases::new(bus, &region(), worker.parse().unwrap(), terms, Tasks::new())
}

async fn claim(leases: &Leases, number: u32) -> Held {
    let claimed = leases.claim(job(), AttemptNumber::new(number)).await.unwrap();
    claimed.expect("there is something to claim")
}

async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(LIMIT, what).await.expect("it happens in time")
}

async fn holder(leases: &Leases) -> Option<Attempt> {
    let entry = leases.bucket.get(&keys::job(&job())).await.unwrap()?;
    match entry.json().unwrap() {
        Lease::Held { attempt, .. } => Some(attempt),
        Lease::Closed { .. } => None,
    }
}

/// Waits until nobody holds the job.
async fn gone(leases: &Leases) {
    soon(async {
        while holder(leases).await.is_some() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lease_is_held_over_an_outage_that_is_longer_than_it() {
    let (mut server, bus) = start().await;
    let leases = leases(&bus, "w1", LIMIT);
    let held = claim(&leases, 1).await;
    server.kill9().await;
    tokio::time::sleep(TTL * 2).await;
    server.restart().await;
    // Long enough for the server to end what nobody renews.
    tokio::time::sleep(TTL * 3).await;
    assert_eq!(holder(&leases).await, Some(held.attempt));
    assert!(!held.lost.is_cancelled());
}

#[tokio::test]
async fn a_lease_that_ended_while_its_holder_was_cut_off_is_taken_again() {
    let (server, bus) = start().await;
    let proxy = TcpProxy::start(server.address()).await;
    let far = connect(&format!("nats://{}", proxy.address())).await;
    let (far, near) = (leases(&far, "w1", LIMIT), leases(&bus, "w2", LIMIT));
    let held = claim(&far, 1).await;
    proxy.cut();
    gone(&near).await;
    proxy.resume();
    soon(held.retaken()).await;
    assert_eq!(holder(&near).await, Some(held.attempt));
    assert!(!held.lost.is_cancelled());
    // Renewed from then on, and not taken a second time.
    tokio::time::sleep(TTL * 2).await;
    assert_eq!(holder(&near).await, Some(held.attempt));
}

#[tokio::test]
async fn a_holder_that_was_cut_off_gives_way_to_a_later_claim() {
    let (server, bus) = start().await;
    let proxy = TcpProxy::start(server.address()).await;
    let far = connect(&format!("nats://{}", proxy.address())).await;
    let (far, near) = (leases(&far, "w1", LIMIT), leases(&bus, "w2", LIMIT));
    let first = claim(&far, 1).await;
    proxy.cut();
    gone(&near).await;
    let second = claim(&near, 2).await;
    assert!(!first.lost.is_cancelled(), "it cannot know");
    proxy.resume();
    soon(first.lost()).await;
    assert_eq!(holder(&near).await, Some(second.attempt));
}

#[tokio::test]
async fn patience_has_an_end() {
    let (server, bus) = start().await;
    let held = claim(&leases(&bus, "w1", TTL * 2), 1).await;
    let began = Instant::now();
    server.kill9().await;
    soon(held.lost()).await;
    assert!(began.elapsed() > TTL, "it went on for longer than its lease");
}

#[tokio::test]
async fn a_lease_that_ran_out_although_nats_was_there_is_lost() {
    let (_server, bus) = start().await;
    let leases = leases(&bus, "w1", LIMIT);
    let held = claim(&leases, 1).await;
    let key = keys::job(&job());
    let entry = leases.bucket.get(&key).await.unwrap().unwrap();
    leases.bucket.delete(&key, entry.revision).await.unwrap();
    soon(held.lost()).await;
    assert_eq!(holder(&leases).await, None);
}
