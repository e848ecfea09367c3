//! What a request for a snapshot must satisfy: pure checks, in the order of
//! Daytona's server, so that a request with two faults gets the same answer.

mod image;
mod resources;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use regex::Regex;
use slipway_api::types::{CreateBuildInfo, CreateSnapshot};
use slipway_domain::organization::OrganizationRecord;
use slipway_domain::spec::{BuildSpec, JobSpec, Resources};
use slipway_domain::worker::Gpu;
use slipway_domain::{Class, GpuType, Region};

use crate::config::{Limits, RegionConfig};
use crate::limits;

pub use resources::CONTAINER;

/// Longest Dockerfile that is taken, in bytes: the job's message carries it.
pub const MAX_DOCKERFILE: usize = 256 << 10;
/// Longest name of a snapshot, in bytes.
pub const MAX_NAME: usize = 255;
/// As many as fit into the job's message, which carries two digests of each.
const MAX_CONTEXTS: usize = 1024;
const MAX_ARGS_BYTES: usize = 64 << 10;

/// Why a request is refused. Display is what the user reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is missing or malformed.
    #[error("{0}")]
    Malformed(String),
    /// The region does not exist.
    #[error("Region not found: `{name}`. Regions are: {known}")]
    RegionNotFound {
        /// What was asked for.
        name: String,
        /// Every region.
        known: String,
    },
    /// The region has no workers of the class, by configuration.
    #[error(
        "Region `{region}` has no workers of class `{class}`. Regions that have them: {elsewhere}"
    )]
    ClassNotInRegion {
        /// The region.
        region: Region,
        /// The class.
        class: Class,
        /// Regions that have it.
        elsewhere: String,
    },
    /// The image lies in the registry of another region.
    #[error(
        "`{image}` lies in the registry of region `{there}`, and the snapshot is for `{region}`: \
         ask for it in `{there}`, or push the image to `{region}`"
    )]
    ImageElsewhere {
        /// What was asked for.
        image: String,
        /// The region of the snapshot.
        region: Region,
        /// The region of the image.
        there: Region,
    },
    /// The organization may not use the region.
    #[error("Region {region} is not available to the organization")]
    RegionNotAllowed {
        /// The region.
        region: Region,
    },
    /// There are only containers here.
    #[error(
        "No runners are configured in region '{region}' for sandbox class '{class}'. \
         Snapshots here are of class 'container': leave `sandboxClass` out"
    )]
    NoSuchSandboxClass {
        /// The region.
        region: Region,
        /// What was asked for.
        class: String,
    },
    /// The organization is suspended.
    #[error("Organization is suspended{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Suspended {
        /// Why.
        reason: String,
    },
    /// A sandbox of it would be larger than allowed.
    #[error(
        "{what} request {asked}{unit} exceeds maximum allowed per sandbox ({limit}{unit}).\n\
         Need higher resource limits per sandbox? Ask the operator of this server for them"
    )]
    TooLarge {
        /// `CPU`, `Memory` or `Disk`.
        what: &'static str,
        /// Nothing, or `GB`.
        unit: &'static str,
        /// What was asked for.
        asked: u32,
        /// What is allowed.
        limit: u32,
    },
    /// The organization may have no GPU there.
    #[error("GPU quota exceeded in region {region}. Maximum allowed: {limit}")]
    GpuQuota {
        /// The region.
        region: Region,
        /// How many it may have.
        limit: u32,
    },
    /// The region has GPUs, but not of this kind.
    #[error("No available runners with GPU type: {kind}. Region {region} has: {available}")]
    NoSuchGpu {
        /// What was asked for.
        kind: GpuType,
        /// The region.
        region: Region,
        /// What it has.
        available: String,
    },
}

/// A request that may be carried out.
#[derive(Debug, Clone)]
pub struct Valid {
    /// The name.
    pub name: String,
    /// Where.
    pub region: Region,
    /// By what class of worker.
    pub class: Class,
    /// What a sandbox gets.
    pub resources: Resources,
    /// What to make it from.
    pub spec: JobSpec,
}

