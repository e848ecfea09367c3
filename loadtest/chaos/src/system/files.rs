//! The configuration files of a run.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use slipway_faults::TcpProxy;

use crate::settings::{LEASE, REGIONS, Settings};

/// Builds that take long enough to be hit, and fail now and then; real pulls.
const SIMULATED: &str = r#"
[executor.simulated]
duration = "700ms"
spread = "600ms"
failures = 0.1
outages = 0.05
log_lines = 40
image_bytes = 40000
layers = 2
pulls = false
"#;

/// What nobody has any more goes soon, but not before any attempt is over.
const SWEEP: &str = "\n[sweep]\ninterval = \"2s\"\ngrace = \"45s\"\n";

/// nats-server, as durable as in production.
pub(super) fn nats(folder: &Path, listen: SocketAddr) -> String {
    let store = folder.join("nats");
    format!(
        "listen: \"{listen}\"\n\
         jetstream {{ store_dir: {store:?}, sync_interval: always, max_file_store: 1TB }}\n"
    )
}

/// The file that makes a region's store fail.
pub(super) fn faults(folder: &Path, region: &str) -> PathBuf {
    folder.join(format!("store-faults-{region}.json"))
}

/// The address of a store.
pub(super) fn store_url(folder: &Path, name: &str) -> String {
    format!("file://{}", folder.join("stores").join(name).display())
}

fn store(folder: &Path, name: &str) -> String {
    let (url, faults) = (store_url(folder, name), faults(folder, name));
    format!("{{ url = {url:?}, faults = {faults:?} }}")
}

/// A scheduler.
pub(super) fn scheduler(settings: &Settings, proxy: &TcpProxy, listen: SocketAddr) -> String {
    let folder = &settings.folder;
    let mut text = format!(
        "listen = \"{listen}\"\nnats = [\"nats://{}\"]\ncontexts = {}\n\
         default_region = {:?}\nbuild_time_limit = \"2min\"\nbootstrap_key_file = {:?}\n\
         reconcile_interval = \"1s\"\noutage_grace = \"{}s\"\n\n[limits]\nsnapshots = 100000\n",
        proxy.address(),
        store(folder, "contexts"),
        REGIONS[0],
        folder.join("api-key"),
        2 * LEASE.as_secs(),
    );
    for region in REGIONS {
        let store = store(folder, region);
        writeln!(text, "\n[regions.{region}]\nstore = {store}").expect("a string takes all");
    }
    text
}

/// A worker.
pub(super) fn worker(settings: &Settings, proxy: &TcpProxy, region: &str, n: u32) -> String {
    let folder = &settings.folder;
    let mut text = format!(
        "id = \"{region}-{n}\"\nregion = {region:?}\nnats = [\"nats://{}\"]\n\
         store = {}\ncontexts = {}\nidentity_file = {:?}\nlease = \"{}s\"\nslots = 3\n\
         drain_grace = \"0s\"\n",
        proxy.address(),
        store(folder, region),
        store(folder, "contexts"),
        folder.join(format!("identity-{region}")),
        LEASE.as_secs(),
    );
    match &settings.buildkit {
        Some(endpoint) if n == 1 => writeln!(text, "buildkit = {endpoint:?}"),
        _ => text.write_str(SIMULATED),
    }
    .expect("a string takes all");
    text.push_str(SWEEP);
    text
}
