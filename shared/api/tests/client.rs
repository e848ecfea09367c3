//! The client against servers that answer well, badly, slowly and not at all.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{OriginalUri, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use secrecy::SecretString;
use serde_json::{Value, json};
use slipway_api::client::{Client, Error, Retry, Settings, UploadError};
use slipway_api::events::{JobEvent, JobEvents};
use slipway_api::types::{CreateSnapshot, ListSnapshots};
use slipway_domain::{LogEvent, LogSeq};

/// A server on a free port of the loopback, gone when dropped.
struct Server {
    base: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "ended by the handle's drop")]
    async fn start(api: Router) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().nest("/api", api);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, task }
    }

    fn client(&self) -> Client {
        client(&self.base)
    }
}

fn client(base: &str) -> Client {
    let quick = |attempts| Retry {
        attempts,
        first: Duration::from_millis(2),
        longest: Duration::from_millis(20),
    };
    let settings = Settings {
        connect: Duration::from_secs(5),
        answer: Duration::from_millis(400),
        silence: Duration::from_millis(400),
        upload_stall: Duration::from_millis(400),
        upload_answer: Duration::from_millis(400),
        retry: quick(3),
        resume: quick(4),
    };
    Client::with_settings(base.parse().unwrap(), &SecretString::from("dtn_key"), settings).unwrap()
}

fn snapshot(name: &str) -> Value {
    json!({
        "id": "0198f1de-0000-7000-8000-000000000001", "organizationId": "o", "general": false,
        "name": name, "imageName": "", "state": "building", "size": null, "entrypoint": null,
        "cpu": 1, "gpu": 0, "mem": 1, "disk": 3, "errorReason": null,
        "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z",
        "lastUsedAt": null, "sourceSandboxId": null, "somethingNew": 1,
    })
}

fn error_body(status: u16, message: &str) -> Response {
    let body = json!({
        "path": "/api/x", "timestamp": "2026-01-01T00:00:00Z", "statusCode": status,
        "error": "Reason", "message": message, "code": "a_word",
    });
    (StatusCode::from_u16(status).unwrap(), Json(body)).into_response()
}

#[tokio::test]
async fn names_with_slashes_and_colons_stay_one_segment() {
    let handler = |Path(name): Path<String>, OriginalUri(uri): OriginalUri, headers: HeaderMap| async move {
        assert_eq!(headers[header::AUTHORIZATION], "Bearer dtn_key");
        assert_eq!(uri.path().matches('/').count(), 3, "{uri}");
        Json(snapshot(&name))
    };
    let server = Server::start(Router::new().route("/snapshots/{name}", get(handler))).await;
    for name in ["team/app:1.0", "100%", "a b", "ü?#&+;=@", "a/../b"] {
        assert_eq!(server.client().snapshot(name).await.unwrap().name, name);
    }
    for name in ["", ".", ".."] {
        assert!(matches!(server.client().snapshot(name).await, Err(Error::BadName(_))));
    }
}

#[tokio::test]
async fn a_base_with_and_without_a_path_means_the_same() {
    let list = |Query(query): Query<Value>| async move {
        assert_eq!(query, json!({"limit": "7", "name": "a&b"}));
        Json(json!({"items": [snapshot("x")], "total": 1, "page": 1, "totalPages": 1}))
    };
    let server = Server::start(Router::new().route("/snapshots", get(list))).await;
    for base in [server.base.clone(), format!("{}/", server.base), format!("{}/api/", server.base)]
    {
        let what =
            ListSnapshots { limit: Some(7), name: Some("a&b".into()), ..ListSnapshots::default() };
        assert_eq!(client(&base).list_snapshots(&what).await.unwrap().items[0].name, "x");
    }
}

