//! Numbers and times as people read them.

use std::time::Duration;

use jiff::{Timestamp, Unit};

const GIB: f64 = 1_073_741_824.0;

/// `512 B`, `1.5 KB`, `20.0 MB`: powers of 1000, as registries show them.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A size that the API gives in GiB.
pub fn gibibytes(size: Option<f64>) -> String {
    size.map_or_else(|| "-".to_owned(), |size| bytes((size * GIB).round() as u64))
}

/// The same as a number of bytes.
pub fn gibibytes_as_bytes(size: Option<f64>) -> Option<u64> {
    size.map(|size| (size * GIB).round() as u64)
}

/// `0.4 s`, `12.3 s`, `3 min 20 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", time.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `just now`, `5 minutes ago`, `3 days ago`.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    let seconds = (now - then).total(Unit::Second).unwrap_or(0.0).max(0.0) as u64;
    let (count, unit) = match seconds {
        0..5 => return "just now".to_owned(),
        5..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `1 file`, `1,234 files`.
pub fn count(number: u64, unit: &str) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    format!("{grouped} {unit}{}", if number == 1 { "" } else { "s" })
}

/// What is there, or a dash.
pub fn or_dash(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or("-")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use jiff::{Timestamp, ToSpan as _};

    #[test]
    fn sizes_have_three_or_four_digits() {
        for (size, shown) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 KB"),
            (999_960, "1.0 MB"),
            (20_500_000, "20.5 MB"),
        ] {
            assert_eq!(super::bytes(size), shown);
        }
        assert_eq!(super::gibibytes(Some(0.5)), "536.9 MB");
        assert_eq!(super::gibibytes(None), "-");
    }

    #[test]
    fn times_fit_their_length() {
        let shown = |millis| super::duration(Duration::from_millis(millis));
        assert_eq!([shown(420), shown(12_345), shown(200_000)], ["0.4 s", "12.3 s", "3 min 20 s"]);
        let now: Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        assert_eq!(super::ago(now - 1.minute(), now), "1 minute ago");
        assert_eq!(super::ago(now - 47.hours(), now), "1 day ago");
        assert_eq!(super::ago(now + 1.minute(), now), "just now");
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!(super::count(1, "file"), "1 file");
        assert_eq!(super::count(64_369, "file"), "64,369 files");
    }
}
