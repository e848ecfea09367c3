//! Snapshots that rest, and come back.

use super::*;

fn days(days: i64) -> Timestamp {
    Timestamp::now() + jiff::SignedDuration::from_hours(24 * days)
}

/// A store in a folder that does what the file `faults` in it says.
fn faulty_store(folder: &std::path::Path) -> slipway_blobstore::Store {
    let faults = folder.join("faults");
    let config = serde_json::json!({
        "url": format!("file://{}", folder.join("store").display()), "faults": faults,
    });
    slipway_blobstore::Store::open(&serde_json::from_value(config).unwrap()).unwrap()
}

#[tokio::test]
async fn an_image_that_cannot_be_looked_for_is_not_made_again() {
    let (_server, bus) = start().await;
    let one = replica(&bus).await;
    let folder = tempfile::tempdir().unwrap();
    let store = faulty_store(folder.path());
    let image = stored_image(&store).await;
    let activity = crate::activity::Activity {
        images: Images::new([("us".parse().unwrap(), store)].into()),
        view: one.view.clone(),
        ledger: one.ledger.clone(),
    };
    let (snapshot, job) = new("a");
    one.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    one.ledger.move_job(job.id, published_as(image)).await.unwrap();
    one.ledger.deactivate(snapshot.id, |_| true).await.unwrap();
    let rests = one.view.records().snapshot(&snapshot.id).unwrap().value.clone();
    for (reference, needed) in [
        (format!("127.0.0.1:5000/{}/snapshots@{image}", snapshot.organization), true),
        (format!("other.example/{}/general@{image}", snapshot.organization), true),
        (
            format!("other.example/{}/snapshots@{image}", OrganizationId::from_uuid(Uuid::nil())),
            false,
        ),
        (format!("h/{}/snapshots@sha256:{}", snapshot.organization, "0".repeat(64)), false),
    ] {
        assert_eq!(crate::images::is_of(&reference, &rests), needed, "{reference}");
    }

    std::fs::write(folder.path().join("faults"), r#"{"fail_percent": 100}"#).unwrap();
    let refused = activity.activate(&rests).await.unwrap_err();
    assert!(matches!(refused, crate::activity::Error::Store(_)), "{refused:?}");
    assert_eq!(one.state(snapshot.id), Some("inactive"));
    std::fs::remove_file(folder.path().join("faults")).unwrap();
    activity.activate(&rests).await.unwrap();
    assert_eq!(one.state(snapshot.id), Some("active"));
    assert_eq!(one.view.records().snapshot(&snapshot.id).unwrap().value.job, job.id);
}

#[tokio::test]
async fn what_nobody_uses_for_two_weeks_rests_and_comes_back() {
    let (_server, bus) = start().await;
    let one = replica(&bus).await;
    let store = slipway_blobstore::Store::in_memory();
    let activity = crate::activity::Activity {
        images: Images::new([("us".parse().unwrap(), store.clone())].into()),
        view: one.view.clone(),
        ledger: one.ledger.clone(),
    };
    let (snapshot, job) = new("idle");
    let id = snapshot.id;
    let organization = slipway_domain::organization::OrganizationRecord::new(
        snapshot.organization,
        "acme".into(),
        Timestamp::now(),
    );
    one.view.accounts_mut().put_organization(organization.clone(), 1);
    one.ledger.create(&snapshot, &job, Naming::Take).await.unwrap();
    activity.look_over(days(99)).await;
    assert_eq!(one.state(id), Some("pending"), "only what is active can be idle");
    one.ledger.move_job(job.id, published()).await.unwrap();
    activity.look_over(days(13)).await;
    assert_eq!(one.state(id), Some("active"));
    activity.look_over(days(15)).await;
    assert_eq!(one.state(id), Some("inactive"));
    activity.look_over(days(99)).await;

    // Its image is not in the store: it is made again, by a job of its own.
    let rests = one.view.records().snapshot(&id).unwrap().value.clone();
    activity.activate(&rests).await.unwrap();
    let again = one.view.records().snapshot(&id).unwrap().value.clone();
    assert_eq!(again.state.name(), "pending");
    assert_ne!(again.job, job.id);
    assert_eq!(one.job_state(again.job), Some("queued"));
    // Asked twice, it is done once.
    activity.activate(&rests).await.unwrap();
    assert_eq!(one.view.records().snapshot(&id).unwrap().value.job, again.job);
    let image = stored_image(&store).await;
    one.ledger.move_job(again.job, published_as(image)).await.unwrap();
    assert_eq!(one.state(id), Some("active"));

    // Its image is there: nothing is made.
    one.ledger.deactivate(id, |_| true).await.unwrap();
    let rests = one.view.records().snapshot(&id).unwrap().value.clone();
    assert_eq!(rests.state.name(), "inactive");
    activity.activate(&rests).await.unwrap();
    let back = one.view.records().snapshot(&id).unwrap().value.clone();
    assert_eq!((back.state.name(), back.job), ("active", again.job));
    assert!(back.last_used_at > again.last_used_at);

    // A suspended organization keeps its snapshots active for a day.
    let mut suspended = organization;
    let suspension = slipway_domain::organization::Suspension {
        since: Timestamp::now(),
        reason: String::new(),
        until: None,
    };
    suspended.suspension = Some(suspension);
    one.view.accounts_mut().put_organization(suspended, 2);
    activity.look_over(Timestamp::now() + jiff::SignedDuration::from_hours(23)).await;
    assert_eq!(one.state(id), Some("active"));
    activity.look_over(days(2)).await;
    assert_eq!(one.state(id), Some("inactive"));
}
