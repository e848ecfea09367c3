use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use slipway_bus::services::{Error, Fault, Offer, Request};
use slipway_bus::{Bus, topology};

use super::{connect, eventually, soon, start};

const DEADLINE: Duration = Duration::from_secs(5);

fn offer() -> Offer {
    Offer {
        name: "slipway-submit".into(),
        version: "0.1.0".into(),
        description: "Submits snapshots".into(),
        subject: topology::SUBMIT.into(),
    }
}

async fn handle(request: Request<i64>) -> Result<i64, Fault> {
    if request.body < 0 {
        return Err(Fault::new(409, "no negative\nnumbers"));
    }
    Ok(request.body * 2)
}

async fn call(bus: &Bus, body: &Value) -> Result<i64, Error> {
    soon(bus.call(topology::SUBMIT, body, DEADLINE)).await
}

#[tokio::test]
async fn service_answers_refuses_and_is_gone_after_stop() {
    let (server, bus) = start().await;
    let client = connect(&server).await;
    assert!(matches!(call(&client, &1.into()).await, Err(Error::NoService { .. })));
    let service = bus.serve(offer(), handle).await.unwrap();
    assert_eq!(call(&client, &21.into()).await.unwrap(), 42);
    let Err(Error::Fault { fault, .. }) = call(&client, &(-1).into()).await else {
        panic!("no fault")
    };
    assert_eq!(fault, Fault::new(409, "no negative numbers"));
    let Err(Error::Fault { fault, .. }) = call(&client, &"text".into()).await else {
        panic!("no fault")
    };
    assert_eq!(fault.code, 400);
    service.stop().await;
    eventually(async || matches!(call(&client, &1.into()).await, Err(Error::NoService { .. })))
        .await;
}

#[tokio::test]
async fn plain_nats_clients_discover_the_service_and_read_its_errors() {
    let (server, bus) = start().await;
    let _service = bus.serve(offer(), handle).await.unwrap();
    let raw = async_nats::connect(server.url()).await.unwrap();
    let answer = raw.request(topology::SUBMIT, "-1".into()).await.unwrap();
    let headers = answer.headers.unwrap();
    assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "409");
    assert_eq!(headers.get("Nats-Service-Error").unwrap().as_str(), "no negative numbers");
    assert!(answer.payload.is_empty());

    for (verb, kind) in [("PING", "ping"), ("INFO", "info"), ("STATS", "stats")] {
        let inbox = raw.new_inbox();
        let mut answers = raw.subscribe(inbox.clone()).await.unwrap();
        raw.publish_with_reply(format!("$SRV.{verb}"), inbox, "".into()).await.unwrap();
        let answer = soon(answers.next()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["type"], format!("io.nats.micro.v1.{kind}_response"));
        assert_eq!(
            (&answer["name"], &answer["version"]),
            (&"slipway-submit".into(), &"0.1.0".into())
        );
        match verb {
            "INFO" => assert_eq!(answer["endpoints"][0]["subject"], topology::SUBMIT),
            "STATS" => {
                assert_eq!(answer["endpoints"][0]["num_requests"], 1);
                assert_eq!(answer["endpoints"][0]["num_errors"], 1);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn slow_request_does_not_hold_up_others_and_stop_waits_for_it() {
    let (_server, bus) = start().await;
    let (started, has_started) = tokio::sync::oneshot::channel();
    let (release, released) = tokio::sync::watch::channel(false);
    let started = std::sync::Mutex::new(Some(started));
    let service = bus
        .serve(offer(), move |request: Request<i64>| {
            let mut released = released.clone();
            let started = if request.body == 0 { started.lock().unwrap().take() } else { None };
            async move {
                if let Some(started) = started {
                    started.send(()).unwrap();
                    released.wait_for(|released| *released).await.unwrap();
                }
                Ok::<_, Fault>(request.body)
            }
        })
        .await
        .unwrap();
    let slow = tokio::spawn({
        let bus = bus.clone();
        async move { call(&bus, &0.into()).await }
    });
    soon(has_started).await.unwrap();
    assert_eq!(call(&bus, &7.into()).await.unwrap(), 7);
    let stopping = tokio::spawn(service.stop());
    release.send_replace(true);
    soon(stopping).await.unwrap();
    assert_eq!(soon(slow).await.unwrap().unwrap(), 0);
}
