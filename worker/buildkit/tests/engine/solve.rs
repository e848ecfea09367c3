//! Solves that succeed.

use slipway_buildkit::{BuildEvent, SolveRequest, Stream};

use crate::support::{base_image, build, nonce, on_base};

#[tokio::test]
async fn both_outputs_of_a_process_come_apart() {
    let nonce = nonce();
    let built = build(on_base(&format!("RUN echo out-{nonce}; echo err-{nonce} >&2"))).await;
    built.ok();
    assert_eq!(built.output(Stream::Stdout), [format!("out-{nonce}")]);
    assert_eq!(built.output(Stream::Stderr), [format!("err-{nonce}")]);
    let index = built.vertex(&format!("[2/2] RUN echo out-{nonce}"));
    let lines = built.lines();
    assert!(lines.iter().any(|line| line.starts_with(&format!("#{index} DONE "))), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with(&format!("out-{nonce}"))), "{lines:#?}");
}

#[tokio::test]
async fn nothing_but_the_dockerfile_is_needed() {
    build(SolveRequest::new("FROM scratch\nLABEL a=b\n")).await.ok();
}

#[tokio::test]
async fn build_args_and_target_choose_what_runs() {
    let mut request = SolveRequest::new(format!(
        "FROM {base} AS wanted\nARG WORD=default\nRUN echo \"$WORD {nonce}\"\n\
         FROM {base} AS unwanted\nRUN exit 1\n",
        base = base_image(),
        nonce = nonce(),
    ));
    request.target = Some("wanted".into());
    request.build_args.insert("WORD".into(), "a b \"c\" €".into());
    let built = build(request).await;
    built.ok();
    assert!(built.output(Stream::Stdout)[0].starts_with("a b \"c\" € "));
}

#[tokio::test]
async fn a_repeated_build_is_cached_unless_told_not_to() {
    let request = on_base(&format!("RUN echo {}", nonce()));
    assert!(!build(request.clone()).await.is_cached("RUN echo"));
    let repeated = build(request.clone()).await;
    assert!(repeated.is_cached("RUN echo"));
    assert!(repeated.output(Stream::Stdout).is_empty());
    let again = build(SolveRequest { no_cache: true, ..request }).await;
    assert!(!again.is_cached("RUN echo"));
    assert_eq!(again.output(Stream::Stdout).len(), 1);
}

#[tokio::test]
async fn secrets_reach_the_process_and_nothing_else() {
    let nonce = nonce();
    let mut request = on_base(&format!(
        "RUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = sesame && echo {nonce}"
    ));
    request.secrets.insert("token".into(), b"sesame".to_vec().into());
    let built = build(request).await;
    built.ok();
    assert_eq!(built.output(Stream::Stdout), [nonce]);
}

#[tokio::test]
async fn a_syntax_line_loads_no_frontend() {
    let dockerfile = "# syntax=127.0.0.1:1/no/frontend\nFROM scratch\nLABEL a=b\n";
    let mut request = SolveRequest::new(dockerfile);
    request.build_args.insert("BUILDKIT_SYNTAX".into(), "127.0.0.1:1/no/frontend".into());
    build(request).await.ok();
}

#[tokio::test]
async fn the_dockerfile_may_have_any_name_and_is_not_in_the_context() {
    let mut request = on_base(&format!("COPY . /all\nRUN echo {}; ls -A /all", nonce()));
    request.dockerfile_name = "docker/My Dockerfile".into();
    let built = build(request).await;
    built.ok();
    assert_eq!(built.output(Stream::Stdout).len(), 1, "{:#?}", built.lines());
}

#[tokio::test]
async fn a_slow_reader_gets_every_line_in_order() {
    let request = on_base(&format!("RUN : {}; seq 1 20000", nonce()));
    let mut solve = crate::support::client().await.solve(request);
    let mut bytes = Vec::new();
    while let Some(event) = solve.next_event().await {
        if let BuildEvent::Log { bytes: chunk, .. } = event {
            bytes.extend_from_slice(&chunk);
            // The reader that is meant: one that takes its time.
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
    solve.outcome().await.unwrap();
    let expected: String = (1..=20_000).map(|number| format!("{number}\n")).collect();
    assert!(bytes == expected.as_bytes(), "{} bytes of {}", bytes.len(), expected.len());
}

#[tokio::test]
async fn the_outcome_needs_no_reader_of_events() {
    let request = on_base(&format!("RUN : {}; seq 1 20000", nonce()));
    crate::support::client().await.solve(request).outcome().await.unwrap();
}

#[tokio::test]
async fn solves_run_side_by_side() {
    let client = crate::support::client().await;
    let solves: Vec<_> =
        (0..6).map(|_| client.solve(on_base(&format!("RUN echo {}", nonce())))).collect();
    for solve in solves {
        solve.outcome().await.unwrap();
    }
}
