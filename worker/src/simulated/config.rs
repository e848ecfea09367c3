//! Settings of the simulated executor.

use std::time::Duration;

use serde::Deserialize;
use slipway_runtime::config::Error;

/// The table `executor` of the worker's file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorFile {
    /// Jobs are simulated; the worker needs no BuildKit then.
    pub simulated: Option<File>,
}

/// The table `executor.simulated`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// How long a job takes. Default: 0.
    #[serde(with = "humantime_serde")]
    pub duration: Duration,
    /// How much longer or shorter than `duration` a job may be. Default: 0.
    #[serde(with = "humantime_serde")]
    pub spread: Duration,
    /// Share of the jobs whose build fails, from 0 to 1. Default: 0.
    pub failures: f64,
    /// Share of the attempts that fail for want of infrastructure and are made
    /// again, from 0 to 1. Default: 0.
    pub outages: f64,
    /// Lines that a job writes to its log. Default: 3.
    pub log_lines: u64,
    /// Bytes of each line, its number included. Default: 60.
    pub log_line_bytes: usize,
    /// Lines per second; a job lasts until its lines are written. Default: they
    /// are spread over the duration.
    pub log_rate: Option<f64>,
    /// Bytes of the image's layers together. Default: 4096.
    pub image_bytes: u64,
    /// Layers of the image. Default: 1.
    pub layers: u32,
    /// Whether every job makes an image of its own, as if nothing were cached.
    /// Default: true.
    pub distinct_images: bool,
    /// Whether pulls are simulated like builds; otherwise they are real.
    /// Default: true.
    pub pulls: bool,
}

impl Default for File {
    fn default() -> Self {
        Self {
            duration: Duration::ZERO,
            spread: Duration::ZERO,
            failures: 0.0,
            outages: 0.0,
            log_lines: 3,
            log_line_bytes: 60,
            log_rate: None,
            image_bytes: 4096,
            layers: 1,
            distinct_images: true,
            pulls: true,
        }
    }
}

/// The checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// How long a job takes.
    pub duration: Duration,
    /// How much longer or shorter it may be; at most `duration`.
    pub spread: Duration,
    /// Share of the jobs that fail, from 0 to 1.
    pub failures: f64,
    /// Share of the attempts that fail and are made again, from 0 to 1.
    pub outages: f64,
    /// Lines of a log.
    pub log_lines: u64,
    /// Bytes of each line.
    pub log_line_bytes: usize,
    /// Lines per second, above 0.
    pub log_rate: Option<f64>,
    /// Bytes of the image's layers together, at least one for each.
    pub image_bytes: u64,
    /// Layers, at least one.
    pub layers: u32,
    /// Whether every job makes an image of its own.
    pub distinct_images: bool,
    /// Whether pulls are simulated like builds; otherwise they are real.
    pub pulls: bool,
}

/// Largest image: it is made in memory, layer by layer.
const MAX_LAYER: u64 = 256 << 20;
/// Longest line: the log's own limit.
const MAX_LINE: usize = 16 << 10;

impl TryFrom<File> for Plan {
    type Error = Error;

    fn try_from(file: File) -> Result<Self, Error> {
        let invalid = |key, reason: &str| Err(Error::Invalid { key, reason: reason.to_owned() });
        if file.spread > file.duration {
            return invalid("executor.simulated.spread", "at most `duration`");
        }
        if !(0.0..=1.0).contains(&file.failures) {
            return invalid("executor.simulated.failures", "a share from 0 to 1");
        }
        if !(0.0..=1.0).contains(&file.outages) {
            return invalid("executor.simulated.outages", "a share from 0 to 1");
        }
        if file.log_line_bytes > MAX_LINE {
            return invalid("executor.simulated.log_line_bytes", "at most 16384");
        }
        if file.log_rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
            return invalid("executor.simulated.log_rate", "lines per second, above 0");
        }
        if file.layers == 0 || file.layers > 128 {
            return invalid("executor.simulated.layers", "from 1 to 128");
        }
        if file.image_bytes.div_ceil(file.layers.into()) > MAX_LAYER {
            let reason = "at most 268435456 (256 MiB) for each of `layers`";
            return invalid("executor.simulated.image_bytes", reason);
        }
        Ok(Self {
            duration: file.duration,
            spread: file.spread,
            failures: file.failures,
            outages: file.outages,
            log_lines: file.log_lines,
            log_line_bytes: file.log_line_bytes,
            log_rate: file.log_rate,
            image_bytes: file.image_bytes,
            layers: file.layers,
            distinct_images: file.distinct_images,
            pulls: file.pulls,
        })
    }
}
