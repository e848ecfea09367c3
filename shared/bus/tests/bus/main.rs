//! The bus against a real nats-server.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod bucket;
mod connection;
mod control;
mod events;
mod floor;
mod jobs;
mod logs;
mod services;
mod watch;

use std::time::Duration;

use slipway_bus::{Bus, Config, Topology};
use slipway_domain::{JobId, Region, WorkerId};
use slipway_testkit::NatsServer;
use uuid::Uuid;

/// A server with the topology of regions `us` and `eu`, and a bus to it.
async fn start() -> (NatsServer, Bus) {
    let server = NatsServer::start().await;
    let bus = connect(&server).await;
    bus.ensure(&topology()).await.unwrap();
    (server, bus)
}

async fn connect(server: &NatsServer) -> Bus {
    slipway_bus::connect(&Config::new(server.url(), "test")).await.unwrap()
}

fn topology() -> Topology {
    let mut topology = Topology::single(region("us"));
    topology.regions.extend(Topology::single(region("eu")).regions);
    topology.logs_max_bytes = 1 << 30;
    topology
}

fn region(name: &str) -> Region {
    name.parse().unwrap()
}

fn worker(name: &str) -> WorkerId {
    name.parse().unwrap()
}

fn job() -> JobId {
    JobId::from_uuid(Uuid::now_v7())
}

/// What must happen, within a generous time.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(40), what).await.expect("it did not happen in time")
}

/// Polls the server until `probe` holds, for what no message tells of.
async fn eventually(mut probe: impl AsyncFnMut() -> bool) {
    soon(async {
        while !probe().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
