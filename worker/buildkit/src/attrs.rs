//! A [`SolveRequest`] in the words of BuildKit's control API.
//!
//! Owns the attribute names of the `dockerfile.v0` frontend and of the image
//! exporter. Invariant: users choose values and the part of a key behind a
//! fixed prefix, never a whole key.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::{
    MatchType, Policy, PolicyAction, Rule, Selector, Update,
};

use crate::llb;
use crate::request::{Export, ImageRule, Mirrored, SolveRequest};

const FRONTEND: &str = "dockerfile.v0";

/// Any `cmdline` at all keeps the built-in frontend from following the
/// Dockerfile's `# syntax=` line, which would load and run an image.
const BUILT_IN_FRONTEND: &str = "slipway";

/// The request with id `reference` that uses session `session`.
pub(crate) fn solve_request(
    request: &SolveRequest,
    reference: &str,
    session: &str,
) -> proto::SolveRequest {
    let exporter = exporter(&request.export);
    let (exporter_deprecated, exporter_attrs_deprecated) =
        exporter.clone().map(|exporter| (exporter.r#type, exporter.attrs)).unwrap_or_default();
    proto::SolveRequest {
        r#ref: reference.to_owned(),
        session: session.to_owned(),
        frontend: FRONTEND.to_owned(),
        frontend_attrs: frontend_attrs(request),
        frontend_inputs: HashMap::from([
            ("context".to_owned(), llb::context(&request.contexts)),
            (
                "dockerfile".to_owned(),
                llb::dockerfile(&request.dockerfile_name, &request.dockerfile),
            ),
        ]),
        exporters: exporter.into_iter().collect(),
        // BuildKit before 0.13 knows only these two; later ones ignore them.
        exporter_deprecated,
        exporter_attrs_deprecated,
        cache: Some(proto::CacheOptions::default()),
        // Kept out of the build history: its logs and records are ours.
        internal: true,
        source_policy: source_policy(&request.image_rules, &request.mirrored),
        ..proto::SolveRequest::default()
    }
}

fn frontend_attrs(request: &SolveRequest) -> HashMap<String, String> {
    let mut attrs = HashMap::from([
        ("filename".to_owned(), request.dockerfile_name.clone()),
        ("platform".to_owned(), request.platform.to_string()),
        ("cmdline".to_owned(), BUILT_IN_FRONTEND.to_owned()),
    ]);
    for (name, value) in &request.build_args {
        attrs.insert(format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &request.labels {
        attrs.insert(format!("label:{name}"), value.clone());
    }
    if let Some(target) = &request.target {
        attrs.insert("target".to_owned(), target.clone());
    }
    if request.no_cache {
        attrs.insert("no-cache".to_owned(), String::new());
    }
    if let Some(parent) = &request.cgroup_parent {
        attrs.insert("cgroup-parent".to_owned(), parent.clone());
    }
    attrs
}

/// BuildKit applies the rules in order and begins anew once one has changed the
/// source; so what is allowed is decided about the place that is really asked.
fn source_policy(rules: &[ImageRule], mirrored: &[Mirrored]) -> Option<Policy> {
    let allow = |rule: &ImageRule| {
        let action = if rule.is_allowed { PolicyAction::Allow } else { PolicyAction::Deny };
        let selector = regex(format!("^docker-image://{}", rule.pattern));
        Rule { action: action as i32, selector: Some(selector), updates: None }
    };
    let rules: Vec<Rule> = rules.iter().map(allow).chain(mirrored.iter().map(convert)).collect();
    (!rules.is_empty()).then_some(Policy { version: 1, rules })
}

/// Sends one image to its mirror. The frontend adds the digest that it found to the
/// name, and `latest` where nothing is said.
fn convert(mirrored: &Mirrored) -> Rule {
    let image = &mirrored.image;
    let tag = match (image.tag(), image.digest()) {
        (Some(tag), Some(_)) => format!("(:{})?", literal(&tag.to_string())),
        (Some(tag), None) => format!("(:{})", literal(&tag.to_string())),
        (None, Some(_)) => "()".to_owned(),
        (None, None) => "(:latest)".to_owned(),
    };
    let digest = match image.digest() {
        Some(digest) => format!("(@{})", literal(&digest.to_string())),
        None => "(@sha256:[0-9a-f]{64})?".to_owned(),
    };
    let (host, path) = (literal(image.domain()), literal(&image.path().to_string()));
    let selector = regex(format!("^docker-image://{host}/{path}{tag}{digest}$"));
    let identifier = format!("docker-image://{}/{}${{1}}${{2}}", mirrored.mirror, image.path());
    let updates = Update { identifier, ..Update::default() };
    Rule { action: PolicyAction::Convert as i32, selector: Some(selector), updates: Some(updates) }
}

fn regex(identifier: String) -> Selector {
    Selector { identifier, match_type: MatchType::Regex as i32, constraints: vec![] }
}

/// A regular expression (RE2) for exactly this text.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if !letter.is_ascii_alphanumeric() && !"/:_-@".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn exporter(export: &Export) -> Option<proto::Exporter> {
    let Export::PushByDigest { repository, insecure, compression } = export else {
        return None;
    };
    let mut attrs: HashMap<String, String> = [
        ("name", repository.as_str()),
        ("push", "true"),
        ("push-by-digest", "true"),
        ("name-canonical", "true"),
        ("store", "false"),
        ("oci-mediatypes", "true"),
        ("compression", compression.as_str()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .collect();
    if *insecure {
        attrs.insert("registry.insecure".to_owned(), "true".to_owned());
    }
    Some(proto::Exporter { r#type: "image".to_owned(), attrs })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::Compression;

    #[test]
    fn users_cannot_reach_a_whole_key() {
        let mut request = SolveRequest::new("FROM scratch");
        request.build_args.insert("cmdline".into(), "x".into());
        request.labels.insert("no-cache".into(), "x".into());
        let attrs = frontend_attrs(&request);
        assert_eq!(attrs["cmdline"], BUILT_IN_FRONTEND);
        assert!(!attrs.contains_key("no-cache"));
        assert_eq!(attrs["build-arg:cmdline"], "x");
        assert_eq!(attrs["label:no-cache"], "x");
    }

    #[test]
    fn an_image_goes_to_its_mirror_with_tag_and_digest() {
        let rule = |image: &str| {
            let mirrored = Mirrored { image: image.parse().unwrap(), mirror: "m.io:5".into() };
            let rule = convert(&mirrored);
            assert_eq!(rule.action, PolicyAction::Convert as i32);
            (rule.selector.unwrap().identifier, rule.updates.unwrap().identifier)
        };
        let (from, to) = rule("python:3.12-slim");
        let pattern =
            r"^docker-image://docker\.io/library/python(:3\.12-slim)(@sha256:[0-9a-f]{64})?$";
        assert_eq!(from, pattern);
        assert_eq!(to, "docker-image://m.io:5/library/python${1}${2}");
        assert!(rule("debian").0.contains("debian(:latest)(@"));
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(rule(&format!("r.io/a@{digest}")).0.ends_with(&format!("/a()(@{digest})$")));
        assert!(rule(&format!("r.io/a:1@{digest}")).0.ends_with(&format!("(:1)?(@{digest})$")));
    }

    #[test]
    fn a_push_is_said_to_old_and_new_buildkits() {
        let mut request = SolveRequest::new("FROM scratch");
        let sent = solve_request(&request, "r", "s");
        assert!(sent.exporters.is_empty() && sent.exporter_deprecated.is_empty());
        request.export = Export::PushByDigest {
            repository: "127.0.0.1:1/a".into(),
            insecure: true,
            compression: Compression::Zstd,
        };
        let sent = solve_request(&request, "r", "s");
        assert_eq!(sent.exporters.len(), 1);
        assert_eq!(sent.exporter_deprecated, "image");
        assert_eq!(sent.exporters[0].attrs, sent.exporter_attrs_deprecated);
        assert_eq!(sent.exporters[0].attrs["compression"], "zstd");
        assert_eq!(sent.exporters[0].attrs["store"], "false");
    }
}