/// What a request is checked against.
#[derive(Debug)]
pub struct Terms<'a> {
    /// Every region.
    pub regions: &'a BTreeMap<Region, RegionConfig>,
    /// The region of requests that name none, unless the organization has its own.
    pub default_region: &'a Region,
    /// The server's limits.
    pub limits: &'a Limits,
    /// Who asks.
    pub organization: Option<&'a OrganizationRecord>,
    /// The GPUs of the workers that are alive, with their regions.
    pub gpus: Vec<(Region, Gpu)>,
    /// Now.
    pub now: Timestamp,
}

/// Checks a request.
///
/// # Errors
/// The first fault found.
pub fn validate(request: CreateSnapshot, terms: &Terms<'_>) -> Result<Valid, Error> {
    let gpu_type = resources::gpu_type(&request)?;
    let source = source(&request)?;
    let region = region(request.region_id.as_deref(), terms)?;
    name(&request.name)?;
    let limits = limits::of(terms.limits, terms.organization);
    let platform = terms.regions[&region].platform.to_string();
    let spec = match source {
        Source::Dockerfile(build) => JobSpec::Build(build_spec(build, platform)?),
        Source::Image(image) => {
            let max_size = u64::from(limits.snapshot_size) << 30;
            JobSpec::Pull(image::pull_spec(image, platform, request.entrypoint.clone(), max_size)?)
        }
    };
    resources::sandbox_class(request.sandbox_class.as_deref(), &region)?;
    let class = if request.gpu.unwrap_or(0) > 0 { Class::Gpu } else { Class::Cpu };
    class_in_region(class, &region, terms.regions)?;
    not_suspended(terms.organization, terms.now)?;
    let resources = resources::resources(&request, gpu_type, &region, class, terms)?;
    Ok(Valid { name: request.name, region, class, resources, spec })
}

/// Refuses whoever is suspended.
///
/// # Errors
/// [`Error::Suspended`].
pub fn not_suspended(
    organization: Option<&OrganizationRecord>,
    now: Timestamp,
) -> Result<(), Error> {
    let organization = organization.filter(|record| record.is_suspended_at(now));
    match organization.and_then(|record| record.suspension.as_ref()) {
        Some(suspension) => Err(Error::Suspended { reason: suspension.reason.clone() }),
        None => Ok(()),
    }
}

/// What to make a snapshot from.
enum Source {
    Dockerfile(CreateBuildInfo),
    Image(String),
}

fn source(request: &CreateSnapshot) -> Result<Source, Error> {
    match (&request.build_info, &request.image_name) {
        (Some(_), Some(_)) => {
            Err(Error::Malformed("give either `buildInfo` or `imageName`, not both".into()))
        }
        (None, None) => Err(Error::Malformed(
            "`buildInfo` with a `dockerfileContent`, or `imageName`, is required".into(),
        )),
        (None, Some(image)) => Ok(Source::Image(image.clone())),
        (Some(_), None) if request.entrypoint.is_some() => Err(Error::Malformed(
            "`entrypoint` cannot be combined with `buildInfo`: \
             write an ENTRYPOINT into the Dockerfile"
                .into(),
        )),
        (Some(build), None) => Ok(Source::Dockerfile(build.clone())),
    }
}

fn region(wanted: Option<&str>, terms: &Terms<'_>) -> Result<Region, Error> {
    let own = terms.organization.and_then(|record| record.default_region.as_ref());
    let wanted = match wanted.map(str::trim).filter(|name| !name.is_empty()) {
        Some(wanted) => wanted,
        None => own.unwrap_or(terms.default_region).as_str(),
    };
    let may_use = |region: &Region| terms.organization.is_none_or(|record| record.may_use(region));
    let known = wanted.parse().ok().filter(|region| terms.regions.contains_key(region));
    let region: Region = known.ok_or_else(|| Error::RegionNotFound {
        name: wanted.to_owned(),
        known: join(terms.regions.keys().filter(|region| may_use(region))),
    })?;
    if may_use(&region) { Ok(region) } else { Err(Error::RegionNotAllowed { region }) }
}

