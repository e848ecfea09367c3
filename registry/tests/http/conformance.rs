//! The checks of the distribution specification 1.1, by its sections and
//! endpoints, as one table per workflow.

use reqwest::{Method, StatusCode};
use serde_json::json;
use slipway_oci::{Descriptor, Digest, MediaType};

use crate::harness::{ALICE, OCI_MANIFEST, Server, header, location, manifest, repository};

/// A request with the answer that a section asks for. Paths go on below the
/// repository; `{…}` stands for what was pushed before.
struct Check {
    /// Section, endpoint.
    section: &'static str,
    method: Method,
    path: &'static str,
    status: u16,
    /// Headers that the answer must have; an empty value takes any.
    headers: &'static [(&'static str, &'static str)],
}

const fn check(section: &'static str, method: Method, path: &'static str, status: u16) -> Check {
    Check { section, method, path, status, headers: &[] }
}

fn with(check: Check, headers: &'static [(&'static str, &'static str)]) -> Check {
    Check { headers, ..check }
}

struct Repository {
    server: Server,
    name: String,
    values: Vec<(&'static str, String)>,
}

impl Repository {
    /// With one image under the tags `one`, `two` and `Three`, and a referrer.
    async fn start() -> Self {
        let server = Server::start().await;
        let name = repository(1, "conformance/repo");
        let image = server.push_image(&name, "one").await;
        let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers"}}"#;
        let layer = format!("layer of {name} one");
        for tag in ["two", "Three"] {
            let manifest = manifest(config, layer.as_bytes());
            server.put_manifest(&name, tag, OCI_MANIFEST, &manifest).await;
        }
        server.push(ALICE, &name, "{}").await;
        let referrer = json!({
            "schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example", "layers": [],
            "config": Descriptor::of(MediaType::OciEmpty, b"{}"), "subject": image,
        });
        let put = server.put_manifest(&name, "referrer", OCI_MANIFEST, &referrer).await;
        assert_eq!(header(&put, "oci-subject"), image.digest.to_string());
        let values = vec![
            ("{blob}", Digest::sha256(&layer).to_string()),
            ("{manifest}", image.digest.to_string()),
            ("{missing}", Digest::sha256("nobody has this").to_string()),
        ];
        Self { server, name, values }
    }

    fn path(&self, path: &str) -> String {
        let path = format!("/v2/{}{path}", self.name);
        self.values.iter().fold(path, |path, (name, value)| path.replace(name, value))
    }

