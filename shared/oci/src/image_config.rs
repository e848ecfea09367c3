//! The OCI image config: what an image runs, and how it came to be.
//!
//! Owns reading (config.md of the image specification); Docker writes `null`
//! where the specification has no member, and both read the same.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Digest, Platform};

/// The bytes were not an image config.
#[derive(Debug, thiserror::Error)]
#[error("image config does not read as JSON of the OCI form")]
pub struct Error(#[source] serde_json::Error);

/// An image config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Processor architecture, Go's `GOARCH`.
    pub architecture: String,
    /// Operating system, Go's `GOOS`.
    pub os: String,
    /// Variant of the architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Version of the operating system.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// What a container of this image runs.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// The uncompressed layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rootfs: RootFs,
    /// The steps that made the layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub history: Vec<History>,
}

/// What a container runs unless told otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// User, or user and group.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Environment, each entry `NAME=value`.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Program and first arguments.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Arguments, or the program where there is no entrypoint.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Folder in which the program starts.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free metadata.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Ports that the program listens on, as `80/tcp`; the values are empty.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Folders that outlive a container; the values are empty.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Signal that ends the program.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
}

/// `{}`, by which JSON expresses a set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// The layers as they are unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars, base first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<Digest>,
}

/// One step that made the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// A remark, for example `buildkit.dockerfile.v0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// Reads `bytes`.
    ///
    /// # Errors
    /// If they are not JSON of the specified form.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(Error)
    }

    /// What the image runs on.
    #[must_use]
    pub fn platform(&self) -> Platform {
        let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: text(&self.variant),
            os_version: text(&self.os_version),
        }
    }

    /// Program and first arguments; empty if the image has none.
    #[must_use]
    pub fn entrypoint(&self) -> &[String] {
        &self.config.entrypoint
    }

    /// Arguments, or the program where there is no entrypoint.
    #[must_use]
    pub fn cmd(&self) -> &[String] {
        &self.config.cmd
    }
}

fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn reads_what_buildkit_writes() {
        let json = br#"{
            "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
            "config": {
                "Env": ["PATH=/bin"], "Entrypoint": ["/hello"], "Cmd": ["--loud"],
                "WorkingDir": "/srv", "Labels": {"a": "b"}, "OnBuild": null,
                "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "ArgsEscaped": true
            },
            "history": [
                {"created_by": "COPY hello /hello # buildkit", "comment": "buildkit.dockerfile.v0"},
                {"created_by": "ENTRYPOINT [\"/hello\"]", "empty_layer": true}
            ],
            "rootfs": {"type": "layers", "diff_ids": [
                "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
            ]},
            "moby.buildkit.cache.v0": "e30="
        }"#;
        let config = ImageConfig::parse(json).unwrap();
        assert_eq!(config.entrypoint(), ["/hello"]);
        assert_eq!(config.cmd(), ["--loud"]);
        assert_eq!(config.config.env, ["PATH=/bin"]);
        assert_eq!(config.config.labels["a"], "b");
        assert_eq!(config.platform(), Platform::linux_amd64());
        assert_eq!(config.rootfs.diff_ids, [Digest::sha256("")]);
        assert!(config.history[1].empty_layer && !config.history[0].empty_layer);
        assert!(config.config.exposed_ports.contains_key("80/tcp"));
    }

    #[test]
    fn null_reads_as_absent() {
        let json = br#"{
            "architecture": "arm64", "os": "linux", "variant": "",
            "config": {"User": null, "Env": null, "Entrypoint": null, "Cmd": null,
                "Volumes": null, "WorkingDir": null, "Labels": null},
            "rootfs": {"type": "layers", "diff_ids": null}, "history": null
        }"#;
        let config = ImageConfig::parse(json).unwrap();
        assert!(config.entrypoint().is_empty() && config.history.is_empty());
        assert_eq!(config.platform().to_string(), "linux/arm64");
        let bare = br#"{"architecture": "amd64", "os": "linux", "config": null}"#;
        assert_eq!(ImageConfig::parse(bare).unwrap().config, ContainerConfig::default());
    }

    #[test]
    fn refuses_what_is_no_image_config() {
        for bytes in [&b"{}"[..], b"[]", b"<html>", b"{\"os\": 1, \"architecture\": \"a\"}"] {
            assert!(ImageConfig::parse(bytes).is_err());
        }
    }
}
