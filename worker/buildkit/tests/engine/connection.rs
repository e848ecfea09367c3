//! The connection to BuildKit: what it says, and what is lost with it.

use slipway_buildkit::{BuildEvent, Client, Endpoint, Error, Kind};

use crate::support::{Proxy, TlsProxy, client, nonce, on_base};

#[tokio::test]
async fn a_buildkit_says_what_it_is() {
    let client = client().await;
    let info = client.info().await.unwrap();
    assert!(info.platforms.contains(&slipway_oci::Platform::linux_amd64()), "{info:?}");
    if matches!(client.endpoint(), Endpoint::Docker(_)) {
        assert_eq!(info.kind, Kind::Engine);
    }
}

#[tokio::test]
async fn nothing_at_the_endpoint_is_worth_another_try() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nobody.sock");
    for endpoint in [
        Endpoint::Docker(path.clone()),
        Endpoint::Unix(path),
        Endpoint::Tcp { host: "127.0.0.1".into(), port: 1 },
    ] {
        let error = Client::connect(&endpoint, None).await.unwrap_err();
        assert!(matches!(error, Error::EndpointUnavailable { .. }), "{error:?}");
        assert!(error.is_retryable());
        assert!(error.to_string().contains(&endpoint.to_string()), "{error}");
    }
}

#[tokio::test]
async fn a_lost_connection_ends_one_solve_and_no_other() {
    let proxy = Proxy::start();
    let client = Client::connect(proxy.endpoint(), None).await.unwrap();
    let request = on_base(&format!("RUN echo running; sleep 600; : {}", nonce()));
    let mut solve = client.solve(request);
    while !matches!(solve.next_event().await.unwrap(), BuildEvent::Log { .. }) {}
    proxy.cut();
    let error = solve.outcome().await.unwrap_err();
    assert!(matches!(error, Error::Transport { .. }), "{error:?}");
    assert!(error.is_retryable());
    client.solve(on_base(&format!("RUN echo {}", nonce()))).outcome().await.unwrap();
}

#[tokio::test]
async fn a_solve_runs_over_mutual_tls() {
    let proxy = TlsProxy::start().await;
    let client = Client::connect(&proxy.endpoint(), Some(proxy.client())).await.unwrap();
    client.solve(on_base(&format!("RUN echo {}", nonce()))).outcome().await.unwrap();
}

#[tokio::test]
async fn tls_refuses_strangers_on_either_side() {
    let proxy = TlsProxy::start().await;
    let mut wrong_name = proxy.client();
    wrong_name.server_name = "other.test".into();
    for tls in [Some(wrong_name), Some(proxy.stranger()), None] {
        let error = Client::connect(&proxy.endpoint(), tls).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
    }
}

#[tokio::test]
async fn tls_is_for_tcp_alone() {
    let proxy = TlsProxy::start().await;
    let unix = Endpoint::Unix("/nowhere.sock".into());
    let error = Client::connect(&unix, Some(proxy.client())).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
}