    async fn run(&self, checks: &[Check]) {
        for Check { section, method, path, status, headers } in checks {
            let path = self.path(path);
            let answer = self.server.alice(method.clone(), &path).send().await.unwrap();
            let what = format!("{section}: {method} {path}");
            assert_eq!(answer.status().as_u16(), *status, "{what}");
            for (name, wanted) in *headers {
                let wanted = self.values.iter().find(|(value, _)| value == wanted);
                let found = header(&answer, name);
                assert!(wanted.is_none_or(|(_, value)| *value == found), "{what}: {name}: {found}");
            }
            if (400..500).contains(status) && *method != Method::HEAD {
                let body: serde_json::Value = answer.json().await.unwrap();
                assert!(body["errors"][0]["code"].is_string(), "{what}: `Error Codes`");
            }
        }
    }
}

#[tokio::test]
async fn pull() {
    let repository = Repository::start().await;
    let digest: &[_] = &[("docker-content-digest", "{manifest}"), ("content-length", "")];
    let ping = repository.server.alice(Method::GET, "/v2/").send().await.unwrap();
    assert_eq!(ping.status(), StatusCode::OK, "Determining Support, end-1");
    let catalog = repository.server.alice(Method::GET, "/v2/_catalog").send().await.unwrap();
    assert_eq!(catalog.status(), StatusCode::NOT_FOUND, "no catalog: not in the specification");
    repository
        .run(&[
            with(
                check("Pulling manifests, end-3", Method::GET, "/manifests/{manifest}", 200),
                digest,
            ),
            with(check("Pulling manifests, end-3", Method::GET, "/manifests/one", 200), digest),
            check("Pulling manifests, end-3", Method::GET, "/manifests/{missing}", 404),
            check("Pulling manifests, end-3", Method::GET, "/manifests/nowhere", 404),
            with(
                check("Checking if content exists, end-3", Method::HEAD, "/manifests/one", 200),
                digest,
            ),
            with(
                check(
                    "Checking if content exists, end-3",
                    Method::HEAD,
                    "/manifests/{manifest}",
                    200,
                ),
                digest,
            ),
            check("Checking if content exists, end-3", Method::HEAD, "/manifests/{missing}", 404),
            with(
                check("Pulling blobs, end-2", Method::GET, "/blobs/{blob}", 200),
                &[("docker-content-digest", "{blob}"), ("content-length", "")],
            ),
            check("Pulling blobs, end-2", Method::GET, "/blobs/{missing}", 404),
            check("Pulling blobs, end-2", Method::GET, "/blobs/sha256:tooshort", 400),
            with(
                check("Checking if content exists, end-2", Method::HEAD, "/blobs/{blob}", 200),
                &[("docker-content-digest", "{blob}"), ("content-length", "")],
            ),
            check("Checking if content exists, end-2", Method::HEAD, "/blobs/{missing}", 404),
        ])
        .await;
}

#[tokio::test]
async fn push() {
    let repository = Repository::start().await;
    let (server, digest) = (&repository.server, Digest::sha256("hello"));
    let uploads = repository.path("/blobs/uploads/");
    let send =
        async |section: &str, method: Method, path: &str, range: &str, body: &'static str| {
            let mut request = server.alice(method, path).body(body);
            if !range.is_empty() {
                request = request.header("content-range", range);
            }
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), section.to_owned(), answer)
        };
    let begin = || send("POST then PUT, end-4a", Method::POST, &uploads, "", "");

    let (status, section, begun) = begin().await;
    assert_eq!(status, 202, "{section}");
    let upload = location(&begun);
    let put = format!("{upload}?digest={digest}");
    let (status, section, done) =
        send("POST then PUT, end-6", Method::PUT, &put, "", "hello").await;
    assert_eq!(status, 201, "{section}");
    assert_eq!(location(&done), repository.path(&format!("/blobs/{digest}")), "{section}");
    let single = format!("{uploads}?digest={digest}");
    let (status, section, _) =
        send("Single POST, end-4b", Method::POST, &single, "", "hello").await;
    assert_eq!(status, 201, "{section}: or 202 where it is not supported");

    let upload = location(&begin().await.2);
    let chunks = [
        ("0-1", "he", 202, "0-1"),
        ("3-4", "lo", 416, "0-1"), // out of order
        ("0-1", "he", 416, "0-1"), // again
        ("2-3", "ll", 202, "0-3"),
    ];
    for (range, body, wanted, stands) in chunks {
        let (status, section, answer) =
            send("Pushing a blob in chunks, end-5", Method::PATCH, &upload, range, body).await;
        assert_eq!((status, header(&answer, "range").as_str()), (wanted, stands), "{section}");
        let (status, section, answer) = send("Status, end-13", Method::GET, &upload, "", "").await;
        assert_eq!((status, header(&answer, "range").as_str()), (204, stands), "{section}");
        assert_eq!(location(&answer), upload, "{section}");
    }
    let put = format!("{upload}?digest={digest}");
    for (range, wanted) in [("3-3", 416), ("4-4", 201)] {
        let (status, section, _) = send("Closing PUT, end-6", Method::PUT, &put, range, "o").await;
        assert_eq!(status, wanted, "{section} {range}");
    }
    let upload = location(&begin().await.2);
    for wanted in [204, 404] {
        let (status, section, _) =
            send("Cancel a blob upload, end-14", Method::DELETE, &upload, "", "").await;
        assert_eq!(status, wanted, "{section}");
    }
    mounts_and_manifests(&repository, &digest).await;
}

