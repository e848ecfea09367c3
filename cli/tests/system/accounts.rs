//! Organizations, API keys, limits and general snapshots, through the command
//! line and the API.

use std::process::{Command, Output};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use slipway_api::account::{CreateApiKey, SetLimits};
use slipway_api::types::{CreateSnapshot, ListSnapshots};
use slipway_testkit::stack;

use crate::cluster::{Cluster, client, dockerfile, eventually};

/// Runs a command as the holder of a key.
async fn run(cluster: &Cluster, key: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway"));
    command
        .args(args)
        .env("SLIPWAY_API_URL", format!("http://{}/api", cluster.api))
        .env("SLIPWAY_API_KEY", key)
        .env_remove("RUST_LOG");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

async fn told(cluster: &Cluster, key: &str, args: &[&str]) -> String {
    let output = run(cluster, key, args).await;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {complaint}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

async fn complaint(cluster: &Cluster, key: &str, args: &[&str]) -> String {
    let output = run(cluster, key, args).await;
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8(output.stderr).unwrap()
}

/// A request, its status and its body.
async fn ask(
    cluster: &Cluster,
    key: &str,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let url = format!("http://{}{path}", cluster.api);
    let mut request = reqwest::Client::new().request(method, url).bearer_auth(key);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn wanted(name: &str) -> CreateSnapshot {
    CreateSnapshot {
        name: name.into(),
        build_info: Some(dockerfile("RUN true")),
        ..CreateSnapshot::default()
    }
}

#[tokio::test]
async fn an_operator_makes_organizations_and_keys_and_sets_limits() {
    let cluster = Cluster::start().await;
    let root = cluster.key.clone();
    let id =
        told(&cluster, &root, &["organization", "create", "acme", "--default-region", "eu"]).await;
    assert!(
        complaint(&cluster, &root, &["organization", "create", "acme"]).await.contains("already")
    );
    let make =
        ["api-key", "create", "ci", "--organization", "acme", "--permission", "write:snapshots"];
    let key = told(&cluster, &root, &make).await;
    assert_eq!(key.len(), 68, "{key}");
    let keys = told(&cluster, &root, &["api-key", "list", "--organization", "acme"]).await;
    assert!(keys.contains("ci") && !keys.contains(&key), "{keys}");

    // The key is about its own organization, and may do what it was given.
    let own = told(&cluster, &key, &["organization", "show", "--json"]).await;
    let own: Value = serde_json::from_str(&own).unwrap();
    assert_eq!((own["id"].as_str(), own["defaultRegionId"].as_str()), (Some(&*id), Some("eu")));
    assert!(
        complaint(&cluster, &key, &["organization", "list", "--all"]).await.contains("`admin`")
    );
    assert!(
        complaint(&cluster, &key, &["organization", "show", "default"]).await.contains("not found")
    );
    assert!(complaint(&cluster, &key, &["api-key", "list"]).await.contains("manage:api_keys"));
    let theirs = client(cluster.api, &key);
    let snapshot = theirs.create_snapshot(&wanted("one")).await.unwrap();
    assert_eq!(snapshot.region_ids, ["eu"]);
    assert_eq!(theirs.delete_snapshot("one").await.unwrap_err().status(), Some(403));

    // Limits count from the next request on.
    let limits = ["organization", "set-limits", "acme", "--snapshots", "1", "--cpu", "8"];
    assert!(told(&cluster, &root, &limits).await.contains("8 CPU"));
    let error = theirs.create_snapshot(&wanted("two")).await.unwrap_err();
    assert!(error.to_string().contains("Snapshot quota exceeded. Maximum allowed: 1"), "{error}");
    let shown = told(&cluster, &key, &["organization", "show"]).await;
    assert!(shown.contains("1 of 1"), "{shown}");
    let large = CreateSnapshot { cpu: Some(9), ..wanted("large") };
    let error = theirs.create_snapshot(&large).await.unwrap_err();
    assert!(error.to_string().contains("CPU request 9 exceeds maximum allowed per sandbox (8)"));
    let reset = ["organization", "set-limits", "acme", "--reset"];
    assert!(told(&cluster, &root, &reset).await.contains("4 CPU"));

    // Whoever is suspended reads, and makes nothing.
    told(&cluster, &root, &["organization", "suspend", "acme", "--reason", "unpaid"]).await;
    let error = theirs.create_snapshot(&wanted("three")).await.unwrap_err();
    assert!(error.to_string().contains("Organization is suspended: unpaid"), "{error}");
    assert_eq!(theirs.list_snapshots(&ListSnapshots::default()).await.unwrap().total, 1);
    told(&cluster, &root, &["organization", "resume", "acme"]).await;
    theirs.create_snapshot(&wanted("three")).await.unwrap();

    told(&cluster, &root, &["api-key", "revoke", "ci", "--organization", "acme"]).await;
    assert_eq!(theirs.snapshot("one").await.unwrap_err().status(), Some(401));
}

#[tokio::test]
async fn keys_give_no_more_than_they_have_and_expire() {
    let cluster = Cluster::start().await;
    let key = |name: &str, permissions: &[&str]| CreateApiKey {
        name: name.into(),
        permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
        expires_at: None,
    };
    let manager = key("manager", &["manage:api_keys"]);
    let manager = cluster.client.create_api_key(None, &manager).await.unwrap();
    let manager = client(cluster.api, &manager.value);
    let error = manager.create_api_key(None, &key("more", &["write:snapshots"])).await.unwrap_err();
    assert_eq!(error.status(), Some(403));
    let error = manager.create_api_key(None, &key("odd", &["write:all"])).await.unwrap_err();
    assert_eq!(error.status(), Some(400));
    manager.create_api_key(None, &key("reader", &[])).await.unwrap();
    let error = manager.create_api_key(None, &key("reader", &[])).await.unwrap_err();
    assert_eq!(error.status(), Some(409));
    // On a busy machine a key may have expired before it is asked for.
    let brief = eventually("a brief key is made", async || {
        let brief = CreateApiKey {
            expires_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3)),
            ..key("brief", &[])
        };
        manager.create_api_key(None, &brief).await.ok()
    })
    .await;
    let brief = client(cluster.api, &brief.value);
    eventually("the key has expired", async || {
        brief.workers().await.err().filter(|error| error.status() == Some(401))
    })
    .await;
}

#[tokio::test]
async fn the_contracts_endpoints_answer_in_its_form() {
    let cluster = Cluster::start().await;
    let get = async |path: &str| ask(&cluster, &cluster.key, Method::GET, path, None).await;
    for path in [
        "/api/health",
        "/api/health/ready",
        "/api/config",
        "/api/shared-regions",
        "/api/regions",
        "/api/organizations",
        "/api/users/me",
        "/api/api-keys/current",
        "/api/api-keys",
        "/api/openapi.json",
        "/api/docs",
    ] {
        assert_eq!(get(path).await.0, StatusCode::OK, "{path}");
    }
    let (_, regions) = get("/api/regions").await;
    assert_eq!(regions[2]["id"], "us-east-1");
    assert_eq!(regions[0]["regionType"], "shared");
    let (_, key) = get("/api/api-keys/current").await;
    assert!(key["value"].as_str().unwrap().starts_with("dtn_***"), "{key}");
    let organization = key["userId"].as_str().unwrap();
    let (_, usage) = get(&format!("/api/organizations/{organization}/usage")).await;
    assert_eq!(usage["totalSnapshotQuota"], 30);
    for path in
        ["/api/sandbox", "/api/sandbox/x/snapshot", "/api/jobs/poll", "/api/runners/healthcheck"]
    {
        let (status, body) = ask(&cluster, &cluster.key, Method::POST, path, None).await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}");
        assert_eq!((&body["error"], &body["path"]), (&json!("Not Implemented"), &json!(path)));
    }
    let (status, body) = get("/api/snapshots?limit=201").await;
    assert_eq!(
        (status, &body["message"]),
        (StatusCode::BAD_REQUEST, &json!("`limit` must be between 1 and 200"))
    );
    let (status, body) = get("/api/snapshots/no%2Fsuch%3A1").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["message"], "Snapshot with ID or name no/such:1 not found");
    let gpu = json!({ "name": "g", "imageName": "alpine:3.20", "gpu": 1, "gpuType": "H100", "regionId": "eu" });
    let (status, body) =
        ask(&cluster, &cluster.key, Method::POST, "/api/snapshots", Some(gpu)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        body["message"].as_str().unwrap().ends_with("Regions that have them: `us-east-1`"),
        "{body}"
    );
}

