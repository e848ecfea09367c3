use std::time::Duration;

use slipway_bus::connection::{Error, VersionCheck};
use slipway_bus::services::{Offer, Request};
use slipway_bus::topology::{BucketName, VAULT, keys, vault_subject, worker_permissions};
use slipway_bus::{Bus, Config, Credentials};
use slipway_domain::spec::JobKind;
use slipway_domain::{AttemptNumber, Class, JobId};
use slipway_testkit::NatsServer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::{job, region, soon, start, topology, worker};

fn impatient(url: &str) -> Config {
    Config { patience: Duration::from_secs(1), ..Config::new(url, "test") }
}

/// A server of another age: as much of the protocol as a client needs to connect.
async fn server_of_version(version: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let info = serde_json::json!({
        "server_id": "T", "server_name": "T", "version": version, "proto": 1, "go": "go",
        "host": "127.0.0.1", "port": 0, "headers": true, "max_payload": 1_048_576, "client_id": 1,
    });
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut lines = BufReader::new(socket);
        lines.get_mut().write_all(format!("INFO {info}\r\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {
            if line.starts_with("PING") {
                lines.get_mut().write_all(b"PONG\r\n").await.unwrap();
            }
            line.clear();
        }
    });
    url
}

#[tokio::test]
async fn old_server_is_refused_with_its_version_and_the_remedy() {
    let url = server_of_version("2.10.29").await;
    let error = soon(slipway_bus::connect(&impatient(&url))).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::TooOld { .. }), "{text}");
    assert!(text.contains("nats-server 2.10.29 is too old"), "{text}");
    assert!(text.contains("run nats-server 2.15.1 or newer"), "{text}");
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn unreachable_server_is_named_after_patience_ran_out() {
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("nats://127.0.0.1:{port}");
    let error = soon(slipway_bus::connect(&impatient(&url))).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }));
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn connecting_waits_for_a_server_that_starts_later() {
    let mut server = NatsServer::start().await;
    server.kill9().await;
    let config = Config::new(server.url(), "test");
    let (bus, ()) =
        soon(async { tokio::join!(slipway_bus::connect(&config), server.restart()) }).await;
    assert!(bus.unwrap().is_connected());
}

#[tokio::test]
async fn wrong_password_is_refused_at_once_and_the_right_one_works() {
    let users = "authorization { users: [ {user: a, password: secret} ] }";
    let server = NatsServer::start_with(users).await;
    let with = |password: &str| Config {
        credentials: Credentials::UserPassword { user: "a".into(), password: password.into() },
        ..Config::new(server.url(), "test")
    };
    let error = soon(slipway_bus::connect(&with("wrong"))).await.unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error:?}");
    assert!(soon(slipway_bus::connect(&with("secret"))).await.is_ok());
}

/// A server that knows a scheduler, who may do all, and worker `w` of region `us`.
async fn server_with_permissions() -> (NatsServer, Bus, Bus) {
    let w = worker("w");
    let permissions = worker_permissions(&region("us"), &[Class::Cpu], &w);
    let permissions = serde_json::json!({
        "publish": { "allow": permissions.publish },
        "subscribe": { "allow": permissions.subscribe },
        "allow_responses": true,
    });
    let users = format!(
        "authorization {{ users: [ {{user: s, password: p}}, \
         {{user: w, password: p, permissions: {permissions}}} ] }}"
    );
    let server = NatsServer::start_with(&users).await;
    let as_user = |user: &str| Config {
        credentials: Credentials::UserPassword { user: user.into(), password: "p".into() },
        request_timeout: Duration::from_millis(500),
        ..Config::new(server.url(), "test")
    };
    let scheduler = soon(slipway_bus::connect(&as_user("s"))).await.unwrap();
    scheduler.ensure(&topology()).await.unwrap();
    let worker = Config {
        inbox_prefix: Some("_INBOX.w".into()),
        check: VersionCheck::ServerVersion,
        ..as_user("w")
    };
    let worker = soon(slipway_bus::connect(&worker)).await.unwrap();
    (server, scheduler, worker)
}

