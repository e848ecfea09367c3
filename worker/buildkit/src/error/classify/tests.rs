#![allow(clippy::unwrap_used)]
//! Messages as BuildKit 0.13 and 0.25 wrote them.

use super::*;
use crate::request::ContextSource;
use base64::Engine;
use bollard_buildkit_proto::google::{protobuf::Any, rpc};
use prost::Message;

/// A failure of BuildKit: its text, the lines it names, and other details.
struct Failed {
    text: &'static str,
    dockerfile: &'static str,
    lines: Option<(u32, u32)>,
    details: Vec<(&'static str, &'static str)>,
}

impl Failed {
    fn new(text: &'static str) -> Self {
        Self { text, dockerfile: "", lines: None, details: vec![] }
    }

    fn at(mut self, dockerfile: &'static str, lines: (u32, u32)) -> Self {
        (self.dockerfile, self.lines) = (dockerfile, Some(lines));
        self
    }

    fn with(mut self, kind: &'static str, json: &'static str) -> Self {
        self.details.push((kind, json));
        self
    }

    fn vertex(self) -> Self {
        self.with("github.com/moby/buildkit/errdefs.Vertex+json", r#"{"digest":"sha256:1"}"#)
    }

    fn status(&self) -> tonic::Status {
        let any = |kind: &str, json: String| Any { type_url: kind.to_owned(), value: json.into() };
        let mut details: Vec<Any> =
            self.details.iter().map(|(kind, json)| any(kind, (*json).to_owned())).collect();
        if let Some((start, end)) = self.lines {
            let data = base64::engine::general_purpose::STANDARD.encode(self.dockerfile);
            let ranges: Vec<String> = (start..=end)
                .map(|line| format!(r#"{{"start":{{"line":{line}}},"end":{{"line":{line}}}}}"#))
                .collect();
            let info = format!(r#"{{"filename":"Dockerfile","data":"{data}"}}"#);
            let json = format!(r#"{{"info":{info},"ranges":[{}]}}"#, ranges.join(","));
            details.push(any("github.com/moby/buildkit/errdefs.Source+json", json));
        }
        let attached = rpc::Status { code: 2, message: self.text.to_owned(), details };
        tonic::Status::with_details(
            tonic::Code::Unknown,
            self.text,
            attached.encode_to_vec().into(),
        )
    }

    fn error(&self) -> Error {
        let mut request = SolveRequest::new("");
        request.contexts.push(ContextSource {
            url: "http://127.0.0.1:9/s3cret".into(),
            digest: Digest::sha256("archive"),
            excludes: vec![],
        });
        let redactor = Redactor::new(&request.contexts);
        classify(&self.status(), &request, &redactor)
    }
}

#[test]
fn a_process_is_told_with_lines_command_and_exit_code() {
    let error = Failed::new(
        "process \"/bin/sh -c echo \\\"a\\\" &&   exit 42\" did not complete successfully: exit code: 42",
    )
    .at("FROM x\n\nRUN echo \"a\" && \\\n  exit 42\n", (3, 4))
    .with("github.com/moby/buildkit/gatewayapi.ExitMessage+json", r#"{"Code":42}"#)
    .vertex()
    .error();
    assert_eq!(
        error.to_string(),
        "`echo \"a\" &&   exit 42` failed with exit code 42 at Dockerfile:3:1"
    );
    let location = error.location().unwrap();
    assert_eq!((location.line, location.end_line), (3, 4));
    assert_eq!(location.snippet, "RUN echo \"a\" && \\\n  exit 42");
}

#[test]
fn a_malformed_dockerfile_is_told_with_line_and_column() {
    let told = |text, dockerfile, line| {
        let error = Failed::new(text).at(dockerfile, (line, line)).error();
        assert!(matches!(error, Error::Dockerfile { .. }), "{error:?}");
        error.to_string()
    };
    assert_eq!(
        told(
            "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)",
            "FROM x\n\n  Runn echo\n",
            3
        ),
        "unknown instruction: RUNN (did you mean RUN?) at Dockerfile:3:3"
    );
    assert_eq!(
        told("dockerfile parse error on line 1: unknown flag: bogus", "COPY --bogus a b", 1),
        "unknown flag: bogus at Dockerfile:1:6"
    );
    assert_eq!(
        told("unsupported mount type \"foo\"", "RUN --mount=type=foo é", 1),
        "unsupported mount type \"foo\" at Dockerfile:1:18"
    );
    let error = Failed::new("target stage \"nope\" could not be found").error();
    assert!(matches!(error, Error::Dockerfile { location: None, .. }));
}

#[test]
fn a_machine_without_room_is_no_fault_of_an_instruction() {
    let error = Failed::new(
        "failed to copy files: userspace copy failed: write \
         /var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/8/fs/copy: \
         no space left on device",
    )
    .at("COPY --from=0 /noise /copy", (1, 1))
    .vertex()
    .error();
    assert_eq!(error.to_string(), "BuildKit cannot go on: no space left on device");
    assert!(error.is_retryable());
}

#[test]
fn a_base_image_is_missing_refused_or_out_of_reach() {
    let error = |text| Failed::new(text).at("FROM h:1/no/such:1", (1, 1)).error();
    let missing = error(
        "h:1/no/such:1: failed to resolve source metadata for h:1/no/such:1: h:1/no/such:1: not found",
    );
    assert_eq!(missing.to_string(), "image `h:1/no/such:1` was not found at Dockerfile:1:6");
    let denied = error(
        "no/such: failed to resolve source metadata for docker.io/no/such:latest: pull access denied, \
         repository does not exist or may require authorization",
    );
    assert!(matches!(denied, Error::BaseImageNotFound { .. }), "{denied:?}");
    let refused = error(
        "h:1/a: failed to resolve source metadata for h:1/a:latest: unexpected status from HEAD \
         request to http://h:1/v2/a/manifests/latest: 401 Unauthorized",
    );
    assert!(matches!(refused, Error::Unauthorized { .. }) && !refused.is_retryable());
    for reason in [
        "unexpected status from HEAD request to http://h:1/v2/a: 500 Internal Server Error",
        "failed to do request: Head \"https://h:1/v2/a\": dial tcp 127.0.0.1:1: connect: connection refused",
        "failed to do request: Head \"https://h/v2/a\": dial tcp: lookup h on 10.0.0.1:53: no such host",
    ] {
        let text = format!("h:1/a: failed to resolve source metadata for h:1/a:latest: {reason}");
        let unavailable = error(Box::leak(text.into_boxed_str()));
        assert!(matches!(unavailable, Error::BaseImageUnavailable { .. }), "{unavailable:?}");
        assert!(unavailable.is_retryable());
    }
}

#[test]
fn a_missing_copy_source_is_named_as_the_dockerfile_has_it() {
    let dockerfile = "FROM x\nCOPY --from=y  \"no file\" /x";
    for text in [
        "failed to compute cache key: failed to calculate checksum of ref a::b: \"/no file\": not found",
        "lstat /var/lib/docker/tmp/buildkit-mount4260808373/no file: no such file or directory",
    ] {
        let error = Failed::new(text).at(dockerfile, (2, 2)).vertex().error();
        let Error::MissingCopySource { path, location } = &error else { panic!("{error:?}") };
        assert_eq!(path, "/no file");
        assert_eq!(location.as_ref().unwrap().column, 17);
    }
}

#[test]
fn a_missing_secret_is_named() {
    let error = Failed::new("secret zz: not found").at("RUN --mount=id=zz x", (1, 1)).error();
    assert_eq!(error.to_string(), "secret `zz` was not given at Dockerfile:1:16");
}

#[test]
fn a_push_is_refused_or_fails() {
    let push = |reason: &str| {
        let text = format!("failed to push 127.0.0.1:1/a/b: {reason}");
        Failed::new(Box::leak(text.into_boxed_str())).error()
    };
    let status = |status: &str| {
        push(&format!("unexpected status from PUT request to http://127.0.0.1:1/v2/a/b: {status}"))
    };
    assert!(matches!(status("401 Unauthorized"), Error::Unauthorized { .. }));
    assert!(matches!(status("403 Forbidden"), Error::Unauthorized { .. }));
    let cases = [
        (status("400 Bad Request"), false),
        (status("500 Internal Server Error"), true),
        (status("429 Too Many Requests"), true),
        (push("failed to do request: dial tcp 127.0.0.1:1: connect: connection refused"), true),
    ];
    for (error, is_retryable) in cases {
        assert!(matches!(error, Error::PushFailed { .. }), "{error:?}");
        assert_eq!(error.is_retryable(), is_retryable, "{error}");
    }
}

#[test]
fn a_context_is_out_of_reach_or_not_what_was_promised() {
    let refused = Failed::new("Get \"http://127.0.0.1:9/s3cret\": dial tcp: connection refused")
        .vertex()
        .error();
    assert!(matches!(refused, Error::ContextUnavailable { .. }) && refused.is_retryable());
    assert!(!refused.to_string().contains("s3cret"), "{refused}");
    let mismatch = Failed::new("digest mismatch sha256:aa: sha256:bb").vertex().error();
    assert!(matches!(mismatch, Error::ContextMismatch { .. }) && !mismatch.is_retryable());
    let empty = Failed::new(
        "digest mismatch sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855: sha256:bb",
    );
    assert!(matches!(empty.vertex().error(), Error::ContextUnavailable { .. }));
    let add = Failed::new("digest mismatch sha256:aa: sha256:bb").at("ADD http://x /", (1, 1));
    assert!(matches!(add.vertex().error(), Error::Other { location: Some(_), .. }));
}

#[test]
fn a_lost_daemon_is_worth_another_try() {
    let request = SolveRequest::new("");
    for status in [
        tonic::Status::unavailable("x"),
        tonic::Status::unknown("h2 protocol error: error reading a body from connection"),
        tonic::Status::from_error(Box::new(std::io::Error::other("broken pipe"))),
    ] {
        let error = classify(&status, &request, &Redactor::default());
        assert!(matches!(error, Error::Transport { .. }) && error.is_retryable(), "{error:?}");
    }
}

#[test]
fn cancellation_is_no_failure_of_the_build() {
    assert!(matches!(Failed::new("context canceled").error(), Error::Canceled));
    let status = tonic::Status::cancelled("x");
    let error = classify(&status, &SolveRequest::new(""), &Redactor::default());
    assert!(matches!(error, Error::Canceled));
}

#[test]
fn stack_traces_of_the_daemon_are_never_shown() {
    let error = Failed::new("something new")
        .with(
            "github.com/moby/buildkit/stack.Stack+json",
            r#"{"cmdline":["dockerd","--secret"],"frames":[{"name":"main.main"}]}"#,
        )
        .vertex()
        .error();
    assert!(matches!(error, Error::Other { .. }));
    assert!(!format!("{error:?}").contains("dockerd"));
}
