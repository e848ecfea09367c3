//! The token dance: what is asked, with what, and how often.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use slipway_oci::MediaType;
use slipway_source::{Client, Config, Credential, Error, Fault, NoCredentials};

use crate::image::{Content, noise};
use crate::upstream::{Seen, Upstream, error};
use crate::{For, basic, chain, client, config, fetch, resolve_with};

/// A registry that wants `token` from the token server.
async fn registry(server: &Upstream, token: &'static str) -> Upstream {
    let mut content = Content::default();
    let layer = content.blob(MediaType::OciLayerGzip, noise(1, 1000));
    let root = content.image("linux/amd64", &[layer]);
    let registry = Upstream::start(content, &root).await;
    let realm = server.url("/token");
    registry.hook(move |seen| challenge(seen, &realm, token));
    registry
}

fn challenge(seen: &Seen, realm: &str, token: &str) -> Option<Response> {
    if seen.header("authorization") == Some(&format!("Bearer {token}")) || seen.path == "/v2/" {
        return None;
    }
    let text =
        format!("Bearer realm=\"{realm}\",service=\"test\",scope=\"repository:team/app:pull\"");
    let body = error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", "authentication required");
    Some(([("www-authenticate", text)], body).into_response())
}

fn token(value: &str, lasts: u64) -> Response {
    Json(json!({ "token": value, "expires_in": lasts })).into_response()
}

#[tokio::test]
async fn a_token_is_fetched_once_for_a_scope() {
    let server = Upstream::empty().await;
    server.hook(|_| Some(token("abc", 300)));
    let registry = registry(&server, "abc").await;
    let client = client();
    let credentials = For(registry.address.to_string(), basic("s3cret"));
    for _ in 0..3 {
        let pull = resolve_with(&client, &registry.image(), &credentials).await.unwrap();
        fetch(&pull, &pull.image().manifest.layers[0]).await.unwrap();
    }
    let asked = server.seen();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].query, "service=test&scope=repository%3Ateam%2Fapp%3Apull");
    assert_eq!(asked[0].header("authorization"), Some("Basic dGVzdGVyOnMzY3JldA=="));
    // A password never goes to the registry itself.
    assert!(
        registry
            .seen()
            .iter()
            .all(|seen| { seen.header("authorization").is_none_or(|shown| shown == "Bearer abc") })
    );
    // Another credential is another token.
    resolve_with(&client, &registry.image(), &NoCredentials).await.unwrap();
    assert_eq!(server.seen()[1].header("authorization"), None);
}

#[tokio::test]
async fn an_identity_token_is_exchanged_by_a_form() {
    let server = Upstream::empty().await;
    server.hook(|_| Some(Json(json!({ "access_token": "abc" })).into_response()));
    let registry = registry(&server, "abc").await;
    let identity = Credential::IdentityToken("r3fresh".to_owned().into());
    let credentials = For(registry.address.to_string(), identity);
    resolve_with(&client(), &registry.image(), &credentials).await.unwrap();
    let asked = &server.seen()[0];
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert!(asked.body.starts_with("grant_type=refresh_token&"), "{}", asked.body);
    assert!(asked.body.contains("&refresh_token=r3fresh"), "{}", asked.body);
}

#[tokio::test]
async fn a_token_that_stopped_to_work_is_fetched_anew() {
    let server = Upstream::empty().await;
    let mut tokens = ["old", "new"].into_iter();
    server.hook(move |_| tokens.next().map(|value| token(value, 300)));
    let registry = registry(&server, "old").await;
    let pull = resolve_with(&client(), &registry.image(), &NoCredentials).await.unwrap();
    let realm = server.url("/token");
    registry.hook(move |seen| challenge(seen, &realm, "new"));
    fetch(&pull, &pull.image().manifest.layers[0]).await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_busy_token_server_is_asked_again() {
    let server = Upstream::empty().await;
    let mut busy = 2;
    server.hook(move |_| {
        busy -= 1;
        let status =
            if busy == 0 { StatusCode::TOO_MANY_REQUESTS } else { StatusCode::BAD_GATEWAY };
        Some(if busy >= 0 { status.into_response() } else { token("abc", 300) })
    });
    let registry = registry(&server, "abc").await;
    resolve_with(&client(), &registry.image(), &NoCredentials).await.unwrap();
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_refusal_is_told_without_the_secret() {
    let server = Upstream::empty().await;
    server.hook(|_| {
        let said = "tester:s3cret (dGVzdGVyOnMzY3JldA==) is wrong";
        Some(error(StatusCode::UNAUTHORIZED, "DENIED", said))
    });
    let registry = registry(&server, "abc").await;
    let credentials = For(registry.address.to_string(), basic("s3cret"));
    let refused = resolve_with(&client(), &registry.image(), &credentials).await.unwrap_err();
    assert_eq!(refused.fault(), Fault::Rights);
    let text = format!("{} {refused:?}", chain(&refused));
    assert!(text.contains("tester:*** (***) is wrong"), "{text}");
    assert!(!text.contains("s3cret") && !text.contains("dGVzdGVyOnMzY3JldA"), "{text}");

    // A token that the registry then does not take is a refusal as well, and
    // the registry may repeat what it was shown.
    server.hook(|_| Some(token("other", 300)));
    let refused = resolve_with(&client(), &registry.image(), &NoCredentials).await.unwrap_err();
    assert!(refused.to_string().contains("does not allow anonymous clients"), "{refused}");
}

#[tokio::test]
async fn a_token_server_that_is_none_is_said_so() {
    let answers: [fn() -> Response; 4] = [
        || "<html>".into_response(),
        || Json(json!({ "hello": 1 })).into_response(),
        || crate::upstream::redirect("https://elsewhere/"),
        || vec![b' '; 2 << 20].into_response(),
    ];
    for answer in answers {
        let server = Upstream::empty().await;
        server.hook(move |_| Some(answer()));
        let registry = registry(&server, "abc").await;
        let error = resolve_with(&client(), &registry.image(), &NoCredentials).await.unwrap_err();
        assert!(matches!(error, Error::Token { .. }), "{error:?}");
    }
    let registry = Upstream::empty().await;
    for realm in ["file:///etc/passwd", "not a url", "http://u:p@host/"] {
        registry.hook(move |seen| challenge(seen, realm, "abc"));
        let error = resolve_with(&client(), &registry.image(), &NoCredentials).await.unwrap_err();
        assert!(matches!(error, Error::Token { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_ready_token_is_shown_as_it_is() {
    let registry = registry(&Upstream::empty().await, "ready").await;
    let client = Client::new(Config { ..config() }).unwrap();
    for (value, works) in [("ready", true), ("stale", false)] {
        let credential = Credential::Bearer(value.to_owned().into());
        let credentials = For(registry.address.to_string(), credential);
        let resolved = resolve_with(&client, &registry.image(), &credentials).await;
        assert_eq!(resolved.is_ok(), works, "{resolved:?}");
    }
}