fn name(name: &str) -> Result<(), Error> {
    static NAME: LazyLock<Regex> = LazyLock::new(|| {
        let part = r"[a-zA-Z0-9_.\-:]+";
        Regex::new(&format!(r"^{part}(/{part})*(@sha256:[a-f0-9]{{64}})?$"))
            .expect("the pattern is a constant and is tested")
    });
    if name.is_empty() {
        return Err(Error::Malformed("`name` is required".into()));
    }
    if name.len() > MAX_NAME {
        return Err(Error::Malformed(format!("`name` is longer than {MAX_NAME} characters")));
    }
    if !NAME.is_match(name) {
        return Err(Error::Malformed(format!(
            "Invalid snapshot name format: `{name}`. Use letters, digits, dots, hyphens, \
             underscores and colons, in parts separated by slashes"
        )));
    }
    Ok(())
}

fn build_spec(build: CreateBuildInfo, platform: String) -> Result<BuildSpec, Error> {
    if build.dockerfile_content.trim().is_empty() {
        return Err(Error::Malformed("`buildInfo.dockerfileContent` is empty".into()));
    }
    if build.dockerfile_content.len() > MAX_DOCKERFILE {
        return Err(Error::Malformed(format!(
            "`buildInfo.dockerfileContent` is longer than {MAX_DOCKERFILE} bytes: \
             move long scripts into the build context"
        )));
    }
    let escaped = serde_json::to_string(&build.dockerfile_content).map_or(0, |json| json.len());
    if escaped > 2 * MAX_DOCKERFILE {
        return Err(Error::Malformed(
            "`buildInfo.dockerfileContent` has too many control characters".into(),
        ));
    }
    if build.context_hashes.len() > MAX_CONTEXTS {
        return Err(Error::Malformed(format!("more than {MAX_CONTEXTS} build contexts")));
    }
    for hash in &build.context_hashes {
        if !is_context_hash(hash) {
            return Err(Error::Malformed(format!(
                "`{hash}` is not a context hash: use 32 to 128 hexadecimal digits"
            )));
        }
    }
    let pairs = build.build_args.iter().chain(&build.labels);
    if pairs.map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ARGS_BYTES {
        return Err(Error::Malformed(format!(
            "build arguments and labels are longer than {MAX_ARGS_BYTES} bytes together"
        )));
    }
    if build.build_args.keys().chain(build.labels.keys()).any(String::is_empty) {
        return Err(Error::Malformed("a build argument or label has no name".into()));
    }
    Ok(BuildSpec {
        dockerfile: build.dockerfile_content,
        contexts: build.context_hashes,
        context_filtered: build.context_filtered,
        build_args: build.build_args,
        target: build.target.filter(|target| !target.is_empty()),
        no_cache: build.no_cache,
        labels: build.labels,
        platform,
    })
}

/// Whether the text can name an uploaded context: the hex digest of whatever
/// algorithm the client uses.
#[must_use]
pub fn is_context_hash(hash: &str) -> bool {
    (32..=128).contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn class_in_region(
    class: Class,
    region: &Region,
    regions: &BTreeMap<Region, RegionConfig>,
) -> Result<(), Error> {
    if regions.get(region).is_some_and(|config| config.classes.contains(&class)) {
        return Ok(());
    }
    let elsewhere = regions.iter().filter(|(_, config)| config.classes.contains(&class));
    let elsewhere = join(elsewhere.map(|(name, _)| name));
    let elsewhere = if elsewhere.is_empty() { "none".to_owned() } else { elsewhere };
    Err(Error::ClassNotInRegion { region: region.clone(), class, elsewhere })
}

fn join<'a>(regions: impl Iterator<Item = &'a Region>) -> String {
    regions.map(|region| format!("`{region}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
