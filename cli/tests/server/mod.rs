//! A server that answers as the real one does, for one snapshot.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use futures::{StreamExt as _, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub const SNAPSHOT: &str = "0198f1de-0000-7000-8000-000000000001";
pub const JOB: &str = "0198f1de-0000-7000-8000-000000000002";
const TIME: &str = "2026-01-01T00:00:00Z";
const END: u64 = (1 << 53) - 1;

/// What the server does otherwise than well.
#[derive(Clone, Default)]
pub struct Behaviour {
    /// The build ends badly.
    pub fails: bool,
    /// The build never ends.
    pub never_ends: bool,
    /// Every connection to the log is cut after its second event, but the third.
    pub cuts_log: bool,
    /// Snapshots are refused with this status.
    pub refuses: Option<u16>,
}

/// What has reached the server.
#[derive(Clone, Default)]
pub struct Seen {
    pub contexts: BTreeMap<String, Vec<u8>>,
    pub uploads: u32,
    pub created: Vec<Value>,
    pub followers: u32,
    /// What was done to the job.
    pub changed: Vec<String>,
}

#[derive(Clone)]
struct App {
    behaviour: Behaviour,
    seen: Arc<(Mutex<Seen>, Condvar)>,
}

/// Ends with its runtime when dropped.
pub struct Server {
    app: App,
    url: String,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start(behaviour: Behaviour) -> Self {
        let app = App { behaviour, seen: Arc::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/api", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/snapshots", get(list).post(create))
            .route("/snapshots/{id}", get(read).delete(remove))
            .route("/v1/contexts/{hash}", put(upload).head(has_context))
            .route("/v1/jobs", get(list_jobs))
            .route("/v1/jobs/dead", get(dead_jobs))
            .route("/v1/jobs/{id}", get(read_job))
            .route("/v1/jobs/{id}/{verb}", post(change_job))
            .route("/v1/jobs/{id}/logs", get(logs))
            .route("/v1/workers", get(workers))
            .route("/v1/workers/{id}/drain", post(drain).delete(undrain))
            .route("/v1/regions", get(regions));
        let router = Router::new().nest("/api", router).with_state(app.clone());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { app, url, _runtime: runtime }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn seen(&self) -> Seen {
        self.app.seen.0.lock().unwrap().clone()
    }

    pub fn wait_until_followed(&self, limit: Duration) {
        let (seen, changed) = &*self.app.seen;
        let seen = seen.lock().unwrap();
        let (_guard, timeout) =
            changed.wait_timeout_while(seen, limit, |seen| seen.followers == 0).unwrap();
        assert!(!timeout.timed_out());
    }
}

impl App {
    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.0.lock().unwrap());
        self.seen.1.notify_all();
    }

    fn snapshot(&self, state: &str) -> Value {
        let is_active = state == "active";
        json!({
            "id": SNAPSHOT, "organizationId": "o", "general": false, "name": "team/app:1",
            "imageName": "", "state": state, "size": is_active.then_some(0.01),
            "entrypoint": is_active.then_some(["/app", "serve"]), "cpu": 1, "gpu": 0, "mem": 1,
            "disk": 3, "errorReason": (state == "build_failed").then_some("it failed"),
            "createdAt": TIME, "updatedAt": TIME, "lastUsedAt": null, "sourceSandboxId": null,
            "regionIds": ["eu"], "jobId": JOB,
            "digest": is_active.then(|| format!("sha256:{}", "ab".repeat(32))),
            "ref": is_active.then_some("127.0.0.1:5000/o/snapshots@sha256:abab"),
        })
    }

    fn job(&self, state: &str, waiting: Option<&str>) -> Value {
        let failure = json!({
            "kind": "run_failed", "message": "RUN make failed with exit code 2",
            "location": {"line": 3, "snippet": "RUN make \\\n    all"}, "exitCode": 2,
        });
        let ended = self.behaviour.fails && state != "running" && waiting.is_none();
        json!({
            "id": JOB, "snapshotId": SNAPSHOT, "snapshotName": "team/app:1", "kind": "build",
            "region": "eu", "class": "cpu", "state": state, "waiting": waiting,
            "failure": ended.then_some(&failure),
            "attempts": match waiting {
                Some(_) => json!([]),
                None => json!([{
                    "number": 1, "worker": "eu-1", "startedAt": TIME, "endedAt": null,
                    "failure": null,
                }]),
            },
            "cachedSteps": 2, "totalSteps": 5, "createdAt": TIME, "updatedAt": TIME,
        })
    }
}

