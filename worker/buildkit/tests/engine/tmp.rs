use crate::support::*;
use slipway_buildkit::*;
async fn go(name: &str, r: SolveRequest) {
    let b = build(r).await;
    eprintln!("=== {name}: {:?}\n{:#?}", b.outcome, b.lines());
}
#[tokio::test]
async fn tmp_quiet() {
    let proxy = TlsProxy::start().await;
    let c = Client::connect(&proxy.endpoint(), Some(proxy.client())).await.unwrap();
    let a = c.solve(on_base(&format!("RUN sleep 100; echo {}", nonce())));
    let b = client().await.solve(on_base(&format!("RUN sleep 100; echo {}", nonce())));
    let t = std::time::Instant::now();
    eprintln!("{:?} {:?}", a.outcome().await, t.elapsed());
    eprintln!("{:?} {:?}", b.outcome().await, t.elapsed());
}
#[tokio::test]
async fn tmp_misc() {
    let srv = ContextServer::start().await;
    go("wild", on_base("COPY b* /x/")).await;
    let mut r = on_base("COPY b* /x/");
    r.contexts.push(srv.add(Tree::new().file("a", 0o644, "x").into_bytes()));
    go("wild2", r).await;
    let n = nonce();
    for parent in ["slipwaytest1", "slipwaytest2"] {
        let mut r = on_base(&format!("RUN cat /proc/self/cgroup | head -3; echo {n}"));
        r.cgroup_parent = Some(parent.into());
        go("cgroup", r).await;
    }
    let mut r = on_base("COPY . /x\nRUN ls -la /x");
    r.contexts.push(srv.add(nonce().into_bytes()));
    go("no tar", r).await;
    // path escape and absolute symlink tricks between archives
    let mut r = on_base("COPY . /x\nRUN find /x");
    r.contexts.push(srv.add(Tree::new().symlink("out", "/etc").file("n", 0o644, &nonce()).into_bytes()));
    r.contexts.push(srv.add(Tree::new().file("out/evil", 0o644, "x").into_bytes()));
    go("through symlink", r).await;
    let t = std::time::Instant::now();
    go("dockerfile only whitespace", SolveRequest::new("\n\n")).await;
    eprintln!("{:?}", t.elapsed());
    let mut r = on_base("RUN id"); r.platform = "linux/arm64".parse().unwrap();
    go("arm", r).await;
    go("arg no val", on_base("ARG X\nRUN echo \"x=$X\"\nADD http://127.0.0.1:1/x /y")).await;
    go("nonutf8", { let mut r = on_base(""); r.dockerfile = [format!("FROM {}\nRUN echo '", base_image()).into_bytes(), vec![0xff, 0xfe], b"'\n".to_vec()].concat(); r }).await;
}
