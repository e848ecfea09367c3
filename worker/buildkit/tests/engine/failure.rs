//! Builds that fail, and how that is told.

use axum::http::StatusCode;
use slipway_buildkit::{Compression, ContextSource, Error, Export, SolveRequest};
use slipway_oci::Digest;

use crate::support::{ContextServer, Registry, Tree, base_image, build, nonce, on_base};

/// The error of `request`, and where it is.
async fn failed(request: SolveRequest) -> (Error, Option<(u32, u32, u32)>) {
    let error = build(request).await.outcome.unwrap_err();
    let place = error.location().map(|place| (place.line, place.end_line, place.column));
    (error, place)
}

#[tokio::test]
async fn a_failed_run_tells_command_exit_code_and_lines() {
    let built = build(on_base("\nRUN echo one && \\\n    exit 42")).await;
    let Error::ProcessFailed { command, exit_code, location } = built.error() else {
        panic!("{:?}", built.outcome)
    };
    let location = location.as_ref().unwrap();
    assert_eq!((command.as_str(), *exit_code), ("echo one &&     exit 42", 42));
    assert_eq!((location.file.as_str(), location.line, location.end_line), ("Dockerfile", 3, 4));
    assert_eq!(location.snippet, "RUN echo one && \\\n    exit 42");
    let index = built.vertex("exit 42");
    let lines = built.lines();
    let told = format!("#{index} ERROR: process");
    assert!(lines.iter().any(|line| line.starts_with(&told)), "{lines:#?}");
}

#[tokio::test]
async fn a_failed_run_of_a_large_dockerfile_is_told_like_any_other() {
    // The error carries the Dockerfile: far more than 16 KiB of trailers.
    let comment = "# a line of which there are many, as generated Dockerfiles have\n".repeat(1000);
    let (error, place) = failed(on_base(&format!("{comment}RUN exit 42"))).await;
    assert!(matches!(error, Error::ProcessFailed { exit_code: 42, .. }), "{error:?}");
    assert_eq!(place, Some((1002, 1002, 1)));
}

#[tokio::test]
async fn a_here_document_may_fail_too() {
    let (error, place) = failed(on_base("RUN <<EOF\necho one\nexit 7\nEOF")).await;
    assert!(matches!(error, Error::ProcessFailed { exit_code: 7, .. }), "{error:?}");
    assert_eq!(place, Some((2, 5, 1)));
}

