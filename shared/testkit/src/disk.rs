//! A disk whose power can be cut.
//!
//! Owns: an ext4 filesystem in a file, mounted in a mount namespace of its own,
//! and what a power cut does to it: everything that was not synced is gone.
//! Needs root and a loop device.
//! Invariant: nothing is mounted for the rest of the machine, and when the test
//! process ends, in whatever way, the namespace goes and its mount with it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::ioctl::{Opcode, Setter, ioctl, opcode};
use tempfile::TempDir;

use crate::Child;

/// `EXT4_IOC_SHUTDOWN` of the kernel's `fs/ext4/ext4.h`.
const SHUTDOWN: Opcode = opcode::read::<u32>(b'X', 125);
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: without writing the journal, as in a power cut.
const WITHOUT_JOURNAL: u32 = 2;

/// A disk of its own, of which only [`command`](Self::command)s see the mount point.
#[derive(Debug)]
pub struct Disk {
    // The namespace ends before the folder with the image is removed.
    namespace: Child,
    folder: TempDir,
}

impl Disk {
    /// Makes an empty disk of this many MiB and mounts it. Its image is sparse.
    ///
    /// # Panics
    /// If the machine does not let this process mount: with what the tool said.
    pub async fn new(mib: u64) -> Self {
        let folder = TempDir::with_prefix("slipway-disk-").expect("a temporary folder can be made");
        let image = File::create(folder.path().join("image")).expect("the image can be made");
        image.set_len(mib << 20).expect("the image can be made");
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(folder.path().join("image")));
        std::fs::create_dir(folder.path().join("mount")).expect("a folder can be made");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("echo ready; exec sleep infinity");
        let namespace = Child::spawn(command).expect("`unshare` can be started");
        let ready = namespace.output().line(|line| line == "ready").await;
        ready.unwrap_or_else(|ended| panic!("no mount namespace can be had: {ended}"));
        let disk = Self { namespace, folder };
        disk.give_power();
        disk
    }

    /// Where the disk is mounted, for processes that [`command`](Self::command) starts.
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// The same folder for everybody else, for looking at.
    pub fn seen_from_outside(&self) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.namespace.id()));
        root.join(self.path().strip_prefix("/").expect("a temporary folder is absolute"))
    }

    /// A command that sees the disk; otherwise as `Command::new`.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.namespace.id()));
        command.arg("--").arg(program.as_ref());
        command
    }

    /// Cuts the power: from now on nothing is read or written, and what was not
    /// synced before is lost.
    ///
    /// # Panics
    /// If the filesystem refuses.
    pub fn cut_power(&self) {
        let mount = File::open(self.seen_from_outside()).expect("the mount point can be opened");
        shutdown(&mount).expect("ext4 can be shut down");
    }

    /// Mounts what is left after a cut. Every process that had a file open must be dead.
    ///
    /// # Panics
    /// If it cannot be mounted: with what the tool said.
    pub fn restore_power(&self) {
        run(self.command("umount").arg(self.path()));
        self.give_power();
    }

    fn give_power(&self) {
        let image = self.folder.path().join("image");
        run(self.command("mount").args(["-o", "loop"]).arg(image).arg(self.path()));
    }
}

#[expect(unsafe_code, reason = "the only door to the filesystem's shutdown")]
fn shutdown(mount: &File) -> rustix::io::Result<()> {
    // SAFETY: this operation reads one 32-bit number, which is what it is given.
    unsafe { ioctl(mount, Setter::<SHUTDOWN, u32>::new(WITHOUT_JOURNAL)) }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}. Remedy: run as root, with loop devices");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test]
    async fn a_power_cut_loses_what_was_not_synced_and_nothing_else() {
        let disk = Disk::new(64).await;
        assert!(disk.path().read_dir().unwrap().next().is_none(), "nobody else sees the mount");
        let outside = disk.seen_from_outside();
        for (name, synced) in [("kept", true), ("lost", false)] {
            std::fs::write(outside.join(name), name).unwrap();
            if synced {
                File::open(outside.join(name)).unwrap().sync_all().unwrap();
                File::open(&outside).unwrap().sync_all().unwrap();
            }
        }
        disk.cut_power();
        std::fs::write(outside.join("late"), "late").unwrap_err();
        disk.restore_power();
        assert_eq!(std::fs::read_to_string(outside.join("kept")).unwrap(), "kept");
        assert_ne!(std::fs::read_to_string(outside.join("lost")).unwrap_or_default(), "lost");
        assert!(!outside.join("late").exists());
    }
}
