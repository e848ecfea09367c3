//! Requests that are taken and requests that are refused.
#![allow(clippy::unwrap_used)]

use slipway_oci::Platform;

use super::*;

fn regions() -> BTreeMap<Region, RegionConfig> {
    let region = |name: &str, classes: &[Class]| {
        let store = slipway_blobstore::Config::new("memory:///".parse().unwrap());
        let platform = Platform::linux_amd64();
        let classes = classes.to_vec();
        let config = RegionConfig { classes, gpu_types: None, platform, store };
        (name.parse().unwrap(), config)
    };
    BTreeMap::from([region("us", &[Class::Cpu]), region("us-east-1", &[Class::Cpu, Class::Gpu])])
}

fn request() -> CreateSnapshot {
    CreateSnapshot {
        name: "team/app:1.0".into(),
        build_info: Some(CreateBuildInfo {
            dockerfile_content: "FROM scratch".into(),
            ..CreateBuildInfo::default()
        }),
        ..CreateSnapshot::default()
    }
}

fn check(request: CreateSnapshot) -> Result<Valid, Error> {
    check_for(request, None)
}

fn check_for(
    request: CreateSnapshot,
    organization: Option<&OrganizationRecord>,
) -> Result<Valid, Error> {
    let terms = Terms {
        regions: &regions(),
        default_region: &"us".parse().unwrap(),
        limits: &Limits::default(),
        organization,
        gpus: vec![],
        now: Timestamp::UNIX_EPOCH,
    };
    validate(request, &terms)
}

fn organization() -> OrganizationRecord {
    let id = slipway_domain::OrganizationId::from_uuid(uuid::Uuid::from_u128(1));
    OrganizationRecord::new(id, "acme".into(), Timestamp::UNIX_EPOCH)
}

#[test]
fn an_organization_has_its_own_region_limits_and_suspension() {
    let mut acme = organization();
    acme.default_region = Some("us-east-1".parse().unwrap());
    acme.regions = Some(vec!["us-east-1".parse().unwrap()]);
    acme.limits.sandbox.cpu = Some(8);
    let wanted = CreateSnapshot { cpu: Some(8), ..request() };
    let valid = check_for(wanted.clone(), Some(&acme)).unwrap();
    assert_eq!((valid.region.as_str(), valid.resources.cpu), ("us-east-1", 8));
    assert!(matches!(check(wanted), Err(Error::TooLarge { asked: 8, limit: 4, .. })));
    let elsewhere = CreateSnapshot { region_id: Some("us".into()), ..request() };
    let text = check_for(elsewhere, Some(&acme)).unwrap_err().to_string();
    assert_eq!(text, "Region us is not available to the organization");
    acme.suspension = Some(slipway_domain::organization::Suspension {
        since: Timestamp::UNIX_EPOCH,
        reason: "unpaid".into(),
        until: None,
    });
    let text = check_for(request(), Some(&acme)).unwrap_err().to_string();
    assert_eq!(text, "Organization is suspended: unpaid");
    // What is malformed is told first.
    let malformed = CreateSnapshot { name: "a b".into(), ..request() };
    assert!(matches!(check_for(malformed, Some(&acme)), Err(Error::Malformed(_))));
}

#[test]
fn a_plain_request_gets_defaults() {
    let valid = check(request()).unwrap();
    assert_eq!(valid.region.as_str(), "us");
    assert_eq!((valid.class, valid.resources), (Class::Cpu, Resources::default()));
}

#[test]
fn names_with_colons_slashes_and_digests_pass_and_others_do_not() {
    let digest = format!("a/b@sha256:{}", "0".repeat(64));
    for good in ["a", "daytonaio/sandbox:0.5.0-slim", digest.as_str()] {
        assert_eq!(name(good), Ok(()), "{good}");
    }
    for bad in ["", "a b", "/a", "a/", "a//b", "ä", "a\n", "a@sha256:12"] {
        assert!(name(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_unknown_region_is_named_with_those_that_exist() {
    let wanted = CreateSnapshot { region_id: Some("mars".into()), ..request() };
    let text = check(wanted).unwrap_err().to_string();
    assert_eq!(text, "Region not found: `mars`. Regions are: `us`, `us-east-1`");
}

#[test]
fn a_gpu_is_refused_where_there_is_none() {
    let wanted = CreateSnapshot { gpu: Some(1), ..request() };
    let text = check(wanted).unwrap_err().to_string();
    assert!(text.ends_with("Regions that have them: `us-east-1`"), "{text}");
    let there = Some("us-east-1".into());
    let wanted = CreateSnapshot { gpu: Some(1), region_id: there, ..request() };
    assert_eq!(check(wanted).unwrap().class, Class::Gpu);
}

#[test]
fn what_cannot_be_built_is_refused() {
    let mut both = request();
    both.image_name = Some("alpine:3".into());
    let mut neither = request();
    neither.build_info = None;
    let mut entrypoint = request();
    entrypoint.entrypoint = Some(vec!["sh".into()]);
    let mut large = request();
    large.cpu = Some(64);
    let mut path = request();
    path.build_info.as_mut().unwrap().context_hashes = vec!["../../etc/passwd".into()];
    for bad in [both, neither, entrypoint, large, path] {
        assert!(check(bad.clone()).is_err(), "{bad:?}");
    }
}

#[test]
fn a_snapshot_is_for_the_platform_of_its_region() {
    let mut regions = regions();
    let east = regions.values_mut().next_back().unwrap();
    east.platform = "linux/arm64".parse().unwrap();
    let limits = Limits::default();
    let us = "us".parse().unwrap();
    let terms = Terms {
        regions: &regions,
        default_region: &us,
        limits: &limits,
        organization: None,
        gpus: vec![],
        now: Timestamp::UNIX_EPOCH,
    };
    for (region, platform) in [(None, "linux/amd64"), (Some("us-east-1"), "linux/arm64")] {
        let pull =
            CreateSnapshot { build_info: None, image_name: Some("debian:12".into()), ..request() };
        for wanted in [request(), pull] {
            let region_id = region.map(str::to_owned);
            let valid = validate(CreateSnapshot { region_id, ..wanted }, &terms).unwrap();
            let found = match valid.spec {
                JobSpec::Build(spec) => spec.platform,
                JobSpec::Pull(spec) => spec.platform,
            };
            assert_eq!(found, platform);
        }
    }
}
