//! What a sandbox of the snapshot gets: sizes, GPUs and their kinds.

use slipway_api::types::CreateSnapshot;
use slipway_domain::spec::Resources;
use slipway_domain::worker::Gpu;
use slipway_domain::{Class, GpuType, Region};

use super::{Error, Terms};
use crate::limits;

/// The one class of sandboxes that is made here.
pub const CONTAINER: &str = "container";
const CLASSES: [&str; 4] = [CONTAINER, "linux-vm", "windows", "android"];

/// Refuses sandboxes that are no containers.
pub(super) fn sandbox_class(wanted: Option<&str>, region: &Region) -> Result<(), Error> {
    match wanted {
        None | Some(CONTAINER) => Ok(()),
        Some(class) if CLASSES.contains(&class) => {
            Err(Error::NoSuchSandboxClass { region: region.clone(), class: class.to_owned() })
        }
        Some(_) => Err(Error::Malformed(format!(
            "sandboxClass must be one of the following values: {}",
            CLASSES.join(", ")
        ))),
    }
}

/// What the request asks for, within the limits.
pub(super) fn resources(
    request: &CreateSnapshot,
    gpu_type: Option<GpuType>,
    region: &Region,
    class: Class,
    terms: &Terms<'_>,
) -> Result<Resources, Error> {
    let default = Resources::default();
    let resources = Resources {
        cpu: request.cpu.unwrap_or(default.cpu),
        gpu: request.gpu.unwrap_or(default.gpu),
        memory: request.memory.unwrap_or(default.memory),
        disk: request.disk.unwrap_or(default.disk),
        gpu_type,
    };
    let limits = limits::sandbox(terms.limits, terms.organization, region, class);
    if let Some(kind) = resources.gpu_type {
        has_kind(kind, region, terms)?;
    }
    for (what, unit, asked, limit) in [
        ("CPU", "", resources.cpu, limits.cpu),
        ("Memory", "GB", resources.memory, limits.memory),
        ("Disk", "GB", resources.disk, limits.disk),
    ] {
        if asked > limit {
            return Err(Error::TooLarge { what, unit, asked, limit });
        }
    }
    match limits.gpus {
        Some(limit) if resources.gpu > limit => {
            Err(Error::GpuQuota { region: region.clone(), limit })
        }
        _ => Ok(resources),
    }
}

/// The kind of GPU that is asked for: that the wish makes sense by itself.
pub(super) fn gpu_type(request: &CreateSnapshot) -> Result<Option<GpuType>, Error> {
    let gpu = request.gpu.unwrap_or(0);
    if gpu > 1 {
        return Err(Error::Malformed("gpu must not be greater than 1".into()));
    }
    match request.gpu_type.as_deref() {
        None | Some([]) => Ok(None),
        Some([kind]) => {
            let kind = kind.parse().map_err(|error: slipway_domain::gpu::Error| {
                Error::Malformed(format!("each value in gpuType must be valid: {error}"))
            })?;
            if gpu == 0 {
                let text = "`gpuType` needs `gpu`: 1, or leave it out".to_owned();
                return Err(Error::Malformed(text));
            }
            Ok(Some(kind))
        }
        Some(_) => Err(Error::Malformed("gpuType must contain exactly 1 element".into())),
    }
}

