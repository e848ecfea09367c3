//! Floods, two schedulers and restarts, on a real nats-server; and what needs none.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeMap;

use slipway_bus::Bus;
use slipway_domain::job::{JobEvent, RetryPolicy};
use slipway_domain::snapshot::SnapshotRecord;
use slipway_domain::{Attempt, Nonce, WorkerId};
use slipway_testkit::NatsServer;
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::ledger::tests::{Replica, new, replica, start};
use crate::settle::Settler;
use crate::settle::tests::settler;
use crate::view::Value;

const FLOOD: usize = 500;
const SLOTS: usize = 4;

fn organization(n: u128) -> OrganizationId {
    OrganizationId::from_uuid(Uuid::from_u128(n))
}

fn job_of(n: u128) -> (SnapshotRecord, JobRecord) {
    let (mut snapshot, mut job) = new("x");
    snapshot.organization = organization(n);
    snapshot.name = format!("s-{}", job.id);
    job.organization = snapshot.organization;
    (snapshot, job)
}

fn worker(slots: usize) -> slipway_domain::worker::WorkerRecord {
    serde_json::from_value(serde_json::json!({
        "version": 1, "id": "w1", "region": "us", "classes": ["cpu"], "slots": slots,
        "running": [], "software": "0.1.0", "buildkit": "", "registry": "127.0.0.1:1",
        "draining": false, "started_at": "2026-01-01T00:00:00Z",
    }))
    .unwrap()
}

/// A scheduler without its API: records, queue, settler.
struct Scheduler {
    replica: Replica,
    settler: Settler,
    _folder: TempDir,
}

impl Scheduler {
    async fn start(bus: &Bus) -> Self {
        let (replica, folder) = (replica(bus).await, tempfile::tempdir().unwrap());
        replica.view.change_fleet(|fleet| fleet.put_worker(worker(SLOTS)));
        let settler = settler(bus, &replica, &folder);
        settler.queue.start();
        Self { replica, settler, _folder: folder }
    }

    /// Has everything done that was announced, as the lanes would.
    async fn settle(&mut self) {
        while let Some(job) = self.replica.announced() {
            let record = self.replica.view.records().job(&job).map(|entry| entry.value);
            let Some(record) = record.filter(|record| !record.state.is_over()) else { continue };
            assert!(self.settler.dispatch(&record).await.is_ok());
        }
    }

    /// What [`Queue::run`] does when something changed.
    async fn look(&mut self) {
        let sent = self.settler.queue.release_all(&mut self.settler.queue.lines(), Instant::now());
        self.settler.queue.announce(sent.into_iter());
        self.settle().await;
    }

    async fn submit(&mut self, organization: u128) -> JobRecord {
        let (snapshot, job) = job_of(organization);
        self.replica.ledger.create_records(&snapshot, &job).await.unwrap();
        self.replica.ledger.announce(job.id);
        job
    }
}

/// What lies in the queue: all that was taken is acknowledged, and gone.
async fn queued(server: &NatsServer) -> u64 {
    server.messages("JOBS_us").await
}

/// A worker of one slot: takes the next job, and reports that it began.
async fn take(bus: &Bus, scheduler: &Scheduler) -> JobRecord {
    let us: Region = "us".parse().unwrap();
    let delivery = bus.jobs().puller(&us, Class::Cpu).next::<serde_json::Value>(forever()).await;
    let delivery = delivery.unwrap();
    delivery.ack().await.unwrap();
    let number = delivery.payload.unwrap()["attempt"].as_u64().unwrap();
    let attempt = Attempt {
        number: AttemptNumber::new(u32::try_from(number).unwrap()),
        nonce: Nonce::from_uuid(Uuid::from_u128(7)),
    };
    let started = JobEvent::Started { attempt, worker: "w1".parse::<WorkerId>().unwrap() };
    scheduler.replica.ledger.apply(delivery.job, started).await.unwrap();
    let records = scheduler.replica.view.records();
    (*records.job(&delivery.job).unwrap().value).clone()
}

async fn end(job: &JobRecord, scheduler: &Scheduler) {
    scheduler.replica.ledger.apply(job.id, JobEvent::Cancel).await.unwrap();
}

fn forever() -> std::future::Pending<()> {
    std::future::pending()
}

async fn flood(scheduler: &mut Scheduler, count: usize) {
    for _ in 0..count {
        scheduler.submit(1).await;
    }
    scheduler.settle().await;
}

/// Takes and ends jobs until one of organization `n` comes; returns how many came
/// before it.
async fn until_turn(n: u128, bus: &Bus, scheduler: &mut Scheduler) -> usize {
    for before in 0.. {
        let job = take(bus, scheduler).await;
        if job.organization == organization(n) {
            return before;
        }
        end(&job, scheduler).await;
        scheduler.look().await;
    }
    unreachable!("it counts on")
}

async fn waits_behind(flooded: usize) -> usize {
    let (server, bus) = start().await;
    let mut scheduler = Scheduler::start(&bus).await;
    flood(&mut scheduler, flooded).await;
    let sent = queued(&server).await;
    assert!(sent <= SLOTS as u64 + 1, "{sent} were sent");
    let other = scheduler.submit(2).await;
    scheduler.settle().await;
    let place = scheduler.settler.queue.place(&other).unwrap();
    let before = until_turn(2, &bus, &mut scheduler).await;
    assert!(place.ahead.abs_diff(before) <= 1, "{place:?}, {before} came before");
    before
}

