//! What the dev stack (`deploy/dev/stack`) offers to tests.
//!
//! Owns: reading where the stack's BuildKit, registry and base image are, from
//! the environment or else from the file `.dev/env` that a running stack keeps.
//! Refuses: starting the stack; a test that needs it says how to.

use std::fs;
use std::path::{Path, PathBuf};

/// The endpoint of the BuildKit to test against: `docker:///path/to/docker.sock`,
/// `unix:///path` or `tcp://host:port`.
///
/// # Panics
/// With the remedy, if no stack runs.
pub fn buildkit_endpoint() -> String {
    required("SLIPWAY_BUILDKIT")
}

/// The base image of tests: busybox with an entrypoint and a command of its
/// own, as `127.0.0.1:PORT/slipway/busybox:1.35` in the stack's registry.
///
/// # Panics
/// With the remedy, if no stack runs.
pub fn base_image() -> String {
    required("SLIPWAY_BASE_IMAGE")
}

/// The stack's plain registry, `127.0.0.1:PORT`: HTTP, no login, empty of
/// everything but the base image and what tests push.
///
/// # Panics
/// With the remedy, if no stack runs.
pub fn registry() -> String {
    required("SLIPWAY_TEST_REGISTRY")
}

/// The manifest of the base image with Python in the stack's registry, under a tag of
/// the stack's; next to it tests put the tag that their client asks for.
pub fn python_manifest() -> String {
    format!("http://{}/v2/library/python/manifests/debian", registry())
}

/// The folder of everything that the dev set-up brings and keeps, `.dev` in the project.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.dev")
}

/// A setting of the stack: from the environment, else from `.dev/env`.
pub(crate) fn setting(name: &str) -> Option<String> {
    let from_environment = std::env::var(name).ok().filter(|value| !value.is_empty());
    from_environment.or_else(|| in_file(&fs::read_to_string(folder().join("env")).ok()?, name))
}

fn required(name: &str) -> String {
    setting(name).unwrap_or_else(|| {
        panic!(
            "`{name}` is not set and no dev stack runs. Remedy: `deploy/dev/stack start`, \
             or run the tests by `make test`"
        )
    })
}

/// Reads one `export NAME='value'` line; values of the stack hold no quotes.
fn in_file(text: &str, name: &str) -> Option<String> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
    line.map(|value| value.trim_matches('\'').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_from_export_lines() {
        let text = "# a comment\nexport A='x y'\nexport AB='z'\nexport C=plain\n";
        assert_eq!(in_file(text, "A").as_deref(), Some("x y"));
        assert_eq!(in_file(text, "AB").as_deref(), Some("z"));
        assert_eq!(in_file(text, "C").as_deref(), Some("plain"));
        assert_eq!(in_file(text, "B"), None);
    }
}