#[tokio::test]
async fn general_snapshots_are_everybodys_to_read_and_pull() {
    let cluster = Cluster::start().await;
    let (snapshot, _) = cluster.build("shared/base:1", dockerfile("RUN true")).await;
    assert_eq!(snapshot.state, "active", "{:?}", snapshot.error_reason);
    let (_, foreign, key) = cluster.foreign().await;
    assert_eq!(foreign.snapshot("shared/base:1").await.unwrap_err().status(), Some(404));
    assert_eq!(foreign.set_general(&snapshot.id, true).await.unwrap_err().status(), Some(403));

    let general = cluster.client.set_general(&snapshot.id, true).await.unwrap();
    assert!(general.general);
    let seen = foreign.snapshot("shared/base:1").await.unwrap();
    assert_eq!((seen.id, seen.general), (snapshot.id.clone(), true));
    let own = foreign.create_snapshot(&wanted("own")).await.unwrap();
    let listed = foreign.list_snapshots(&ListSnapshots::default()).await.unwrap();
    let ids: Vec<&str> = listed.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, [own.id.as_str(), snapshot.id.as_str()], "the own ones come first");
    let reference = general.reference.unwrap();
    for key in [&key, &cluster.key] {
        assert!(copies(&reference, key).await, "{reference}");
    }

    // Nobody deletes it, and others do not even look after its log.
    assert_eq!(foreign.delete_snapshot(&snapshot.id).await.unwrap_err().status(), Some(404));
    let error = cluster.client.delete_snapshot(&snapshot.id).await.unwrap_err();
    assert!(error.to_string().contains("You cannot delete a general snapshot"), "{error}");
    let private = cluster.client.set_general(&snapshot.id, false).await.unwrap();
    assert_eq!(foreign.snapshot("shared/base:1").await.unwrap_err().status(), Some(404));
    assert!(!copies(&private.reference.unwrap(), &key).await);
    cluster.client.delete_snapshot(&snapshot.id).await.unwrap();
}

