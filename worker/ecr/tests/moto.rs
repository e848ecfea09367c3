//! Real HTTP endpoints of STS and ECR: moto, behind a recorder of what it got.
#![allow(clippy::unwrap_used, missing_docs)]

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse;
use secrecy::ExposeSecret as _;
use slipway_ecr::{Config, Ecr, Error, Identity, Wanted};
use url::Url;

#[derive(Clone)]
struct Recorder {
    /// None: an STS that refuses everything.
    upstream: Option<Url>,
    seen: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

async fn forward(
    State(recorder): State<Recorder>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse {
    recorder.seen.lock().unwrap().push((headers.clone(), String::from_utf8_lossy(&body).into()));
    let Some(upstream) = &recorder.upstream else {
        return (StatusCode::FORBIDDEN, Bytes::from_static(DENIED.as_bytes()));
    };
    let mut request = reqwest::Client::new().post(upstream.join(uri.path()).unwrap());
    for (name, value) in &headers {
        if name != "host" && name != "content-length" {
            request = request.header(name, value);
        }
    }
    let answer = request.body(body).send().await.unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    (status, living(answer.bytes().await.unwrap()))
}

/// Tokens of moto ended years ago; this one lives for twelve hours.
fn living(body: Bytes) -> Bytes {
    let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(&body) else { return body };
    let end = jiff::Timestamp::now().as_second() + 43_200;
    json["authorizationData"][0]["expiresAt"] = end.into();
    json.to_string().into()
}

const DENIED: &str = "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>\
    <Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>";

#[allow(clippy::disallowed_methods, reason = "a test's own server ends with its runtime")]
async fn recorder(upstream: Option<Url>) -> (Url, Recorder) {
    let recorder = Recorder { upstream, seen: Arc::default() };
    let app = axum::Router::new().fallback(forward).with_state(recorder.clone());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, recorder)
}

fn moto() -> Url {
    let url = std::env::var("SLIPWAY_TEST_S3")
        .expect("SLIPWAY_TEST_S3 is set: run `make test`, or eval \"$(deploy/dev/stack env)\"");
    url.parse().unwrap()
}

fn ecr(endpoint: &Url) -> Ecr {
    let identity = Identity {
        access_key_id: "test".into(),
        secret_access_key: "worker-secret".to_owned().into(),
        session_token: None,
    };
    Ecr::new(Config {
        identity: Some(identity),
        sts_endpoint: Some(endpoint.clone()),
        ecr_endpoint: Some(endpoint.clone()),
        ..Config::default()
    })
    .unwrap()
}

const ORGANIZATION: &str = "018f6a5e-7e7c-7b7e-8f4a-0a1b2c3d4e5f";

fn wanted() -> Wanted {
    Wanted {
        organization: ORGANIZATION.into(),
        role: "arn:aws:iam::123456789012:role/pull".into(),
        region: "eu-west-1".into(),
    }
}

#[tokio::test]
async fn a_role_is_assumed_for_the_organization_and_its_password_remembered() {
    let (endpoint, recorder) = recorder(Some(moto())).await;
    let ecr = ecr(&endpoint);
    let login = ecr.login(wanted()).await.unwrap();
    assert_eq!(login.username, "AWS");
    assert!(!login.password.expose_secret().is_empty());
    ecr.clone().login(wanted()).await.unwrap();

    let seen = recorder.seen.lock().unwrap();
    assert_eq!(seen.len(), 2, "two calls, and none for the second time");
    let form: std::collections::BTreeMap<_, _> =
        url::form_urlencoded::parse(seen[0].1.as_bytes()).into_owned().collect();
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["RoleArn"], "arn:aws:iam::123456789012:role/pull");
    assert_eq!(form["ExternalId"], ORGANIZATION);
    assert_eq!(form["RoleSessionName"], format!("daytona-{ORGANIZATION}-pull"));
    let authorization = |n: usize| seen[n].0["authorization"].to_str().unwrap().to_owned();
    assert!(authorization(0).contains("Credential=test/"), "{}", authorization(0));
    assert!(authorization(0).contains("/eu-west-1/sts/aws4_request"));
    assert!(authorization(1).contains("/eu-west-1/ecr/aws4_request"));
    assert!(!authorization(1).contains("Credential=test/"), "not as the worker itself");
    assert!(seen[1].0.contains_key("x-amz-security-token"), "as the role");
    assert!(
        seen.iter().all(|(headers, body)| !format!("{headers:?}{body}").contains("worker-secret"))
    );
}

#[tokio::test]
async fn a_failure_is_told_and_remembered_and_without_an_identity_nothing_is_asked() {
    let (endpoint, recorder) = recorder(None).await;
    let ecr = ecr(&endpoint);
    let first = ecr.login(wanted()).await.unwrap_err();
    assert!(matches!(first, Error::Refused { .. }), "{first:?}");
    assert!(first.to_string().contains("AccessDenied: not authorized"), "{first}");
    assert_eq!(ecr.login(wanted()).await.unwrap_err(), first);
    assert_eq!(recorder.seen.lock().unwrap().len(), 1);
    let nobody = Ecr::new(Config::default()).unwrap();
    assert_eq!(nobody.login(wanted()).await.unwrap_err(), Error::NoIdentity);
}
