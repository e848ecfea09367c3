//! What a run found out, for people and for programs.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use jiff::Timestamp;
use serde::Serialize;

use crate::failures::Failures;
use crate::latency::{Latency, Summary};
use crate::timeline::Series;

/// Everything about a run. [`fmt::Display`] is what people read; as JSON it has
/// the fields as they stand here, to which later versions only add.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Form of this report.
    pub version: u32,
    /// Which scenario it was.
    pub scenario: &'static str,
    /// Its plan.
    pub plan: serde_json::Value,
    /// Address of the API.
    pub server: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in seconds, cleaning up not included.
    pub seconds: f64,
    /// Whether it was stopped before it was through.
    pub stopped: bool,
    /// Single numbers.
    pub figures: Vec<Figure>,
    /// Times, in milliseconds.
    pub latencies: Vec<Row>,
    /// Times over the run, for a plot.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Series>,
    /// What went wrong.
    pub failures: Failures,
    /// Snapshots of the run that could not be deleted, and why.
    pub left_behind: Vec<String>,
}

/// A number that was found out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it says.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// Of what, for example `/s`; empty for a count.
    pub unit: &'static str,
}

impl Figure {
    /// How many there are of something.
    #[must_use]
    pub fn count(name: &'static str, count: u64) -> Self {
        Self { name, value: count as f64, unit: "" }
    }

    /// How many a second; 0 if no time went by.
    #[must_use]
    pub fn rate(name: &'static str, count: u64, seconds: f64) -> Self {
        let value = if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Self { name, value, unit: "/s" }
    }
}

/// How long one thing took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What it was.
    pub name: Cow<'static, str>,
    /// Its times.
    #[serde(flatten)]
    pub summary: Summary,
}

impl Report {
    /// A report without findings. `plan` is shown to programs as it is.
    #[must_use]
    pub fn new(scenario: &'static str, plan: &impl Serialize, server: &str) -> Self {
        Self {
            version: 1,
            scenario,
            plan: serde_json::to_value(plan).unwrap_or_default(),
            server: server.to_owned(),
            started_at: Timestamp::now(),
            seconds: 0.0,
            stopped: false,
            figures: vec![],
            latencies: vec![],
            timeline: vec![],
            failures: Failures::default(),
            left_behind: vec![],
        }
    }

    /// Adds times, if there are any.
    pub fn add_latency(&mut self, name: impl Into<Cow<'static, str>>, times: &Latency) {
        let row = |summary| Row { name: name.into(), summary };
        self.latencies.extend(times.summary().map(row));
    }

    /// Whether everything went well, as far as it went.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.failures.count() == 0 && self.left_behind.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stopped = if self.stopped { ", stopped early" } else { "" };
        writeln!(f, "{} against {}, {:.1} s{stopped}", self.scenario, self.server, self.seconds)?;
        for Figure { name, value, unit } in &self.figures {
            let digits = if unit.is_empty() { 0 } else { 2 };
            writeln!(f, "  {name:<22}{value:.digits$}{unit}")?;
        }
        if !self.latencies.is_empty() {
            write!(f, "\n{}", latencies(&self.latencies))?;
        }
        if self.failures.count() > 0 {
            write!(f, "\n{}", failures(&self.failures))?;
        }
        for name in &self.left_behind {
            write!(f, "\nnot deleted: {name}")?;
        }
        Ok(())
    }
}

fn latencies(rows: &[Row]) -> String {
    let mut table = table(&["MILLISECONDS", "COUNT", "P50", "P90", "P99", "MAX"]);
    for Row { name, summary } in rows {
        let times = [summary.p50, summary.p90, summary.p99, summary.max];
        let times = times.map(|time| format!("{time:.1}"));
        table.add_row([name.to_string(), summary.count.to_string()].into_iter().chain(times));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text(&table)
}

fn failures(failures: &Failures) -> String {
    let mut table = table(&["FAILURE", "COUNT", "EXAMPLE"]);
    for (reason, counted) in failures.iter() {
        let example = counted.example.lines().next().unwrap_or_default();
        table.add_row([reason, &counted.count.to_string(), example]);
    }
    text(&table)
}

/// A table without lines, whose rows never wrap: `awk` reads it, too.
fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn text(table: &Table) -> String {
    let mut text = String::new();
    for line in table.lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::failures::Failure;

    fn report() -> Report {
        let mut report = Report::new("builds", &serde_json::json!({ "count": 3 }), "http://s/api");
        report.seconds = 1.5;
        report.figures = vec![Figure::count("active", 2), Figure::rate("active", 2, 1.5)];
        let mut times = Latency::default();
        for millis in [1, 20] {
            times.record(Duration::from_millis(millis));
        }
        report.add_latency("submit", &times);
        report.add_latency("never seen", &Latency::default());
        report
    }

    #[test]
    fn people_get_aligned_columns() {
        let mut report = report();
        assert!(report.is_success());
        let text = report.to_string();
        let wanted = "\
builds against http://s/api, 1.5 s
  active                2
  active                1.33/s

MILLISECONDS  COUNT  P50   P90   P99   MAX
submit            2  1.0  20.0  20.0  20.0
";
        assert_eq!(text, wanted);
        report.failures.add(Failure::new("log", "gap", "first line\nsecond line"));
        report.left_behind.push("loadtest/1/2: why".to_owned());
        assert!(!report.is_success());
        let text = report.to_string();
        assert!(text.contains("log: gap  1      first line\n"), "{text}");
        assert!(text.ends_with("not deleted: loadtest/1/2: why"), "{text}");
    }

    #[test]
    fn programs_get_names_and_numbers() {
        let json = serde_json::to_value(report()).unwrap();
        assert_eq!(json["version"], 1);
        assert_eq!(json["plan"]["count"], 3);
        assert_eq!(json["latencies"][0]["name"], "submit");
        assert_eq!(json["latencies"][0]["count"], 2);
        assert_eq!(json["figures"][1]["unit"], "/s");
        assert_eq!(json["failures"], serde_json::json!({}));
    }

    #[test]
    fn no_time_gives_no_rate() {
        assert_eq!(Figure::rate("x", 3, 0.0).value, 0.0);
    }
}
