//! What a process of this machine takes, by `/proc` (proc(5)).

use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::error::Error;

/// The kernel counts processor time in hundredths of a second, whatever its own
/// clock (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What it took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Usage {
    /// Processors, on average.
    pub(crate) cores: f64,
    /// Memory at the end.
    pub(crate) mebibytes: f64,
}

/// A process that is watched.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    folder: PathBuf,
    ticks: u64,
    since: Instant,
}

impl Process {
    /// Begins to watch. `proc` is `/proc`.
    pub(crate) fn watch(proc: &Path, pid: u32) -> Result<Self, Error> {
        let folder = proc.join(pid.to_string());
        let mut process = Self { pid, folder, ticks: 0, since: Instant::now() };
        process.ticks = process.read("stat", ticks)?;
        Ok(process)
    }

    /// What it took since it is watched.
    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        let seconds = self.since.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let mebibytes = self.memory("VmRSS")? as f64 / f64::from(1 << 20);
        Ok(Usage { cores: self.processor()? / seconds, mebibytes })
    }

    /// Seconds of a processor that it took since it is watched.
    pub(crate) fn processor(&self) -> Result<f64, Error> {
        let ticks = self.read("stat", ticks)?.saturating_sub(self.ticks);
        Ok(ticks as f64 / TICKS)
    }

    /// Memory in bytes, by the name of a line of `status`, as `VmRSS`.
    pub(crate) fn memory(&self, line: &str) -> Result<u64, Error> {
        Ok(self.read("status", |status| memory(status, line))? * 1024)
    }

    fn read(&self, file: &str, find: impl Fn(&str) -> Option<u64>) -> Result<u64, Error> {
        let failed = |source| Error::Process { pid: self.pid, source };
        let text = std::fs::read_to_string(self.folder.join(file)).map_err(failed)?;
        let unknown = || failed(std::io::Error::other(format!("`{file}` has another form")));
        find(&text).ok_or_else(unknown)
    }
}

/// `utime` and `stime` of `stat`, the 14th and 15th field. The second one is the
/// name in brackets, which may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// A line of `status`, in KiB.
fn memory(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 90 0 0 0 120 34 0 0 20 0 9 0 5 6 7";
        assert_eq!(ticks(stat), Some(154));
        assert_eq!(ticks("7 (a"), None);
        let status = "Name:\ta\nVmPeak:\t  9 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(memory(status, "VmRSS"), Some(2048));
        assert_eq!(memory("Name:\ta\n", "VmRSS"), None);
    }

    #[test]
    fn this_process_takes_something() {
        let process = Process::watch(Path::new("/proc"), std::process::id()).unwrap();
        let usage = process.usage().unwrap();
        assert!(usage.mebibytes > 0.5 && usage.cores >= 0.0, "{usage:?}");
        let nowhere = Path::new("/proc/self/no-such-folder");
        assert!(matches!(Process::watch(nowhere, 1), Err(Error::Process { pid: 1, .. })));
    }
}