#[tokio::test]
async fn error_bodies_are_read_and_others_survived() {
    let answer = |Path(id): Path<String>| async move {
        match id.as_str() {
            "json" => error_body(409, "Snapshot with name \"x\" already exists"),
            "text" => (StatusCode::IM_A_TEAPOT, "short and stout\nmore").into_response(),
            "html" => (StatusCode::BAD_REQUEST, "<html><body>proxy</body>").into_response(),
            _ => "not json".into_response(),
        }
    };
    let server = Server::start(Router::new().route("/v1/jobs/{id}", get(answer))).await;
    let refused = async |id| match server.client().job(id).await {
        Err(Error::Refused { status, message, code, .. }) => (status, message, code),
        other => panic!("{other:?}"),
    };
    let (status, message, code) = refused("json").await;
    assert_eq!((status, message.as_str()), (409, "Snapshot with name \"x\" already exists"));
    assert_eq!(code.as_deref(), Some("a_word"));
    let (status, message, _) = refused("text").await;
    assert_eq!(status, 418);
    assert_eq!(message, "GET /api/v1/jobs/text: 418 I'm a teapot: short and stout");
    assert_eq!(refused("html").await.1, "GET /api/v1/jobs/html: 400 Bad Request");
    assert!(matches!(server.client().job("nonsense").await, Err(Error::Malformed { .. })));
}