/// Whether the region has GPUs of a kind: what its configuration lists, else
/// what the workers that are alive say. Where no worker with a GPU is alive
/// nobody knows, and the job waits for one. A simulated GPU is of every kind.
fn has_kind(kind: GpuType, region: &Region, terms: &Terms<'_>) -> Result<(), Error> {
    let listed = terms.regions.get(region).and_then(|config| config.gpu_types.as_ref());
    let here = terms.gpus.iter().filter(|(place, _)| place == region).map(|(_, gpu)| gpu);
    let available: Vec<String> = match listed {
        Some(listed) if listed.contains(&kind) => return Ok(()),
        Some(listed) => listed.iter().map(ToString::to_string).collect(),
        None => {
            let mut names = vec![];
            for gpu in here {
                match gpu {
                    Gpu::Simulated => return Ok(()),
                    Gpu::Present { name } => match GpuType::of_device(name) {
                        Some(found) if found == kind => return Ok(()),
                        Some(found) => names.push(found.to_string()),
                        None => names.push(name.clone()),
                    },
                }
            }
            if names.is_empty() {
                return Ok(());
            }
            names
        }
    };
    let available = if available.is_empty() { "none".to_owned() } else { available.join(", ") };
    Err(Error::NoSuchGpu { kind, region: region.clone(), available })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use slipway_domain::organization::{OrganizationRecord, RegionLimits, SandboxOverrides};

    use super::*;
    use crate::config::{Limits, RegionConfig};

    fn check(
        request: &CreateSnapshot,
        listed: Option<&[GpuType]>,
        gpus: &[&str],
        organization: Option<&OrganizationRecord>,
    ) -> Result<Resources, Error> {
        let region: Region = "us-east-1".parse().unwrap();
        let config = RegionConfig {
            classes: vec![Class::Gpu],
            gpu_types: listed.map(<[_]>::to_vec),
            platform: slipway_oci::Platform::linux_amd64(),
            store: slipway_blobstore::Config::new("memory:///".parse().unwrap()),
        };
        let gpu = |name: &&str| match *name {
            "simulated" => Gpu::Simulated,
            name => Gpu::Present { name: name.to_owned() },
        };
        let terms = Terms {
            regions: &BTreeMap::from([(region.clone(), config)]),
            default_region: &region,
            limits: &Limits::default(),
            organization,
            gpus: gpus.iter().map(|name| (region.clone(), gpu(name))).collect(),
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        resources(request, gpu_type(request)?, &region, Class::Gpu, &terms)
    }

    fn wants(kinds: &[&str]) -> CreateSnapshot {
        let kinds = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        CreateSnapshot { gpu: Some(1), gpu_type: Some(kinds), ..CreateSnapshot::default() }
    }

    #[test]
    fn a_kind_of_gpu_is_one_that_the_region_has() {
        let h100 = Some(GpuType::H100);
        for (listed, gpus) in [
            (Some(&[GpuType::H100][..]), &[][..]),
            (None, &["NVIDIA H200", "NVIDIA H100 80GB HBM3"]),
            (None, &["simulated"]),
            (None, &[]),
        ] {
            let got = check(&wants(&["H100"]), listed, gpus, None).unwrap();
            assert_eq!(got.gpu_type, h100, "{listed:?} {gpus:?}");
        }
        for (listed, gpus) in [
            (Some(&[][..]), &["NVIDIA H100"][..]),
            (Some(&[GpuType::B200]), &["NVIDIA H100"]),
            (None, &["NVIDIA H200"]),
        ] {
            let text = check(&wants(&["H100"]), listed, gpus, None).unwrap_err().to_string();
            assert!(text.starts_with("No available runners with GPU type: H100"), "{text}");
        }
        assert_eq!(check(&wants(&[]), Some(&[]), &[], None).unwrap().gpu_type, None);
    }

    #[test]
    fn odd_wishes_for_gpus_are_refused() {
        for (kinds, gpu, reason) in [
            (&["H100", "H200"][..], 1, "exactly 1 element"),
            (&["h100"], 1, "is not a GPU type"),
            (&["H100"], 0, "needs `gpu`"),
            (&[], 2, "greater than 1"),
        ] {
            let wanted = CreateSnapshot { gpu: Some(gpu), ..wants(kinds) };
            let text = check(&wanted, None, &[], None).unwrap_err().to_string();
            assert!(text.contains(reason), "{text}");
        }
    }

    #[test]
    fn sandboxes_with_a_gpu_have_limits_of_their_own() {
        let wanted = CreateSnapshot { cpu: Some(16), memory: Some(192), ..wants(&[]) };
        assert!(check(&wanted, None, &[], None).is_ok());
        let wanted = CreateSnapshot { cpu: Some(17), ..wants(&[]) };
        let text = check(&wanted, None, &[], None).unwrap_err().to_string();
        assert!(
            text.starts_with("CPU request 17 exceeds maximum allowed per sandbox (16)."),
            "{text}"
        );
        let id = slipway_domain::OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
        let mut acme = OrganizationRecord::new(id, "acme".into(), jiff::Timestamp::UNIX_EPOCH);
        acme.region_limits.push(RegionLimits {
            region: "us-east-1".parse().unwrap(),
            class: None,
            sandbox: SandboxOverrides { gpus: Some(0), ..SandboxOverrides::default() },
        });
        let text = check(&wants(&[]), None, &[], Some(&acme)).unwrap_err().to_string();
        assert_eq!(text, "GPU quota exceeded in region us-east-1. Maximum allowed: 0");
    }

    #[test]
    fn only_containers_are_made() {
        let region: Region = "us".parse().unwrap();
        assert_eq!(sandbox_class(Some("container"), &region), Ok(()));
        let text = sandbox_class(Some("windows"), &region).unwrap_err().to_string();
        assert!(text.starts_with("No runners are configured in region 'us' for sandbox class"));
        assert!(sandbox_class(Some("mainframe"), &region).is_err());
    }
}
