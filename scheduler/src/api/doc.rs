//! The description of the API: one OpenAPI document, made from the code, and a
//! page that shows it.
//!
//! Owns what is the same for every operation: errors, security, names. Refuses
//! to describe single endpoints: that stands at their handlers. Invariant: the
//! document needs nothing from elsewhere, and neither does the page.

mod page;

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse};
use serde_json::{Map, Value, json};
use slipway_api::types::ErrorBody;
use utoipa::OpenApi;

use super::absent;

/// What the document says of itself.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Slipway",
        description = "Snapshots for sandboxes: the part of Daytona's API that is about snapshots, \
            under `/api`, and Slipway's own additions under `/api/v1`. Requests show an API key \
            as bearer token."
    ),
    components(schemas(ErrorBody)),
    tags(
        (name = "snapshots", description = "Make, list, read and delete snapshots"),
        (name = "contexts", description = "Upload build contexts"),
        (name = "registries", description = "Credentials of registries, and pushes"),
        (name = "jobs", description = "The jobs that make snapshots"),
        (name = "fleet", description = "Workers, and what goes on in regions"),
        (name = "regions", description = "Where snapshots can be made"),
        (name = "organizations", description = "Who one is, limits and usage"),
        (name = "api-keys", description = "API keys of the organization"),
        (name = "operation", description = "For the operator: keys with the permission `admin`"),
        (name = "server", description = "The server itself"),
        (name = "not offered", description = "Parts of Daytona's API that answer 501")
    )
)]
pub struct Document;

static JSON: LazyLock<(String, String)> = LazyLock::new(|| {
    let document = finish(super::description());
    let text = serde_json::to_string(&document).expect("a JSON value serialises");
    (text, page::render(&document))
});

/// `GET /api/openapi.json`.
pub async fn json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], JSON.0.as_str())
}

/// `GET /api/docs`.
pub async fn page() -> Html<&'static str> {
    Html(JSON.1.as_str())
}

/// Adds to the document what is the same for all.
fn finish(document: utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(document).expect("the document serialises");
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    // The licence is the repository's, not the API's.
    if let Some(info) = document["info"].as_object_mut() {
        info.remove("license");
    }
    document["components"]["securitySchemes"]["key"] =
        json!({ "type": "http", "scheme": "bearer", "description": "An API key" });
    document["security"] = json!([{ "key": [] }]);
    for (method, path) in absent::OPERATIONS {
        document["paths"][path][method] = not_offered(path);
    }
    let paths = document["paths"].as_object_mut().into_iter().flatten();
    for (path, item) in paths {
        let operations = item.as_object_mut().into_iter().flatten();
        for (method, operation) in operations {
            complete(method, path, operation);
        }
    }
    document
}

/// Names an operation uniquely, and gives it the errors that it may answer.
fn complete(method: &str, path: &str, operation: &mut Value) {
    let words = path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: Vec<&str> = std::iter::once(method).chain(words).collect();
    operation["operationId"] = name.join("_").into();
    // `security(())` in the code stands for an endpoint without a key.
    let is_public = operation["security"].as_array().is_some_and(|all| {
        all.is_empty() || all.iter().any(|one| one.as_object().is_some_and(Map::is_empty))
    });
    let mut statuses = vec![400, 404, 503];
    if !is_public {
        statuses.extend([401, 403, 429]);
    }
    if matches!(method, "post" | "put" | "patch" | "delete") {
        statuses.extend([409, 413]);
    }
    for status in statuses {
        let key = status.to_string();
        if operation["responses"].get(&key).is_none() {
            operation["responses"][key] = error(status);
        }
    }
    let answers = operation["responses"].as_object_mut().into_iter().flatten();
    for (status, answer) in answers {
        if answer["description"].as_str().is_none_or(str::is_empty) {
            let status = status.parse::<axum::http::StatusCode>().ok();
            let reason = status.and_then(|status| status.canonical_reason());
            answer["description"] = reason.unwrap_or("Answer").into();
        }
    }
    if let Some(described) = operation["responses"].get_mut("501") {
        *described = error(501);
    }
}

fn error(status: u16) -> Value {
    let status = axum::http::StatusCode::from_u16(status).expect("a status of the table above");
    json!({
        "description": status.canonical_reason().unwrap_or("Error"),
        "content": {
            "application/json": { "schema": { "$ref": "#/components/schemas/ErrorBody" } }
        }
    })
}

fn not_offered(path: &str) -> Value {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| {
            json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
        })
        .collect();
    json!({
        "tags": ["not offered"],
        "summary": "Not offered",
        "parameters": parameters,
        "responses": { "501": {} }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_operation_has_a_name_of_its_own_a_summary_and_described_answers() {
        let document = finish(super::super::description());
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap();
                assert!(names.insert(name.to_owned()), "{method} {path}: {name} twice");
                assert!(operation["summary"].is_string(), "{method} {path} has no summary");
                let answers = operation["responses"].as_object().unwrap();
                for (status, answer) in answers {
                    assert!(answer["description"].is_string(), "{method} {path} {status}");
                }
            }
        }
        for path in ["/api/snapshots", "/api/v1/jobs/{id}", "/api/sandbox", "/api/health"] {
            assert!(document["paths"][path].is_object(), "{path}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = finish(super::super::description());
        let text = document.to_string();
        for part in text.split("\"$ref\":\"#").skip(1) {
            let pointer = &part[..part.find('"').unwrap()];
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        assert!(text.contains("#/components/schemas/Snapshot"));
    }

    #[test]
    fn the_page_shows_every_path_and_loads_nothing() {
        let document = finish(super::super::description());
        let page = page::render(&document);
        for path in document["paths"].as_object().unwrap().keys() {
            assert!(page.contains(&format!("<code>{path}</code>")), "{path}");
        }
        for outside in ["<script", "src=", "http://", "https://", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }
}
