#![allow(clippy::all)]
use std::time::{Duration, Instant};
use slipway_bus::{Config, Topology, topology::BucketName, bucket::{Batch, Change, Expected}};
use slipway_domain::{spec::JobKind, Class, JobId, AttemptNumber};
use slipway_testkit::NatsServer;
#[tokio::test]
async fn idle_puller() {
    let server = NatsServer::start().await;
    let bus = slipway_bus::connect(&Config::new(server.url(), "t")).await.unwrap();
    let us: slipway_domain::Region = "us".parse().unwrap();
    bus.ensure(&Topology::single(us.clone())).await.unwrap();
    let q = bus.jobs(); let p = q.puller(&us, Class::Cpu);
    let h = tokio::spawn({ let p = p.clone(); async move { let t = Instant::now(); let d = p.next::<JobId>(std::future::pending()).await.unwrap(); (t.elapsed(), d.delivered) } });
    for _ in 0..8 { tokio::time::sleep(Duration::from_secs(5)).await; eprintln!("{:?}", q.pending(&us, Class::Cpu).await.unwrap()); }
    let j = JobId::from_uuid(uuid::Uuid::now_v7());
    q.publish(&us, Class::Cpu, JobKind::Build, j, AttemptNumber::FIRST, &j).await.unwrap();
    eprintln!("got {:?}", h.await.unwrap());
}
#[tokio::test]
async fn paused() {
    let server = NatsServer::start().await;
    let bus = slipway_bus::connect(&Config::new(server.url(), "t")).await.unwrap();
    let us: slipway_domain::Region = "us".parse().unwrap();
    bus.ensure(&Topology::single(us.clone())).await.unwrap();
    let r = bus.bucket(&BucketName::Records);
    let mut w = r.watch(None); assert_eq!(w.next().await.unwrap(), Change::Ready);
    let q = bus.jobs(); let p = q.puller(&us, Class::Cpu);
    let h = tokio::spawn({ let p = p.clone(); async move { let t = Instant::now(); let d = p.next::<JobId>(std::future::pending()).await.unwrap(); d.ack().await.unwrap(); (t.elapsed(), d.delivered) } });
    let hw = tokio::spawn(async move { let t = Instant::now(); loop { let c = w.next().await.unwrap(); eprintln!("change {c:?} {:?}", t.elapsed()); if matches!(c, Change::Put(_)) { return; } } });
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.child().pause(); tokio::time::sleep(Duration::from_secs(25)).await; eprintln!("resume"); server.child().resume();
    let t = Instant::now();
    let j = JobId::from_uuid(uuid::Uuid::now_v7());
    q.publish(&us, Class::Cpu, JobKind::Build, j, AttemptNumber::FIRST, &j).await.unwrap();
    r.put("a", "1", None).await.unwrap(); eprintln!("written {:?}", t.elapsed());
    eprintln!("got {:?} {:?}", h.await.unwrap(), t.elapsed()); hw.await.unwrap(); eprintln!("watch {:?}", t.elapsed());
    eprintln!("{:?}", q.pending(&us, Class::Cpu).await.unwrap());
}
#[tokio::test]
async fn big_watch() {
    let server = NatsServer::start().await;
    let bus = slipway_bus::connect(&Config::new(server.url(), "t")).await.unwrap();
    bus.ensure(&Topology::single("us".parse().unwrap())).await.unwrap();
    let r = bus.bucket(&BucketName::Records);
    let v = "x".repeat(500); let t = Instant::now();
    for i in 0..100 { let mut b = Batch::new(); for n in 0..1000 { b.put(format!("job.{i}.{n}"), &v, Expected::Any).unwrap(); } r.commit(&b).await.unwrap(); }
    eprintln!("filled 100k in {:?}", t.elapsed());
    let t = Instant::now(); let mut w = r.watch(None); let mut n = 0;
    loop { match w.next().await.unwrap() { Change::Ready => break, _ => n += 1 } }
    eprintln!("watch {n} in {:?}", t.elapsed());
    let t = Instant::now(); for n in 0..200 { r.get(&format!("job.1.{n}")).await.unwrap().unwrap(); } eprintln!("get {:?}", t.elapsed() / 200);
    let t = Instant::now(); for n in 0..200 { let mut b = Batch::new(); for k in ["snapshot","name","job"] { b.put(format!("{k}.new.{n}"), &v, Expected::Absent).unwrap(); } r.commit(&b).await.unwrap(); } eprintln!("3-key create batch {:?}", t.elapsed() / 200);
    let mut q = bus.jobs(); let us = "us".parse().unwrap(); let p = q.puller(&us, Class::Cpu); let t = Instant::now();
    for _ in 0..200 { let j = JobId::from_uuid(uuid::Uuid::now_v7()); q.publish(&us, Class::Cpu, JobKind::Build, j, AttemptNumber::FIRST, &j).await.unwrap(); let d = p.next::<JobId>(std::future::pending()).await.unwrap(); d.ack().await.unwrap(); }
    eprintln!("publish+pull+ack {:?}", t.elapsed() / 200); let _ = &mut q;
}
