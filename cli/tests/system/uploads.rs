//! Uploads straight into a bucket: moto plays STS and S3.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use slipway_tls::Identity;
use tempfile::TempDir;

use crate::amazon::{self, moto};
use crate::clients::{Kind, check_on};
use crate::cluster::{Cluster, Plan, Stores};
use crate::door;

const ROLE: &str = "arn:aws:iam::123456789012:role/uploads";

/// What was sent to STS.
type Form = BTreeMap<String, String>;

/// Moto behind TLS, as Amazon is, and what was asked of it.
#[derive(Clone, Default)]
struct Amazon {
    moto: String,
    /// Forms that were sent to STS.
    forms: Arc<Mutex<Vec<Form>>>,
    /// Method and path of what was sent to S3.
    requests: Arc<Mutex<Vec<(Method, String)>>>,
    is_away: bool,
}

impl Amazon {
    /// Serves over plain HTTP, for STS, and over TLS, for S3; returns both addresses.
    #[allow(clippy::disallowed_methods, reason = "a test's own server ends with its runtime")]
    async fn serve(&self, folder: &TempDir) -> (String, String) {
        let routes = axum::Router::new().fallback(forward).with_state(self.clone());
        let routes = routes.layer(DefaultBodyLimit::disable());
        let plain = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        door::section(folder.path());
        let (cert, key) = (folder.path().join("door.pem"), folder.path().join("door.key"));
        let identity = Identity::load(&cert, &key).unwrap();
        let secure = identity.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let sts = format!("http://{}", plain.local_addr().unwrap());
        let s3 = format!("https://{}", secure.address().unwrap());
        let same = routes.clone();
        tokio::spawn(async move { axum::serve(plain, same).await.unwrap() });
        tokio::spawn(async move { axum::serve(secure, routes).await.unwrap() });
        (sts, s3)
    }
}

async fn forward(
    State(amazon): State<Amazon>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if amazon.is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    if headers.get("content-type").is_some_and(|kind| kind == "application/x-www-form-urlencoded") {
        let form = url::form_urlencoded::parse(&body).into_owned().collect();
        amazon.forms.lock().unwrap().push(form);
    } else {
        amazon.requests.lock().unwrap().push((method.clone(), uri.path().to_owned()));
    }
    amazon::pass_on(&amazon.moto, method, &uri, &headers, &[], body).await
}

/// A cluster whose contexts lie in a bucket of their own, into which clients write.
async fn cluster(sts: &str, s3: &str, secrets: &TempDir, endpoint: String) -> (Cluster, String) {
    let bucket = format!("uploads-{}", uuid::Uuid::new_v4());
    let made = reqwest::Client::new().put(format!("{endpoint}/{bucket}")).send().await.unwrap();
    assert!(made.status().is_success(), "{}", made.status());
    let secret = secrets.path().join("secret");
    std::fs::write(&secret, "schedulers-secret\n").unwrap();
    let uploads = format!(
        "[uploads.sts]\nrole = {ROLE:?}\naccess_key_id = \"test\"\n\
         secret_access_key_file = {secret:?}\nendpoint = {sts:?}\nstorage_url = {s3:?}\n"
    );
    let stores = Stores::S3 { endpoint, bucket: bucket.clone() };
    let plan = Plan { stores, uploads: Some(uploads), ..Plan::default() };
    (Cluster::with(plan).await, bucket)
}

#[tokio::test]
async fn a_declared_image_brings_files_and_folders_into_the_bucket() {
    let folder = TempDir::new().unwrap();
    let amazon = Amazon { moto: moto(), ..Amazon::default() };
    let (sts, s3) = amazon.serve(&folder).await;
    let (cluster, bucket) = cluster(&sts, &s3, &folder, moto()).await;
    check_on(&cluster, folder.path(), Kind::Blocking, "declared").await;

    let organization = cluster.client.snapshot("declared").await.unwrap().organization_id;
    let forms = amazon.forms.lock().unwrap().clone();
    let form = &forms[0];
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["RoleSessionName"], format!("slipway-{organization}-push"));
    assert_eq!(form["DurationSeconds"], "3600");
    let policy: Value = serde_json::from_str(&form["Policy"]).unwrap();
    let resources: Vec<&Value> =
        policy["Statement"].as_array().unwrap().iter().map(|one| &one["Resource"]).collect();
    let whole = format!("arn:aws:s3:::{bucket}");
    assert_eq!(resources, [&json!(format!("{whole}/{organization}/*")), &json!(whole)]);
    // The context went to the bucket, in parts, and not through Slipway.
    let requests = amazon.requests.lock().unwrap().clone();
    let prefix = format!("/{bucket}/{organization}/");
    let written = requests.iter().filter(|(method, _)| method == Method::PUT);
    assert!(written.clone().count() > 1, "{requests:?}");
    assert!(written.clone().all(|(_, path)| path.starts_with(&prefix)), "{requests:?}");
}

#[tokio::test]
async fn without_sts_there_are_no_keys_and_the_answer_says_when_to_come_back() {
    let folder = TempDir::new().unwrap();
    let amazon = Amazon { moto: moto(), is_away: true, ..Amazon::default() };
    let (sts, s3) = amazon.serve(&folder).await;
    let (cluster, _) = cluster(&sts, &s3, &folder, moto()).await;
    let url = format!("http://{}/api/object-storage/push-access", cluster.api);
    let answer = reqwest::Client::new().get(url).bearer_auth(&cluster.key).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.headers().contains_key("retry-after"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["code"], "storage_unavailable", "{body}");
    let log = cluster.scheduler.output().line(|line| line.contains("no keys for uploads")).await;
    assert!(log.unwrap().contains("status 503"));
}