#[tokio::test]
async fn behind_a_flood_another_waits_no_longer_than_behind_a_trickle() {
    let (trickle, flood) = tokio::join!(waits_behind(20), waits_behind(FLOOD));
    // The slots, one message more, and one that shares its turn.
    assert!(flood <= SLOTS + 2, "{flood}");
    assert_eq!(trickle, flood);
}

#[tokio::test]
async fn a_restarted_scheduler_sends_little_again_and_keeps_the_order_fair() {
    let (server, bus) = start().await;
    let mut first = Scheduler::start(&bus).await;
    flood(&mut first, 50).await;
    first.submit(2).await;
    first.settle().await;
    let sent = queued(&server).await;
    drop(first);
    let mut second = Scheduler::start(&bus).await;
    second.settle().await;
    let again = queued(&server).await;
    // Of what it sends, the server has had the most.
    assert!(again <= sent + 2, "{again} after {sent}");
    let before = until_turn(2, &bus, &mut second).await;
    assert!(before <= SLOTS + 2, "{before}");
    // Everything is taken in the end.
    let mut left = 51 - before - 1;
    while left > 0 {
        let job = take(&bus, &second).await;
        end(&job, &second).await;
        second.look().await;
        left -= 1;
    }
    assert_eq!(queued(&server).await, 0);
}

#[tokio::test]
async fn what_a_scheduler_left_behind_is_sent_by_another() {
    let (server, bus) = start().await;
    let mut other = Scheduler::start(&bus).await;
    let mut gone = Scheduler::start(&bus).await;
    let job = gone.submit(1).await;
    drop(gone);
    let mut changes = other.replica.view.changes();
    // A job and its snapshot are written side by side, and nothing is sent without both.
    let is_here = || {
        let records = other.replica.view.records();
        records.job(&job.id).is_some() && records.followers(job.id).next().is_some()
    };
    while !is_here() {
        changes.changed().await.unwrap();
    }
    // It is nobody's at the first look, and is sent a courtesy after the second.
    let now = Instant::now();
    let strangers = other.settler.queue.tick(&HashSet::new(), now);
    assert_eq!(strangers, HashSet::from([job.id]));
    assert!(other.settler.queue.tick(&strangers, now).is_empty());
    other.look().await;
    assert_eq!(queued(&server).await, 0, "its own scheduler may be about to send it");
    other.settler.queue.tick(&HashSet::new(), Instant::now() + Duration::from_secs(1));
    other.settle().await;
    assert_eq!(queued(&server).await, 1);
    assert_eq!(take(&bus, &other).await.id, job.id);
}

/// A queue over records alone: nothing can be written.
async fn unwired(slots: usize) -> (NatsServer, Replica, Queue) {
    let (server, bus) = start().await;
    let replica = replica(&bus).await;
    replica.view.change_fleet(|fleet| fleet.put_worker(worker(slots)));
    let queue = Queue::new(replica.view.clone(), replica.ledger.clone());
    (server, replica, queue)
}

#[tokio::test]
async fn an_organization_runs_no_more_at_once_than_it_may() {
    let (_server, replica, queue) = unwired(8).await;
    let limits = serde_json::json!({ "version": 1, "id": organization(1), "name": "one",
        "created_at": "2026-01-01T00:00:00Z", "limits": { "jobs_at_once": 2 } });
    replica.view.accounts_mut().put_organization(serde_json::from_value(limits).unwrap(), 1);
    let mut revision = 0;
    let mut put = |job: &JobRecord| {
        revision += 1;
        replica.view.change_records(|records| records.put(Value::Job(job.clone()), revision));
    };
    let mut turns = vec![];
    let mut jobs = vec![];
    for _ in 0..4 {
        let (_, job) = job_of(1);
        put(&job);
        turns.push(queue.admit(&job));
        jobs.push(job);
    }
    let later = Turn::Later { is_long: false };
    assert_eq!(turns, [Turn::Now, Turn::Now, later, later]);
    assert!(queue.place(&jobs[2]).unwrap().is_limited);
    // Another organization is not held up.
    let (_, other) = job_of(2);
    put(&other);
    assert_eq!(queue.admit(&other), Turn::Now);
    // One ends: one more may run.
    let ended = jobs[0].apply(JobEvent::Cancel, Timestamp::now(), &RetryPolicy::default());
    put(&ended.unwrap().next);
    assert_eq!(queue.admit(&jobs[2]), Turn::Now);
    assert_eq!(queue.admit(&jobs[3]), later);
}

#[tokio::test]
async fn what_no_worker_can_read_stands_in_nobodys_way_for_ever() {
    let (_server, replica, queue) = unwired(2).await;
    let jobs: Vec<JobRecord> = (1..=9).map(|n| job_of(n).1).collect();
    let mut admitted = BTreeMap::new();
    for (revision, job) in (1..).zip(&jobs) {
        replica.view.change_records(|records| records.put(Value::Job(job.clone()), revision));
        admitted.insert(job.id, queue.admit(job));
    }
    assert_eq!(admitted.values().filter(|turn| **turn == Turn::Now).count(), 3);
    let later = Instant::now() + Duration::from_secs(16);
    let more = queue.release_all(&mut queue.lines(), later);
    assert_eq!(more.len(), 3);
}