#[tokio::test]
async fn worker_does_all_its_work_with_the_permissions_of_a_worker() {
    let (_server, scheduler, bus) = server_with_permissions().await;
    let (us, w, job) = (region("us"), worker("w"), job());
    let first = AttemptNumber::FIRST;
    let jobs = scheduler.jobs();
    jobs.publish(&us, Class::Cpu, JobKind::Build, job, first, &job).await.unwrap();
    let puller = bus.jobs().puller(&us, Class::Cpu);
    let delivery = soon(puller.next::<JobId>(std::future::pending())).await.unwrap();
    let leases = bus.bucket(&BucketName::Leases(us.clone()));
    let ttl = Some(Duration::from_secs(10));
    let revision = leases.create(&keys::job(&job), "w", ttl).await.unwrap();
    leases.update(&keys::job(&job), "w", revision, ttl).await.unwrap();
    delivery.ack().await.unwrap();
    bus.events().publish(&us, &w, job, "started", "m1").await.unwrap();
    bus.logs().publish_chunk(&us, &w, job, "hello".into(), "c1").await.unwrap();
    let mut control = bus.control().subscribe(&us, &w).await.unwrap();
    soon(async {
        loop {
            scheduler.control().publish(&us, &w, "cancel", &job).await.unwrap();
            let patience = Duration::from_millis(100);
            if tokio::time::timeout(patience, control.next::<JobId>()).await.is_ok() {
                return;
            }
        }
    })
    .await;
    let event = soon(scheduler.events().consume(&us).next::<String>()).await;
    assert_eq!(event.payload.unwrap(), "started");
    let subject = vault_subject(&us, &w);
    let offer = Offer {
        name: VAULT.into(),
        version: "0.1.0".into(),
        description: "test".into(),
        subject: subject.clone(),
    };
    let echo = |request: Request<String>| std::future::ready(Ok(request.body));
    let _service = soon(bus.serve(offer, echo)).await.unwrap();
    let deadline = Duration::from_secs(5);
    let answer: String = soon(scheduler.call(&subject, "hello", deadline)).await.unwrap();
    assert_eq!(answer, "hello");
}

#[tokio::test]
async fn worker_can_do_nothing_in_another_region_or_name() {
    let (_server, scheduler, bus) = server_with_permissions().await;
    let (us, eu, job) = (region("us"), region("eu"), job());
    let patience = Duration::from_secs(2);
    for (region, name) in [(&eu, "w"), (&us, "other")] {
        let (events, other) = (bus.events(), worker(name));
        let publish = events.publish(region, &other, job, "forged", "m");
        assert!(tokio::time::timeout(patience, publish).await.is_err(), "{region} {name}");
    }
    let first = AttemptNumber::FIRST;
    let forged = bus.jobs();
    let forged = forged.publish(&us, Class::Cpu, JobKind::Build, job, first, &job);
    assert!(soon(forged).await.is_err());
    assert!(soon(bus.bucket(&BucketName::Leases(eu)).put("job.a", "x", None)).await.is_err());
    assert!(soon(bus.bucket(&BucketName::Records).get("job.a")).await.is_err());
    assert!(!scheduler.jobs().holds(&us, Class::Cpu, JobKind::Build, job).await.unwrap());
}

#[tokio::test]
async fn state_follows_the_server_down_and_up() {
    let (mut server, bus) = start().await;
    let mut state = bus.connection_state();
    let first = state.borrow_and_update().epoch;
    assert!(bus.is_connected());
    server.kill9().await;
    soon(state.wait_for(|state| !state.up)).await.unwrap();
    assert!(!bus.is_connected());
    server.restart().await;
    soon(state.wait_for(|state| state.up && state.epoch > first)).await.unwrap();
}

#[tokio::test]
async fn ensuring_twice_and_by_two_at_once_changes_nothing() {
    let (server, bus) = start().await;
    let other = super::connect(&server).await;
    let topology = topology();
    let (one, two) = tokio::join!(bus.ensure(&topology), other.ensure(&topology));
    one.unwrap();
    two.unwrap();
    let mut smaller = topology.clone();
    smaller.logs_max_bytes = 1 << 20;
    bus.ensure(&smaller).await.unwrap();
}
