//! Amazon for tests: moto, from PyPI, and what lies in front of it.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Method, Uri};
use axum::response::{IntoResponse as _, Response};

/// Where moto is.
pub fn moto() -> String {
    std::env::var("SLIPWAY_TEST_S3")
        .expect("SLIPWAY_TEST_S3 is set: run `make test`, or eval \"$(deploy/dev/stack env)\"")
}

/// Sends a request on to a server, and its answer back. Of its headers stay those
/// that are not `left_out`.
pub async fn pass_on(
    server: &str,
    method: Method,
    uri: &Uri,
    headers: &HeaderMap,
    left_out: &[&str],
    body: Bytes,
) -> Response {
    let target = format!("{server}{}", uri.path_and_query().unwrap());
    let mut request = reqwest::Client::new().request(method, target).body(body);
    for (name, value) in headers {
        if name != "content-length" && !left_out.contains(&name.as_str()) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let mut kept = answer.headers().clone();
    kept.remove("transfer-encoding");
    (status, kept, Body::from_stream(answer.bytes_stream())).into_response()
}