async fn mounts_and_manifests(repository: &Repository, digest: &Digest) {
    let (server, name) = (&repository.server, &repository.name);
    let other = crate::harness::repository(1, "conformance/other");
    let uploads = format!("/v2/{other}/blobs/uploads/?mount={digest}");
    for (query, wanted) in [(format!("&from={name}"), 201), (String::new(), 202)] {
        let mount = server.alice(Method::POST, &format!("{uploads}{query}")).send().await.unwrap();
        assert_eq!(mount.status().as_u16(), wanted, "Mounting, end-11 {query}");
        assert!(mount.headers().contains_key("location"));
    }
    let missing = format!("/v2/{other}/blobs/uploads/?mount={}&from={name}", Digest::sha256("x"));
    let mount = server.alice(Method::POST, &missing).send().await.unwrap();
    assert_eq!(mount.status().as_u16(), 202, "Mounting, end-11: not there");

    server.push(ALICE, &other, "{}").await;
    let image = manifest(b"{}", b"hello");
    let digest = Digest::sha256(serde_json::to_vec(&image).unwrap()).to_string();
    for reference in ["tag", digest.as_str()] {
        let put = server.put_manifest(&other, reference, OCI_MANIFEST, &image).await;
        assert_eq!(put.status().as_u16(), 201, "Pushing manifests, end-7");
        assert_eq!(location(&put), format!("/v2/{other}/manifests/{digest}"));
        assert_eq!(header(&put, "docker-content-digest"), digest);
        assert!(!put.headers().contains_key("oci-subject"), "only with a subject");
    }
}

#[tokio::test]
async fn content_discovery() {
    let repository = Repository::start().await;
    let lists = [
        ("", vec!["Three", "one", "referrer", "two"], false),
        ("?n=2", vec!["Three", "one"], true),
        ("?n=2&last=one", vec!["referrer", "two"], false),
        ("?last=one", vec!["referrer", "two"], false),
        ("?n=9", vec!["Three", "one", "referrer", "two"], false),
        ("?n=0", vec![], false),
    ];
    for (query, tags, has_next) in lists {
        let path = repository.path(&format!("/tags/list{query}"));
        let answer = repository.server.alice(Method::GET, &path).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "Listing Tags, end-8 {query}");
        assert_eq!(answer.headers().contains_key("link"), has_next, "Listing Tags, end-8b {query}");
        let list: serde_json::Value = answer.json().await.unwrap();
        assert_eq!(list, json!({ "name": repository.name, "tags": tags }), "Listing Tags {query}");
    }
    let index: &[_] = &[("content-type", "")];
    let filtered: &[_] = &[("oci-filters-applied", "")];
    let section = "Listing Referrers, end-12";
    repository
        .run(&[
            check("Listing Tags, end-8a", Method::HEAD, "/tags/list", 200),
            with(check(section, Method::GET, "/referrers/{manifest}", 200), index),
            with(check(section, Method::GET, "/referrers/{missing}", 200), index),
            with(check(section, Method::HEAD, "/referrers/{manifest}", 200), index),
            with(
                check(section, Method::GET, "/referrers/{manifest}?artifactType=a/b", 200),
                filtered,
            ),
            check(section, Method::GET, "/referrers/sha256:tooshort", 400),
        ])
        .await;
}

#[tokio::test]
async fn content_management() {
    let repository = Repository::start().await;
    repository
        .run(&[
            check("Deleting tags, end-9", Method::DELETE, "/manifests/two", 202),
            check("Deleting tags, end-9", Method::GET, "/manifests/two", 404),
            check("Deleting tags, end-9", Method::DELETE, "/manifests/two", 404),
            check("Deleting tags, end-9", Method::GET, "/manifests/{manifest}", 200),
            check("Deleting Manifests, end-9", Method::DELETE, "/manifests/{manifest}", 202),
            check("Deleting Manifests, end-9", Method::GET, "/manifests/{manifest}", 404),
            check("Deleting Manifests, end-9", Method::GET, "/manifests/one", 404),
            check("Deleting Manifests, end-9", Method::DELETE, "/manifests/{manifest}", 404),
            check("Deleting Manifests, end-9", Method::GET, "/tags/list", 200),
            check("Deleting Manifests, end-12", Method::GET, "/referrers/{manifest}", 200),
            check("Deleting Blobs, end-10", Method::DELETE, "/blobs/{blob}", 202),
            check("Deleting Blobs, end-10", Method::GET, "/blobs/{blob}", 404),
            check("Deleting Blobs, end-10", Method::DELETE, "/blobs/{blob}", 404),
        ])
        .await;
}