#[tokio::test]
async fn only_what_may_be_made_twice_is_repeated() {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let busy = move || {
        let asked = counter.fetch_add(1, Ordering::SeqCst);
        async move {
            match asked {
                0 | 1 => ([(header::RETRY_AFTER, "0")], error_body(503, "busy")).into_response(),
                _ => Json(json!({"items": [], "total": 0, "page": 1, "totalPages": 0}))
                    .into_response(),
            }
        }
    };
    let server =
        Server::start(Router::new().route("/snapshots", get(busy.clone()).post(busy))).await;
    let client = server.client();
    assert_eq!(client.list_snapshots(&ListSnapshots::default()).await.unwrap().total, 0);
    assert_eq!(asked.swap(0, Ordering::SeqCst), 3);

    let refused = client.create_snapshot(&CreateSnapshot::default()).await.unwrap_err();
    assert_eq!((refused.status(), refused.retry_after()), (Some(503), Some(Duration::ZERO)));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_apart() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = client(&base).workers().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.to_string(), format!("`{base}/api` cannot be reached"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_for_ever() {
    let asked = Arc::new(AtomicU32::new(0));
    let counter = asked.clone();
    let never = move || {
        counter.fetch_add(1, Ordering::SeqCst);
        std::future::pending::<()>()
    };
    let server = Server::start(Router::new().route("/v1/regions", get(never))).await;
    let begun = Instant::now();
    let error = server.client().regions().await.unwrap_err();
    assert!(matches!(error, Error::Interrupted { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// The log of one attempt: `count` lines and the end, as events on the wire.
fn log(count: u32) -> Vec<(u64, String)> {
    let first = 1_u64 << 32;
    let line = |n: u32| {
        let seq = first + u64::from(n);
        let data = json!({
            "seq": seq, "time": "2026-01-01T00:00:00Z", "kind": "line", "source": "stdout",
            "text": format!("line {n}: äöü"),
        });
        (seq, format!("event: log\nid: {seq}\ndata: {data}\n\n"))
    };
    let end = LogSeq::END.get();
    let data = json!({
        "seq": end, "time": "2026-01-01T00:00:01Z", "kind": "end", "state": "succeeded",
        "reason": null,
    });
    (1..=count)
        .map(line)
        .chain([(end, format!("event: end\nid: {end}\ndata: {data}\n\n"))])
        .collect()
}

/// How one connection of the log server ends.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Broken after so many bytes.
    Broken(usize),
    /// Ended properly, but too early.
    Closed(usize),
    /// Nothing more comes.
    Silent(usize),
    /// Refused from the start.
    Status(u16),
}

#[derive(Clone)]
struct LogServer {
    log: Arc<Vec<(u64, String)>>,
    cuts: Arc<Mutex<VecDeque<Cut>>>,
    resumed: Arc<Mutex<Vec<u64>>>,
}

impl LogServer {
    async fn start(count: u32, cuts: &[Cut]) -> (Server, Self) {
        let own = Self {
            log: Arc::new(log(count)),
            cuts: Arc::new(Mutex::new(cuts.iter().copied().collect())),
            resumed: Arc::default(),
        };
        let router = Router::new().route("/v1/jobs/{id}/logs", get(Self::serve));
        (Server::start(router.with_state(own.clone())).await, own)
    }

    async fn serve(State(own): State<Self>, headers: HeaderMap) -> Response {
        let after = headers.get("last-event-id");
        let after = after.map_or(0, |id| id.to_str().unwrap().parse().unwrap());
        own.resumed.lock().unwrap().push(after);
        // Some that were sent already come again, as after a failed-over server.
        let rest = own.log.iter().filter(|(seq, _)| *seq + 2 > after);
        let text: String = rest.map(|(_, event)| event.as_str()).collect();
        let text = format!(": hello\n\nevent: new\ndata: x\n\n{text}");
        let cut = own.cuts.lock().unwrap().pop_front();
        let until = |at: usize| Bytes::copy_from_slice(&text.as_bytes()[..at.min(text.len())]);
        let sent = |at| stream::iter([Ok::<_, std::io::Error>(until(at))]);
        match cut {
            None => Body::from(text).into_response(),
            Some(Cut::Broken(at)) => {
                let broken = stream::once(async {
                    // What came before has to leave first.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    Err(std::io::Error::other("cut"))
                });
                Body::from_stream(sent(at).chain(broken)).into_response()
            }
            Some(Cut::Closed(at)) => Body::from_stream(sent(at)).into_response(),
            Some(Cut::Silent(at)) => {
                Body::from_stream(sent(at).chain(stream::pending())).into_response()
            }
            Some(Cut::Status(status)) => error_body(status, "not now"),
        }
    }
}

/// Sequence numbers in the order in which they came, and how it ended.
async fn follow(mut events: JobEvents) -> (Vec<u64>, Option<Error>) {
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(JobEvent::Log(entry)) => seen.push(entry.seq.get()),
            Ok(JobEvent::Job(_) | JobEvent::Reconnecting { .. }) => {}
            Err(error) => return (seen, Some(error)),
        }
    }
    (seen, None)
}

#[tokio::test]
async fn a_cut_log_is_resumed_without_gap_or_duplicate() {
    let whole: Vec<u64> = log(20).iter().map(|(seq, _)| *seq).collect();
    let size: usize = log(20).iter().map(|(_, event)| event.len()).sum();
    for step in (0..size).step_by(211) {
        let cuts = [Cut::Broken(step), Cut::Closed(step / 2), Cut::Broken(size - step)];
        let (server, log) = LogServer::start(20, &cuts).await;
        let events = server.client().job_events("job", LogSeq::ZERO, true).unwrap();
        let (seen, error) = follow(events).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(seen, whole);
        let resumed = log.resumed.lock().unwrap();
        assert!(resumed.is_sorted(), "{resumed:?}");
    }
}

#[tokio::test]
async fn a_log_that_falls_silent_or_is_refused_for_now_is_resumed() {
    let cuts = [Cut::Status(503), Cut::Silent(700), Cut::Status(502), Cut::Status(429)];
    let (server, log) = LogServer::start(9, &cuts).await;
    let events = server.client().job_events("job", LogSeq::ZERO, true).unwrap();
    let (seen, error) = follow(events).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(seen.len(), 10);
    assert_eq!(log.resumed.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn a_log_can_be_read_from_a_position_on() {
    let (server, _) = LogServer::start(9, &[]).await;
    let after = LogSeq::from_u64((1 << 32) + 7);
    let events = server.client().job_events("job", after, true).unwrap();
    let (seen, _) = follow(events).await;
    assert_eq!(seen, [(1 << 32) + 8, (1 << 32) + 9, LogSeq::END.get()]);
}

#[tokio::test]
async fn a_log_that_is_not_followed_ends_with_what_is_there() {
    let (server, _) = LogServer::start(3, &[Cut::Closed(usize::MAX), Cut::Closed(400)]).await;
    let read = async || {
        let events = server.client().job_events("job", LogSeq::ZERO, false).unwrap();
        let (seen, error) = follow(events).await;
        assert!(error.is_none());
        seen.len()
    };
    assert_eq!(read().await, 4);
    assert!(read().await < 4);
}

#[tokio::test]
async fn a_log_that_cannot_be_had_is_an_error() {
    let (server, log) = LogServer::start(3, &[Cut::Status(404)]).await;
    let events = server.client().job_events("job", LogSeq::ZERO, true).unwrap();
    assert_eq!(follow(events).await.1.unwrap().status(), Some(404));
    assert_eq!(log.resumed.lock().unwrap().len(), 1);

    let (server, log) = LogServer::start(3, &[Cut::Broken(0); 9]).await;
    let events = server.client().job_events("job", LogSeq::ZERO, true).unwrap();
    assert!(follow(events).await.1.is_some());
    assert_eq!(log.resumed.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn the_last_entry_says_how_the_job_ended() {
    let (server, _) = LogServer::start(1, &[]).await;
    let events = server.client().job_events("job", LogSeq::ZERO, true).unwrap();
    let last = events.into_stream().try_fold(None, async |_, event| Ok(Some(event))).await;
    match last.unwrap() {
        Some(JobEvent::Log(entry)) => {
            assert_eq!(entry.event, LogEvent::End { state: "succeeded".into(), reason: None });
        }
        other => panic!("{other:?}"),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the file changed")]
struct Changed;

/// A server for one context, which fails as told before it takes it.
async fn context_server(failures: Vec<u16>) -> (Server, Arc<Mutex<Vec<u8>>>) {
    let stored = Arc::new(Mutex::new(Vec::new()));
    let failures = Arc::new(Mutex::new(VecDeque::from(failures)));
    let kept = stored.clone();
    let take = move |request: Request| {
        let (kept, failures) = (kept.clone(), failures.clone());
        async move {
            let announced = request.headers()[header::CONTENT_LENGTH].to_str().unwrap().to_owned();
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await;
            let Ok(body) = body else { return StatusCode::BAD_REQUEST.into_response() };
            if let Some(status) = failures.lock().unwrap().pop_front() {
                return error_body(status, "no");
            }
            assert_eq!(announced, body.len().to_string());
            *kept.lock().unwrap() = body.to_vec();
            StatusCode::CREATED.into_response()
        }
    };
    let has = |Path(hash): Path<String>| async move {
        if hash == "aa" { StatusCode::OK } else { StatusCode::NOT_FOUND }
    };
    let router = Router::new().route("/v1/contexts/{hash}", put(take).head(has));
    (Server::start(router).await, stored)
}

#[tokio::test]
async fn contexts_are_uploaded_and_asked_for() {
    let (server, stored) = context_server(vec![503]).await;
    let client = server.client();
    assert!(client.has_context("aa").await.unwrap());
    assert!(!client.has_context("bb").await.unwrap());
    let mut opened = 0;
    let content = || {
        opened += 1;
        stream::iter(vec![
            Ok::<_, Changed>(Bytes::from_static(b"con")),
            Ok(Bytes::from_static(b"text")),
        ])
    };
    client.put_context("bb", 7, content).await.unwrap();
    assert_eq!((opened, stored.lock().unwrap().as_slice()), (2, &b"context"[..]));
}

#[tokio::test]
async fn an_upload_says_whose_fault_its_failure_is() {
    let (server, stored) = context_server(vec![413]).await;
    let client = server.client();
    let whole = || stream::iter([Ok::<_, Changed>(Bytes::from_static(b"context"))]);
    match client.put_context("bb", 7, whole).await {
        Err(UploadError::Api(error)) => assert_eq!(error.status(), Some(413)),
        other => panic!("{other:?}"),
    }
    let broken = || stream::iter(vec![Ok(Bytes::from_static(b"con")), Err(Changed)]);
    let outcome = client.put_context("bb", 7, broken).await;
    assert!(matches!(outcome, Err(UploadError::Source(Changed))), "{outcome:?}");
    let stalled =
        || stream::iter([Ok::<_, Changed>(Bytes::from_static(b"con"))]).chain(stream::pending());
    let outcome = client.put_context("bb", 7, stalled).await;
    assert!(matches!(outcome, Err(UploadError::Api(Error::Stalled { .. }))), "{outcome:?}");
    assert!(stored.lock().unwrap().is_empty());
}

#[tokio::test]
async fn plain_logs_come_as_bytes() {
    let logs = |Query(query): Query<Value>| async move { format!("{query}\n#1 [1/2] FROM\n") };
    let server = Server::start(Router::new().route("/snapshots/{id}/build-logs", get(logs))).await;
    let text = async |follow| {
        let chunks = server.client().build_logs("a/b", follow).await.unwrap();
        let chunks: Vec<Bytes> = chunks.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    };
    assert_eq!(text(true).await, "{\"follow\":\"true\"}\n#1 [1/2] FROM\n");
    assert_eq!(text(false).await, "{}\n#1 [1/2] FROM\n");
}