#[tokio::test]
async fn faults_of_the_dockerfile_are_told_with_line_and_column() {
    let cases = [
        ("\n  RUNN echo", "unknown instruction: RUNN", Some((3, 3, 3))),
        ("COPY --bogus a b", "unknown flag", Some((2, 2, 6))),
        ("COPY one", "COPY requires at least two arguments", Some((2, 2, 1))),
        ("RUN --mount=type=foo x", "unsupported mount type", Some((2, 2, 18))),
        ("RUN <<EOF\nx", "unterminated heredoc", Some((2, 3, 1))),
        ("FROM A:B:C", "invalid reference format", Some((2, 2, 6))),
    ];
    for (instructions, message, expected) in cases {
        let (error, place) = failed(on_base(instructions)).await;
        assert!(matches!(error, Error::Dockerfile { .. }), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(place, expected, "{error}");
        assert!(!error.is_retryable());
    }
    for dockerfile in ["", "RUN x\n"] {
        let (error, _) = failed(SolveRequest::new(dockerfile)).await;
        assert!(matches!(error, Error::Dockerfile { .. }), "{error:?}");
    }
    let mut request = on_base("");
    request.target = Some("nope".into());
    assert!(matches!(failed(request).await.0, Error::Dockerfile { location: None, .. }));
}

#[tokio::test]
async fn an_unknown_base_image_is_named() {
    let registry = slipway_testkit::stack::registry();
    let reference = format!("{registry}/no/such:1");
    for (request, expected) in [
        (SolveRequest::new(format!("FROM {reference}\n")), (1, 1, 6)),
        (on_base(&format!("COPY --from={reference} /a /b")), (2, 2, 13)),
    ] {
        let (error, place) = failed(request).await;
        let Error::BaseImageNotFound { reference: named, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*named, reference);
        assert_eq!(place, Some(expected));
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn a_registry_in_trouble_is_worth_another_try() {
    let registry = Registry::failing(StatusCode::INTERNAL_SERVER_ERROR).await;
    for host in [registry.host(), "127.0.0.1:1".to_owned()] {
        let (error, place) = failed(SolveRequest::new(format!("FROM {host}/a/b\n"))).await;
        assert!(matches!(error, Error::BaseImageUnavailable { .. }), "{error:?}");
        assert!(error.is_retryable());
        assert_eq!(place, Some((1, 1, 6)));
    }
}

#[tokio::test]
async fn a_missing_copy_source_is_named() {
    let base = base_image();
    let stage = format!("FROM {base} AS one\nFROM {base}\nCOPY --from=one /no/file /x\n");
    for (request, missing, expected) in [
        (on_base("COPY no-file /x"), "/no-file", (2, 2, 6)),
        (on_base("ADD no-file /x"), "/no-file", (2, 2, 5)),
        (SolveRequest::new(stage), "/no/file", (3, 3, 18)),
    ] {
        let (error, place) = failed(request).await;
        let Error::MissingCopySource { path, .. } = &error else { panic!("{error:?}") };
        assert_eq!(path, missing);
        assert_eq!(place, Some(expected), "{error}");
    }
}

#[tokio::test]
async fn folders_of_the_daemon_are_never_shown() {
    let base = base_image();
    let dockerfile = format!("FROM {base} AS one\nFROM {base}\nCOPY --from=one /no/file /x\n");
    let built = build(SolveRequest::new(dockerfile)).await;
    let shown = format!("{:?} {:?}", built.events, built.outcome);
    assert!(!shown.contains("buildkit-mount"), "{shown}");
}

#[tokio::test]
async fn a_missing_secret_is_named() {
    let request = on_base("RUN --mount=type=secret,id=token,required=true cat /run/secrets/token");
    let (error, place) = failed(request).await;
    assert!(matches!(&error, Error::MissingSecret { id, .. } if id == "token"), "{error:?}");
    assert_eq!(place.map(|place| place.0), Some(2));
}

#[tokio::test]
async fn a_context_that_does_not_come_is_told_from_one_that_is_wrong() {
    let server = ContextServer::start().await;
    let with = |context: ContextSource| {
        let mut request = on_base("COPY . /all");
        request.contexts.push(context);
        request
    };
    let archive = Tree::new().file("file", 0o644, &nonce()).into_bytes();
    let mut wrong = server.add(archive.clone());
    wrong.digest = Digest::sha256(nonce());
    let (error, _) = failed(with(wrong)).await;
    assert!(matches!(error, Error::ContextMismatch { .. }), "{error:?}");
    assert!(!error.is_retryable());

    let mut absent = server.add(archive.clone());
    absent.url.push_str("-absent");
    let mut closed = absent.clone();
    closed.url = "http://127.0.0.1:1/context".into();
    for context in [absent, closed] {
        let (error, _) = failed(with(context)).await;
        assert!(matches!(error, Error::ContextUnavailable { .. }), "{error:?}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_push_that_is_refused_is_told_from_one_that_fails() {
    let push = |host: &str| {
        let mut request = on_base(&format!("RUN echo {} > /file", nonce()));
        request.export = Export::PushByDigest {
            repository: format!("{host}/a/b"),
            insecure: true,
            compression: Compression::default(),
        };
        request
    };
    let private = Registry::private("user", "password").await;
    let (error, _) = failed(push(&private.host())).await;
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    let (error, _) = failed(push("127.0.0.1:1")).await;
    assert!(matches!(error, Error::PushFailed { .. }) && error.is_retryable(), "{error:?}");
    let broken = Registry::failing(StatusCode::BAD_REQUEST).await;
    let (error, _) = failed(push(&broken.host())).await;
    assert!(matches!(error, Error::PushFailed { .. }) && !error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_request_that_cannot_be_expressed_reaches_no_buildkit() {
    let mut request = on_base("");
    request.dockerfile_name = "../Dockerfile".into();
    let (error, _) = failed(request).await;
    assert!(matches!(error, Error::InvalidRequest(_)), "{error:?}");
}
