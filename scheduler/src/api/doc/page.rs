//! The OpenAPI document as a page for people: plain HTML, made once.

use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1b1f24; background: #fff }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #d0d7de }
details { border: 1px solid #d0d7de; border-radius: 6px; margin: .5rem 0; padding: .4rem .8rem }
summary { cursor: pointer } code { font: 14px ui-monospace, monospace }
.method { display: inline-block; min-width: 4.5rem; font-weight: 600; text-transform: uppercase }
table { border-collapse: collapse; width: 100% } td, th { text-align: left; vertical-align: top;
  padding: .2rem .8rem .2rem 0; border-top: 1px solid #eaeef2 }
@media (prefers-color-scheme: dark) { body { color: #e6edf3; background: #0d1117 }
  a { color: #58a6ff } details, h2 { border-color: #30363d } td, th { border-color: #21262d } }";

/// The page.
pub fn render(document: &Value) -> String {
    let mut page = String::new();
    let title = text(&document["info"]["title"]);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} API</title>\
         <style>{STYLE}</style><h1>{title} API {}</h1><p>{}</p>\
         <p>The same for programs: <a href=\"openapi.json\">openapi.json</a></p>",
        text(&document["info"]["version"]),
        text(&document["info"]["description"]),
    );
    for tag in document["tags"].as_array().into_iter().flatten() {
        let name = text(&tag["name"]);
        let _ = write!(page, "<h2>{name}</h2><p>{}</p>", text(&tag["description"]));
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            for (method, operation) in item.as_object().into_iter().flatten() {
                if operation["tags"][0] == tag["name"] {
                    show_operation(&mut page, method, path, operation);
                }
            }
        }
    }
    page.push_str("<h2>Bodies</h2>");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        show_schema(&mut page, name, schema);
    }
    page.push_str("</html>");
    page
}

fn show_operation(page: &mut String, method: &str, path: &str, operation: &Value) {
    let _ = write!(
        page,
        "<details><summary><span class=\"method\">{method}</span><code>{}</code> {}</summary><p>{}</p>",
        escape(path),
        text(&operation["summary"]),
        text(&operation["description"]),
    );
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let rows = parameters.map(|parameter| {
        let place = format!("{}, {}", text(&parameter["in"]), kind(&parameter["schema"]));
        [text(&parameter["name"]), place, text(&parameter["description"])]
    });
    table(page, "Parameter", rows.collect());
    for (media, body) in operation["requestBody"]["content"].as_object().into_iter().flatten() {
        let _ = write!(page, "<p>Body: {} ({})</p>", kind(&body["schema"]), escape(media));
    }
    let answers = operation["responses"].as_object().into_iter().flatten();
    let rows = answers.map(|(status, answer)| {
        let mut bodies = answer["content"].as_object().into_iter().flatten();
        let body = bodies.next().map(|(_, body)| kind(&body["schema"])).unwrap_or_default();
        [escape(status), body, text(&answer["description"])]
    });
    table(page, "Answer", rows.collect());
    page.push_str("</details>");
}

fn show_schema(page: &mut String, name: &str, schema: &Value) {
    let name = escape(name);
    let _ = write!(
        page,
        "<details id=\"{name}\"><summary><code>{name}</code></summary><p>{}</p>",
        text(&schema["description"])
    );
    let is_required = |key: &str| {
        schema["required"].as_array().is_some_and(|keys| keys.iter().any(|one| one == key))
    };
    let rows = schema["properties"].as_object().into_iter().flatten().map(|(key, value)| {
        let optional = if is_required(key) { "" } else { ", optional" };
        [escape(key), format!("{}{optional}", kind(value)), text(&value["description"])]
    });
    table(page, "Key", rows.collect());
    page.push_str("</details>");
}

fn table(page: &mut String, title: &str, rows: Vec<[String; 3]>) {
    if rows.is_empty() {
        return;
    }
    let _ = write!(page, "<table><tr><th>{title}<th>Type<th>Meaning");
    for [name, kind, meaning] in rows {
        let _ = write!(page, "<tr><td><code>{name}</code><td>{kind}<td>{meaning}");
    }
    page.push_str("</table>");
}

/// A schema in a word, with a link where it has a name.
fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escape(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    let variants = ["oneOf", "anyOf", "allOf"].iter().find_map(|key| schema[*key].as_array());
    if let Some(variants) = variants {
        return variants.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let names = match &schema["type"] {
        Value::Array(names) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        name => text(name),
    };
    match names.split(' ').next() {
        Some("array") => format!("{names} of {}", kind(&schema["items"])),
        _ if schema["format"].is_string() => format!("{names} ({})", text(&schema["format"])),
        _ => names,
    }
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