async fn create(State(app): State<App>, Json(body): Json<Value>) -> Response {
    if let Some(status) = app.behaviour.refuses {
        let body = json!({
            "path": "/api/snapshots", "timestamp": TIME, "statusCode": status, "error": "x",
            "message": format!("refused with {status}"),
        });
        return (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    }
    app.see(|seen| seen.created.push(body));
    Json(app.snapshot("building")).into_response()
}

async fn list(State(app): State<App>) -> Json<Value> {
    let items = ["active", "building"].map(|state| {
        let mut snapshot = app.snapshot(state);
        snapshot["createdAt"] = days_ago(3).into();
        snapshot
    });
    Json(json!({"items": items, "total": 2, "page": 1, "totalPages": 1}))
}

async fn read(State(app): State<App>, Path(id): Path<String>) -> Json<Value> {
    assert!(id == SNAPSHOT || id == "team/app:1", "{id}");
    Json(app.snapshot(if app.behaviour.fails { "build_failed" } else { "active" }))
}

/// For columns that say how long ago something was.
fn days_ago(days: i64) -> String {
    (jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days)).to_string()
}

async fn remove() -> StatusCode {
    StatusCode::OK
}

async fn has_context(State(app): State<App>, Path(hash): Path<String>) -> StatusCode {
    let seen = app.seen.0.lock().unwrap();
    if seen.contexts.contains_key(&hash) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn upload(State(app): State<App>, Path(hash): Path<String>, request: Request) -> StatusCode {
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    assert_eq!(hex::encode(Sha256::digest(&body)), hash);
    app.see(|seen| {
        seen.uploads += 1;
        seen.contexts.insert(hash, body.to_vec());
    });
    StatusCode::CREATED
}

async fn read_job(State(app): State<App>) -> Json<Value> {
    Json(app.job(if app.behaviour.fails { "failed" } else { "succeeded" }, None))
}

async fn list_jobs(State(app): State<App>) -> Json<Value> {
    let mut waiting = app.job("queued", Some("no worker of class cpu in eu"));
    waiting["createdAt"] = days_ago(1).into();
    let mut done = app.job("succeeded", None);
    done["createdAt"] = days_ago(3).into();
    Json(json!({"items": [waiting, done], "next": null}))
}

async fn dead_jobs(State(app): State<App>) -> Json<Value> {
    let mut job = app.job("dead", None);
    job["createdAt"] = days_ago(1).into();
    job["failure"] = json!({
        "kind": "buildkit_unavailable", "message": "gave up after 5 attempts: BuildKit is gone",
    });
    Json(json!({"items": [job], "next": null}))
}

async fn change_job(State(app): State<App>, Path((id, verb)): Path<(String, String)>) -> Response {
    if id != JOB {
        let body = json!({
            "path": "/api/v1/jobs", "timestamp": TIME, "statusCode": 409, "error": "Conflict",
            "message": format!("job `{id}` is running: only a dead job can be redriven or dropped"),
        });
        return (StatusCode::CONFLICT, Json(body)).into_response();
    }
    app.see(|seen| seen.changed.push(verb));
    Json(app.job("queued", None)).into_response()
}

async fn logs(State(app): State<App>, headers: HeaderMap) -> Response {
    let after = headers.get("last-event-id");
    let after: u64 = after.map_or(0, |id| id.to_str().unwrap().parse().unwrap());
    let first = 1_u64 << 32;
    let event = |name: &str, seq: u64, mut data: Value| {
        data["seq"] = seq.into();
        data["time"] = TIME.into();
        format!("event: {name}\nid: {seq}\ndata: {data}\n\n")
    };
    let line = |n: u64, text: &str| {
        let data = json!({"kind": "line", "source": "stdout", "text": text});
        (first + n, event("log", first + n, data))
    };
    let step = json!({"kind": "step", "step": 2, "name": "[2/2] COPY", "status": "running"});
    let state = if app.behaviour.fails { "failed" } else { "succeeded" };
    let reason = app.behaviour.fails.then_some("RUN make failed");
    let end = event("end", END, json!({"kind": "end", "state": state, "reason": reason}));
    let log = [
        line(1, "#1 [1/2] FROM scratch"),
        (first + 2, event("log", first + 2, step)),
        line(3, "#3 hello from the build"),
        line(4, "#3 DONE 0.1s"),
        (END, end),
    ];
    let waiting = app.job("queued", Some("no worker of class cpu in eu"));
    let job = |job: Value| format!("event: job\ndata: {job}\n\n");
    let jobs = [job(waiting), job(app.job("running", None))];
    let events: Vec<String> =
        log.into_iter().filter(|(seq, _)| *seq > after).map(|(_, event)| event).collect();
    app.see(|seen| seen.followers += 1);
    let sent = jobs.into_iter().chain(events);
    let text: Vec<String> = match app.behaviour {
        Behaviour { never_ends: true, .. } => sent.take(4).collect(),
        Behaviour { cuts_log: true, .. } if after < first + 4 => sent.take(4).collect(),
        _ => sent.collect(),
    };
    let sent = stream::iter([Ok::<_, std::io::Error>(Bytes::from(text.concat()))]);
    if app.behaviour.never_ends {
        return Body::from_stream(sent.chain(stream::pending())).into_response();
    }
    Body::from_stream(sent).into_response()
}

async fn workers() -> Json<Value> {
    let mut last = worker("us-east-1-2", true);
    last["drained"] = true.into();
    last["running"] = 0.into();
    Json(json!([worker("eu-1", false), worker("us-east-1-1", true), last]))
}

fn worker(id: &str, draining: bool) -> Value {
    let (region, _) = id.rsplit_once('-').unwrap();
    let is_gpu = region == "us-east-1";
    json!({
        "id": id, "region": region, "slots": 4, "running": 1,
        "classes": if is_gpu { json!(["cpu", "gpu"]) } else { json!(["cpu"]) },
        "gpu": is_gpu.then_some("simulated"), "version": "0.1.0", "buildkit": "v0.31.0",
        "registry": "127.0.0.1:5000", "draining": draining, "drained": false,
        "startedAt": days_ago(1),
    })
}

async fn drain(
    State(app): State<App>,
    Path(id): Path<String>,
    uri: axum::http::Uri,
) -> Json<Value> {
    app.see(|seen| seen.changed.push(format!("drain {id} {}", uri.query().unwrap_or("-"))));
    Json(worker(&id, true))
}

async fn undrain(State(app): State<App>, Path(id): Path<String>) -> StatusCode {
    app.see(|seen| seen.changed.push(format!("undrain {id}")));
    StatusCode::NO_CONTENT
}

async fn regions() -> Json<Value> {
    Json(json!([{
        "id": "eu", "default": true, "classes": ["cpu"], "workers": 1, "gpus": [],
        "registry": "127.0.0.1:5000", "queued": 0, "running": 1,
    }, {
        "id": "us-east-1", "default": false, "classes": ["cpu", "gpu"], "workers": 0,
        "gpus": ["simulated"], "registry": null, "queued": 3, "running": 0,
    }]))
}
