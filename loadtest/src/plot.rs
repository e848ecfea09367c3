//! A plot of latencies over time, as SVG.
//!
//! Written by hand: it is two axes and some lines, and a plotting crate with
//! its backends would cost every cold build more than this file has lines.

use std::fmt::Write as _;

use crate::report::Report;
use crate::timeline::Series;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 50.0;
/// Told apart also by those who see colours differently.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#999999", "#555555"];

/// Where things lie: seconds to the right, milliseconds upwards by powers of ten.
struct Axes {
    seconds: f64,
    low: i32,
    high: i32,
}

impl Axes {
    fn of(series: &[Series]) -> Self {
        let points = || series.iter().flat_map(|series| &series.points);
        let seconds = points().map(|point| point.seconds).fold(0.1, f64::max);
        let low = points().map(|point| point.p50).fold(f64::INFINITY, f64::min);
        let high = points().map(|point| point.p99).fold(0.0, f64::max);
        let power = |millis: f64| millis.max(0.001).log10();
        let low = if low.is_finite() { power(low).floor() as i32 } else { 0 };
        Self { seconds, low, high: (power(high).ceil() as i32).max(low + 1) }
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * seconds / self.seconds
    }

    fn y(&self, millis: f64) -> f64 {
        let share =
            (millis.max(0.001).log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * share
    }
}

/// Draws the series of a report: the median as a line, the 99th percentile
/// dashed.
#[must_use]
pub fn svg(report: &Report) -> String {
    let axes = Axes::of(&report.timeline);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let title = format!("{}: latency over time, median and p99 (dashed)", report.scenario);
    text(&mut svg, LEFT, 20.0, "start", &title);
    grid(&mut svg, &axes);
    for (n, series) in report.timeline.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        line(&mut svg, &axes, series, colour, false);
        line(&mut svg, &axes, series, colour, true);
        let (column, row) = ((n % 3) as f64, (n / 3) as f64);
        let (x, y) = (LEFT + column * 270.0, 36.0 + row * 15.0);
        put(
            &mut svg,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"4\" fill=\"{colour}\"/>",
                y - 6.0
            ),
        );
        text(&mut svg, x + 18.0, y, "start", series.name);
    }
    svg.push_str("</svg>\n");
    svg
}

fn grid(svg: &mut String, axes: &Axes) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for power in axes.low..=axes.high {
        let millis = 10f64.powi(power);
        let y = axes.y(millis);
        put(
            svg,
            format_args!(
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>"
            ),
        );
        text(svg, LEFT - 6.0, y + 4.0, "end", &format!("{millis} ms"));
    }
    for tenth in 0..=10 {
        let seconds = axes.seconds * f64::from(tenth) / 10.0;
        let x = axes.x(seconds);
        put(
            svg,
            format_args!(
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#eee\"/>"
            ),
        );
        text(svg, x, bottom + 18.0, "middle", &format!("{seconds:.1}"));
    }
    text(svg, LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 10.0, "middle", "seconds");
}

fn line(svg: &mut String, axes: &Axes, series: &Series, colour: &str, is_p99: bool) {
    let points = series.points.iter().fold(String::new(), |mut points, point| {
        let millis = if is_p99 { point.p99 } else { point.p50 };
        // Writing to a string cannot fail.
        let _ = write!(points, "{:.1},{:.1} ", axes.x(point.seconds), axes.y(millis));
        points
    });
    let dashes = if is_p99 { " stroke-dasharray=\"4 3\" stroke-opacity=\"0.7\"" } else { "" };
    put(
        svg,
        format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\"{dashes}/>",
            points.trim_end()
        ),
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    put(
        svg,
        format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"),
    );
}

fn put(svg: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(svg, "{line}");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::timeline::Timeline;

    #[test]
    fn every_point_lies_within_the_picture() {
        let mut timeline = Timeline::default();
        for (second, micros) in [(0, 90), (10, 4_000), (60, 70_000_000)] {
            timeline.record(Duration::from_secs(second), Duration::from_micros(micros));
        }
        let mut report = Report::new("storm", &(), "http://s/api");
        report.timeline = vec![timeline.series("submit → worker < floor"), timeline.series("b")];
        let svg = svg(&report);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(svg.contains("submit → worker &lt; floor"), "{svg}");
        let lines = svg.lines().filter_map(|line| line.strip_prefix("<polyline points=\""));
        let lines: Vec<_> = lines.filter_map(|line| line.split('"').next()).collect();
        assert_eq!(lines.len(), 4);
        for point in lines.iter().flat_map(|line| line.split(' ')) {
            let (x, y) = point.split_once(',').expect("a pair");
            let (x, y): (f64, f64) = (x.parse().expect("x"), y.parse().expect("y"));
            assert!((LEFT..=WIDTH - RIGHT + 0.1).contains(&x), "{point}");
            assert!((TOP..=HEIGHT - BOTTOM).contains(&y), "{point}");
        }
    }

    #[test]
    fn a_report_without_series_still_gives_a_picture() {
        assert!(svg(&Report::new("storm", &(), "http://s/api")).ends_with("</svg>\n"));
    }
}
