//! What the processes say about themselves: traces and metrics.

mod collector;
mod metrics;
mod traces;

use slipway_api::types::CreateSnapshot;

use crate::cluster::Plan;

/// Settings of the SDK that send soon.
fn sending_to(url: &str) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "100".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
    ]
}

fn plan(url: &str) -> Plan {
    Plan { env: sending_to(url), ..Plan::default() }
}

fn of_image(name: &str, image: &str) -> CreateSnapshot {
    CreateSnapshot {
        name: name.into(),
        image_name: Some(image.into()),
        region_id: Some("us".into()),
        ..CreateSnapshot::default()
    }
}