/// Whether an image can be pulled whole with a key.
async fn copies(reference: &str, key: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--src-tls-verify=false", "--src-creds", &format!("x:{key}")]);
    command.arg(format!("docker://{reference}"));
    command.arg(format!("oci:{}:x", folder.path().display()));
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
    output.expect("skopeo is there: run `make deps`").status.success()
}

#[tokio::test]
async fn default_snapshots_are_made_from_the_configuration() {
    let mut cluster = Cluster::start().await;
    cluster.configure(&format!(
        "[[default_snapshots]]\nname = \"daytona-small\"\nimage = {:?}\n\
         [[default_snapshots]]\nname = \"daytona-gpu\"\nimage = {:?}\nregion = \"us-east-1\"\ngpu = 1\n\
         [rate_limit]\nrequests = 5000\n",
        stack::base_image(),
        stack::base_image()
    ));
    cluster.restart_scheduler().await;
    let small = eventually("the default snapshot is there", async || {
        let found = cluster.client.snapshot("daytona-small").await.ok();
        found.filter(|snapshot| snapshot.general)
    })
    .await;
    let ended = eventually("the default snapshot has ended", async || {
        let snapshot = cluster.client.snapshot("daytona-small").await.ok()?;
        matches!(snapshot.state.as_str(), "active" | "error").then_some(snapshot)
    })
    .await;
    assert_eq!(ended.state, "active", "{:?}", ended.error_reason);
    assert_eq!(ended.id, small.id);
    // No worker of class gpu is there, so the other one waits for it.
    let gpu = eventually("the GPU snapshot is there", async || {
        cluster.client.snapshot("daytona-gpu").await.ok().filter(|snapshot| snapshot.general)
    })
    .await;
    assert_eq!((gpu.gpu, gpu.region_ids), (1, vec!["us-east-1".to_owned()]));
    let url = format!("http://{}/api/config", cluster.api);
    let config: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(config["defaultSnapshot"], "daytona-small");

    // Each answer to a valid key says how many requests are left.
    let url = format!("http://{}/api/regions", cluster.api);
    let answer = reqwest::Client::new().get(url).bearer_auth(&cluster.key).send().await.unwrap();
    assert_eq!(answer.headers()["x-ratelimit-limit-authenticated"], "5000");
    assert!(answer.headers().contains_key("x-ratelimit-remaining-authenticated"));
    assert!(answer.headers().contains_key("x-ratelimit-reset-authenticated"));
    let tight = SetLimits { region: Some("mars".into()), ..SetLimits::default() };
    let error = cluster.client.set_limits("default", &tight).await.unwrap_err();
    assert_eq!(error.status(), Some(404));
}
