use std::sync::Arc;

use slipway_domain::message::VERSION;
use slipway_domain::spec::BuildSpec;
use slipway_domain::{AttemptNumber, Class, JobId, LogEvent, OrganizationId, SnapshotId};
use slipway_oci::Verifier;
use slipway_registry::{ManifestReader, Options, StaticAuthorizer};
use uuid::Uuid;

use super::*;

fn job(number: u128, attempt: u32) -> JobMessage {
    let dockerfile = "FROM scratch".to_owned();
    JobMessage {
        version: VERSION,
        job: JobId::from_uuid(Uuid::from_u128(number)),
        attempt: AttemptNumber::new(attempt),
        organization: OrganizationId::from_uuid(Uuid::from_u128(1)),
        snapshot: SnapshotId::from_uuid(Uuid::from_u128(2)),
        region: "us".parse().unwrap(),
        class: Class::Cpu,
        spec: JobSpec::Build(BuildSpec {
            dockerfile,
            contexts: vec![],
            context_filtered: false,
            build_args: Default::default(),
            target: None,
            no_cache: false,
            labels: Default::default(),
            platform: "linux/amd64".into(),
        }),
        contexts: vec![],
        registries: vec![],
        time_limit_seconds: 60,
    }
}

fn simulated(file: File) -> Simulated {
    let store = Store::in_memory();
    let authorizer = Arc::new(StaticAuthorizer::new());
    let registry = Registry::new(store.clone(), authorizer, Options::default());
    Simulated { plan: file.try_into().unwrap(), store, registry }
}

/// Runs a job; what came of it, and the lines of its log.
async fn run(executor: &Simulated, job: &JobMessage) -> (Result<BuiltImage, Failure>, Vec<String>) {
    let (sink, mut entries) = LogSink::channel();
    let collect = async {
        let mut lines = vec![];
        while let Some((_, event)) = entries.recv().await {
            if let LogEvent::Line { text, .. } = event {
                lines.push(text);
            }
        }
        lines
    };
    tokio::join!(executor.execute(job, sink), collect)
}

#[tokio::test]
async fn the_image_can_be_read_back_layer_by_layer() {
    let executor = simulated(File { image_bytes: 10_001, layers: 3, ..File::default() });
    let image = run(&executor, &job(7, 1)).await.0.unwrap();
    let reader = ManifestReader::new(executor.store.clone());
    let platform = "linux/amd64".parse().unwrap();
    let found = reader.image(&image.digest, &platform).await.unwrap();
    assert_eq!(found.manifest.layers.len(), 3);
    assert_eq!(found.compressed_size(), image.size);
    let mut files = 0;
    for layer in &found.manifest.layers {
        let bytes =
            executor.store.get_bytes(&ObjectKey::Blob(layer.digest), 1 << 20).await.unwrap();
        let mut verifier = Verifier::new(layer.digest).size(layer.size);
        verifier.update(&bytes).unwrap();
        verifier.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_ref());
        for entry in archive.entries().unwrap() {
            files += entry.unwrap().size();
        }
    }
    assert_eq!(files, 10_001);
}

#[tokio::test]
async fn images_differ_by_job_unless_they_shall_not() {
    let digest = async |distinct_images, number, attempt| {
        let executor = simulated(File { distinct_images, ..File::default() });
        run(&executor, &job(number, attempt)).await.0.unwrap().digest
    };
    assert_eq!(digest(true, 1, 1).await, digest(true, 1, 1).await);
    assert_ne!(digest(true, 1, 1).await, digest(true, 2, 1).await);
    assert_ne!(digest(true, 1, 1).await, digest(true, 1, 2).await);
    assert_eq!(digest(false, 1, 1).await, digest(false, 2, 2).await);
}

#[tokio::test(start_paused = true)]
async fn lines_are_spread_over_the_duration() {
    let duration = Duration::from_secs(10);
    let executor =
        simulated(File { duration, log_lines: 100, log_line_bytes: 40, ..File::default() });
    let begun = Instant::now();
    let (image, lines) = run(&executor, &job(1, 1)).await;
    image.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(lines.len(), 100);
    assert!(lines.iter().all(|line| line.len() == 40), "{lines:?}");
    assert!(lines[99].starts_with("#1 line 99 "), "{}", lines[99]);
}

#[tokio::test(start_paused = true)]
async fn a_rate_of_lines_makes_the_job_longer() {
    let executor = simulated(File { log_lines: 101, log_rate: Some(10.0), ..File::default() });
    let begun = Instant::now();
    let (image, lines) = run(&executor, &job(1, 1)).await;
    image.unwrap();
    assert_eq!((begun.elapsed().as_secs(), lines.len()), (10, 101));
}

#[test]
fn the_shares_are_kept_and_a_job_always_goes_the_same_way() {
    let file = File {
        duration: Duration::from_secs(10),
        spread: Duration::from_secs(5),
        failures: 0.25,
        outages: 0.1,
        ..File::default()
    };
    let plan = Plan::try_from(file).unwrap();
    let jobs = || (0..4000u128).map(|number| job(number << 64 | number.pow(3), 1));
    let fates: Vec<_> = jobs().map(|job| Fate::of(&plan, &job)).collect();
    assert_eq!(fates, jobs().map(|job| Fate::of(&plan, &job)).collect::<Vec<_>>());
    let count = |kind| fates.iter().filter(|fate| fate.failure == Some(kind)).count();
    let outages = count(FailureKind::BuildkitUnavailable);
    assert!((300..500).contains(&outages), "{outages}");
    let failures = count(FailureKind::RunFailed);
    assert!((800..1000).contains(&failures), "{failures}");
    let seconds = |fate: &Fate| fate.duration.as_secs_f64();
    assert!(fates.iter().all(|fate| (5.0..=15.0).contains(&seconds(fate))));
    assert!(fates.iter().any(|fate| seconds(fate) < 6.0));
    assert!(fates.iter().any(|fate| seconds(fate) > 14.0));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let second = Duration::from_secs(1);
    let bad = [
        (File { spread: second, ..File::default() }, "spread"),
        (File { failures: 1.1, ..File::default() }, "failures"),
        (File { outages: f64::NAN, ..File::default() }, "outages"),
        (File { log_rate: Some(0.0), ..File::default() }, "log_rate"),
        (File { log_line_bytes: 1 << 20, ..File::default() }, "log_line_bytes"),
        (File { layers: 0, ..File::default() }, "layers"),
        (File { image_bytes: 1 << 40, ..File::default() }, "image_bytes"),
    ];
    for (file, key) in bad {
        let error = Plan::try_from(file).unwrap_err().to_string();
        assert!(error.contains(&format!("`executor.simulated.{key}`")), "{error}");
    }
}
