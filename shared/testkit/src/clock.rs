//! A clock that jumps.
//!
//! Owns the clock of those processes that get its environment: Debian's `faketime`
//! shifts what they are told of the time of day. Time that only goes on, as timers use
//! it, is left alone, as it is when a machine's clock is set.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The time of day of some processes.
#[derive(Debug)]
pub struct JumpingClock {
    folder: TempDir,
}

impl JumpingClock {
    /// A clock that goes right.
    ///
    /// # Panics
    /// If no temporary folder can be made.
    #[must_use]
    pub fn right() -> Self {
        let folder = TempDir::with_prefix("slipway-clock-");
        let clock = Self { folder: folder.expect("a temporary folder can be made") };
        clock.set(0);
        clock
    }

    fn offset(&self) -> PathBuf {
        self.folder.path().join("offset")
    }

    /// Sets it to so many seconds ahead of the machine's, or behind.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set(&self, seconds: i64) {
        // In one piece: processes read it at any time.
        let next = self.folder.path().join("next");
        std::fs::write(&next, format!("{seconds:+}s\n")).expect("the file can be written");
        std::fs::rename(next, self.offset()).expect("the file can be written");
    }

    /// The environment of processes that go by this clock.
    ///
    /// # Panics
    /// With the remedy, if `faketime` is not installed.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("LD_PRELOAD", library().display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.offset().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
    }
}

fn library() -> PathBuf {
    let folder = Path::new("/usr/lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    let library = folder.join("faketime/libfaketimeMT.so.1");
    assert!(
        library.exists(),
        "`{}` is missing. Remedy: `deploy/dev/stack deps`, or run the tests by `make test`",
        library.display()
    );
    library
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::process::Command;

    use super::*;

    const HOUR: i64 = 3600;

    /// By how many hours a process is ahead.
    fn ahead(clock: &JumpingClock) -> i64 {
        let mut command = Command::new("date");
        command.args(["-u", "+%s"]).envs(clock.environment());
        let seconds = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let ahead = seconds.trim().parse::<i64>().unwrap() - i64::try_from(now).unwrap();
        (ahead + HOUR / 2).div_euclid(HOUR)
    }

    #[test]
    fn processes_go_by_it() {
        let clock = JumpingClock::right();
        for hours in [0, 30, -2, 0] {
            clock.set(hours * HOUR);
            assert_eq!(ahead(&clock), hours);
        }
    }
}
