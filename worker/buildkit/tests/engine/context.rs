//! Build contexts: what is in the archives is what the Dockerfile sees.

use slipway_buildkit::Stream;

use crate::support::{Built, ContextServer, Tree, build, nonce, on_base};

/// Shows each entry of the context as `path|mode|owner|kind|content or target`.
const SHOW: &str = r#"COPY . /all
RUN cd /all && find . -mindepth 1 | sort | while read -r path; do \
    kind=$(stat -c %F "$path"); \
    case "$kind" in symlink*|symbolic*) what=$(readlink "$path");; directory) what=;; *) what=$(cat "$path");; esac; \
    echo "$(stat -c '%n|%a|%u:%g|' "$path")$kind|$what"; \
  done"#;

fn shown(built: &Built) -> Vec<String> {
    built.ok();
    built.output(Stream::Stdout)
}

#[tokio::test]
async fn entries_survive_as_they_are() {
    let server = ContextServer::start().await;
    let nonce = nonce();
    let tree = Tree::new()
        .folder("empty", 0o711)
        .file("Grüße aus Köln.txt", 0o644, "ü")
        .file("a name/with spaces", 0o600, &nonce)
        .file("run.sh", 0o755, "#!/bin/sh")
        .file("suid", 0o4755, "s")
        .symlink("link", "run.sh")
        .symlink("dangling", "/no/where")
        .symlink("empty/up", "../a name")
        .owned_file("owned", 0o640, (1234, 5678), "o");
    let mut request = on_base(SHOW);
    request.contexts.push(server.add(tree.into_bytes()));
    let lines = shown(&build(request).await);
    let line = |path: &str| {
        let start = format!("./{path}|");
        let found = lines.iter().find_map(|line| line.strip_prefix(&start));
        found.unwrap_or_else(|| panic!("no `{path}` in {lines:#?}")).to_owned()
    };
    assert_eq!(line("empty"), "711|0:0|directory|");
    assert_eq!(line("Grüße aus Köln.txt"), "644|0:0|regular file|ü");
    assert_eq!(line("a name/with spaces"), format!("600|0:0|regular file|{nonce}"));
    assert_eq!(line("run.sh"), "755|0:0|regular file|#!/bin/sh");
    assert_eq!(line("suid"), "4755|0:0|regular file|s");
    assert_eq!(line("link"), "777|0:0|symbolic link|run.sh");
    assert_eq!(line("dangling"), "777|0:0|symbolic link|/no/where");
    assert_eq!(line("empty/up"), "777|0:0|symbolic link|../a name");
    // `docker build` sends every file as root's. Here the archive decides.
    assert_eq!(line("owned"), "640|1234:5678|regular file|o");
    assert_eq!(lines.len(), 10, "{lines:#?}");
}

#[tokio::test]
async fn later_archives_replace_what_earlier_ones_hold() {
    let server = ContextServer::start().await;
    let nonce = nonce();
    let first = Tree::new().file("only-first", 0o644, &nonce).file("both", 0o600, "first");
    let second = Tree::new().file("both", 0o644, "second").file("sub/only-second", 0o644, "2");
    let third = Tree::new().file("third", 0o644, "3").hard_link("linked", "third");
    let mut request = on_base(SHOW);
    request.contexts =
        [first, second, third].map(|tree| server.add(tree.into_bytes())).into_iter().collect();
    let lines = shown(&build(request).await);
    assert_eq!(
        lines,
        [
            "./both|644|0:0|regular file|second".to_owned(),
            "./linked|644|0:0|regular file|3".to_owned(),
            format!("./only-first|644|0:0|regular file|{nonce}"),
            "./sub|755|0:0|directory|".to_owned(),
            "./sub/only-second|644|0:0|regular file|2".to_owned(),
            "./third|644|0:0|regular file|3".to_owned(),
        ]
    );
}

#[tokio::test]
async fn patterns_leave_out_what_they_match() {
    let server = ContextServer::start().await;
    let plain = Tree::new().file("plain.o", 0o644, &nonce());
    let tree = Tree::new()
        .file("main.c", 0o644, "c")
        .file("main.o", 0o644, "o")
        .file("keep.o", 0o644, "kept")
        .file("target/debug/app", 0o755, "app")
        .file("deep/er/main.o", 0o644, "deep")
        .symlink("link.c", "main.c");
    let mut filtered = server.add(tree.into_bytes());
    filtered.excludes = ["**/*.o", "!keep.o", "/target"].map(str::to_owned).into();
    let mut request = on_base(SHOW);
    request.contexts = vec![server.add(plain.into_bytes()), filtered];
    let lines = shown(&build(request).await);
    let paths: Vec<&str> = lines.iter().filter_map(|line| line.split('|').next()).collect();
    assert_eq!(paths, ["./deep", "./deep/er", "./keep.o", "./link.c", "./main.c", "./plain.o"]);
}

#[tokio::test]
async fn an_archive_is_fetched_once_whatever_its_address() {
    let server = ContextServer::start().await;
    let archive = Tree::new().file("file", 0o644, &nonce()).into_bytes();
    let first = server.add(archive.clone());
    let elsewhere = server.add(archive);
    for context in [&first, &first, &elsewhere] {
        let mut request = on_base("COPY . /all");
        request.contexts.push(context.clone());
        build(request).await.ok();
    }
    assert_eq!(server.requests_for(&first), 1);
    assert_eq!(server.requests_for(&elsewhere), 0);
}

#[tokio::test]
async fn addresses_of_contexts_are_never_shown() {
    let server = ContextServer::start().await;
    let good = server.add(Tree::new().file("file", 0o644, &nonce()).into_bytes());
    let mut bad = good.clone();
    bad.digest = slipway_oci::Digest::sha256(nonce());
    for context in [good, bad] {
        let mut request = on_base("COPY . /all");
        request.contexts.push(context);
        let built = build(request).await;
        let shown = format!("{:?} {:?} {:?}", built.events, built.outcome, built.lines());
        assert!(!shown.contains("/contexts/"), "{shown}");
    }
}
