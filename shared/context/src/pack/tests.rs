//! What comes out of the packer, as GNU tar and the `tar` crate see it.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use futures::{StreamExt, TryStreamExt};
use proptest::prelude::{Strategy, prop, proptest};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{CHUNK, Error, Owners, Packed, Packer};
use crate::ignore::IgnoreRules;

fn write(root: &Path, path: impl AsRef<Path>, content: &[u8]) -> PathBuf {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

fn packer(root: &Path, ignore: &str) -> Packer {
    Packer::new(root, IgnoreRules::parse(ignore.as_bytes()).unwrap())
}

fn pack(packer: &Packer) -> (Vec<u8>, Packed) {
    let mut archive = Vec::new();
    let packed = packer.pack(&mut archive, |_| {}).unwrap();
    assert_eq!(packed.digest.size, archive.len() as u64);
    assert_eq!(packed.digest.sha256[..], Sha256::digest(&archive)[..]);
    (archive, packed)
}

/// Names in order, as the `tar` crate reads them.
fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let name = |entry: std::io::Result<tar::Entry<'_, _>>| {
        String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()
    };
    archive.entries().unwrap().map(name).collect()
}

/// Unpacks with GNU tar, failing on any complaint.
fn gnu_extract(archive: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tar = Command::new("tar")
        .args(["-xpf", "-", "--same-owner", "--numeric-owner", "--xattrs", "-C"])
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    let output = tar.wait_with_output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaint.is_empty(), "{complaint}");
    folder
}

/// Everything below a folder: path to (mode with type, seconds, content or target).
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                open.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                fs::read_link(&path).unwrap().into_os_string().into_vec()
            } else if metadata.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let relative = path.strip_prefix(root).unwrap().to_owned();
            found.insert(relative, (metadata.mode(), metadata.mtime(), content));
        }
    }
    found
}

/// A tree with everything that contexts of Daytona's clients lose.
fn awkward_tree() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    let file = write(root, "old", b"from 1970");
    File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    for (name, mode) in [("tool", 0o755), ("setuid", 0o4755), ("setgid", 0o2711), ("none", 0)] {
        let path = write(root, name, name.as_bytes());
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir_all(root.join("empty/nested")).unwrap();
    fs::set_permissions(root.join("empty"), Permissions::from_mode(0o1777)).unwrap();
    write(root, "with spaces/and\nnewline", b"x");
    write(root, "größe/ключ/鍵", b"unicode");
    write(root, OsStr::from_bytes(b"caf\xe9 \xff"), b"latin-1");
    write(root, ["deep"; 60].join("/"), b"ustar cannot say this");
    write(root, "n".repeat(255), b"one long name");
    write(root, "p".repeat(90) + "/" + &"q".repeat(90), b"prefix and name");
    write(root, "big", &vec![7; CHUNK * 2 + 1]);
    write(root, "block", &[1; 512]);
    write(root, "zero", b"");
    symlink("tool", root.join("link")).unwrap();
    symlink("/nowhere/at all", root.join("dangling")).unwrap();
    symlink("../".repeat(60) + "ü", root.join("long link")).unwrap();
    fs::hard_link(root.join("tool"), root.join("tool again")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    folder
}

#[test]
fn gnu_tar_restores_the_tree_as_it_was() {
    let source = awkward_tree();
    let (archive, packed) = pack(&packer(source.path(), ""));
    let copy = gnu_extract(&archive);
    let (before, after) = (tree(source.path()), tree(copy.path()));
    for (path, entry) in &before {
        assert_eq!(after.get(path), Some(entry), "{}", path.display());
    }
    assert_eq!(before.len(), after.len());
    assert_eq!(packed.total.entries, before.len() as u64);
    let (one, other) = (copy.path().join("tool"), copy.path().join("tool again"));
    assert_eq!(fs::metadata(one).unwrap().ino(), fs::metadata(other).unwrap().ino());
}

#[test]
fn extended_attributes_of_users_travel() {
    let source = tempfile::tempdir_in(".").unwrap();
    let path = write(source.path(), "file", b"");
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&path, "user.note", b"two parts", flags).is_err() {
        // The file system of the checkout has none; nothing to carry then.
        return;
    }
    let (archive, _) = pack(&packer(source.path(), ""));
    let mut archive = tar::Archive::new(archive.as_slice());
    let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
    let records = entry.pax_extensions().unwrap().unwrap();
    let record = records.map(Result::unwrap).find(|record| record.key().is_ok());
    assert_eq!(record.unwrap().key_bytes(), b"SCHILY.xattr.user.note");
}

#[test]
fn entries_are_sorted_relative_and_folders_come_first() {
    let source = tempfile::tempdir().unwrap();
    for path in ["b/z", "b/a", "a.txt", "a/x", "c"] {
        write(source.path(), path, b"");
    }
    let (archive, _) = pack(&packer(source.path(), ""));
    assert_eq!(names(&archive), ["a/", "a/x", "a.txt", "b/", "b/a", "b/z", "c"]);
}

#[test]
fn the_same_tree_gives_the_same_bytes() {
    let source = awkward_tree();
    let packer = packer(source.path(), "");
    let (first, packed) = pack(&packer);
    assert_eq!(pack(&packer).0, first);
    assert_eq!(packer.digest(|_| {}).unwrap(), packed);
}

#[test]
fn owners_are_root_unless_asked_for() {
    let source = tempfile::tempdir().unwrap();
    let file = write(source.path(), "file", b"");
    // Without the right to change owners the test still sees its own user.
    let _ = std::os::unix::fs::chown(&file, Some(3_000_000), Some(1234));
    let own = fs::metadata(&file).unwrap();
    let owner = |packer: &Packer| {
        let (archive, _) = pack(packer);
        let mut archive = tar::Archive::new(archive.as_slice());
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        let records = entry.pax_extensions().unwrap();
        let record = records.and_then(|mut records| records.next());
        let big = record.map(|record| record.unwrap().value().unwrap().parse().unwrap());
        let header = entry.header();
        (big.unwrap_or(header.uid().unwrap()), header.gid().unwrap())
    };
    assert_eq!(owner(&packer(source.path(), "")), (0, 0));
    let kept = packer(source.path(), "").owners(Owners::Kept);
    assert_eq!(owner(&kept), (own.uid().into(), own.gid().into()));
}

#[test]
fn ignored_folders_appear_only_above_what_is_brought_back() {
    let source = tempfile::tempdir().unwrap();
    for path in ["a/keep/x", "a/drop/x", "b/x", "c/keep", ".dockerignore", "d e/ü"] {
        write(source.path(), path, b"");
    }
    fs::create_dir(source.path().join("empty")).unwrap();
    let archived = |ignore| names(&pack(&packer(source.path(), ignore)).0);
    assert_eq!(archived("*\n!a/keep\n!d e/*"), ["a/", "a/keep/", "a/keep/x", "d e/", "d e/ü"]);
    assert_eq!(archived("**\n!**/keep"), ["a/", "a/keep/", "a/keep/x", "c/", "c/keep"]);
    assert_eq!(archived("**\n!a/*/**"), ["a/", "a/drop/", "a/drop/x", "a/keep/", "a/keep/x"]);
    assert_eq!(archived("*\n!empty"), ["empty/"]);
    assert_eq!(archived("*"), Vec::<String>::new());
}

#[test]
fn sockets_are_left_out_and_named() {
    let source = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(source.path().join("s")).unwrap();
    let (archive, packed) = pack(&packer(source.path(), ""));
    assert!(names(&archive).is_empty());
    assert_eq!(packed.sockets, [PathBuf::from("s")]);
}

#[test]
fn a_link_whose_first_name_is_ignored_becomes_the_file() {
    let source = tempfile::tempdir().unwrap();
    let file = write(source.path(), "a", b"content");
    fs::hard_link(&file, source.path().join("b")).unwrap();
    let (archive, _) = pack(&packer(source.path(), "a"));
    let copy = gnu_extract(&archive);
    assert_eq!(fs::read(copy.path().join("b")).unwrap(), b"content");
}

#[test]
fn a_missing_context_is_named() {
    let missing = packer(Path::new("/does/not/exist"), "");
    match missing.digest(|_| {}) {
        Err(Error::Root { path, .. }) => assert_eq!(path, Path::new("/does/not/exist")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_that_changes_its_length_meanwhile_is_named() {
    for length in [CHUNK as u64, 4 * CHUNK as u64] {
        let source = tempfile::tempdir().unwrap();
        let path = write(source.path(), "dir/log", &vec![0; CHUNK * 3]);
        let file = File::options().write(true).open(path).unwrap();
        let result = packer(source.path(), "").digest(|progress| {
            if progress.bytes > 0 {
                file.set_len(length).unwrap();
            }
        });
        match result {
            Err(error @ Error::FileChanged { .. }) => {
                assert!(error.is_change());
                assert!(error.to_string().contains("dir/log"));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn the_stream_gives_the_announced_archive() {
    let source = awkward_tree();
    let packer = packer(source.path(), "");
    let (archive, packed) = pack(&packer);
    let chunks: Vec<_> = packer.stream(packed.digest, |_| {}).try_collect().await.unwrap();
    assert_eq!(chunks.concat(), archive);
}

#[tokio::test]
async fn a_change_between_the_passes_ends_the_stream_with_an_error() {
    for content in ["shorter", "of equal length", "longer than it was before at any time"] {
        let source = tempfile::tempdir().unwrap();
        write(source.path(), "a", b"of equal size!!");
        let packer = packer(source.path(), "");
        let announced = packer.digest(|_| {}).unwrap().digest;
        write(source.path(), "a", content.repeat(1000).as_bytes());
        if content.len() == 15 {
            write(source.path(), "a", content.as_bytes());
        }
        let items: Vec<_> = packer.stream(announced, |_| {}).collect().await;
        let sent: usize = items.iter().flatten().map(bytes::Bytes::len).sum();
        assert!((sent as u64) < announced.size);
        assert!(items.last().unwrap().as_ref().unwrap_err().is_change());
    }
}

#[tokio::test]
async fn a_dropped_stream_stops_packing() {
    let source = tempfile::tempdir().unwrap();
    write(source.path(), "big", &vec![0; CHUNK * 40]);
    let packer = packer(source.path(), "");
    let announced = packer.digest(|_| {}).unwrap().digest;
    let (alive, mut gone) = tokio::sync::mpsc::channel::<()>(1);
    let mut stream = packer.stream(announced, move |_| {
        let _ = alive.is_closed();
    });
    stream.next().await.unwrap().unwrap();
    drop(stream);
    // Ends when the packing thread has dropped its observer.
    assert!(gone.recv().await.is_none());
}

fn some_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[abc]", 1..4).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn the_walk_keeps_what_the_rules_keep_and_the_folders_above(
        paths in prop::collection::btree_set(some_path(), 1..12),
        rules in prop::collection::vec("!?([abc*]|\\*\\*)(/([abc*]|\\*\\*)){0,2}", 0..5),
    ) {
        let source = tempfile::tempdir().unwrap();
        for path in &paths {
            // A path that is a folder of another one stays a folder.
            let path = source.path().join(path);
            if fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.is_dir() {
                fs::write(&path, "").unwrap();
            }
        }
        let ignore = rules.join("\n");
        let rules = IgnoreRules::parse(ignore.as_bytes()).unwrap();
        let mut expected = BTreeSet::new();
        for path in tree(source.path()).keys().filter(|path| !rules.is_ignored(path)) {
            let parents = path.ancestors().filter(|path| !path.as_os_str().is_empty());
            expected.extend(parents.map(|path| path.to_str().unwrap().to_owned()));
        }
        let (archive, _) = pack(&packer(source.path(), &ignore));
        let packed = names(&archive).into_iter().map(|name| name.trim_end_matches('/').to_owned());
        assert_eq!(packed.collect::<BTreeSet<_>>(), expected, "{ignore:?}");
    }

    #[test]
    fn any_names_survive_the_way_through_the_archive(
        folder in "\\PC{1,80}", name in "\\PC{1,80}", target in "\\PC{1,300}",
    ) {
        let usable = |name: &str| !name.contains(['/', '\0']) && name.len() < 250
            && name != "." && name != "..";
        if usable(&folder) && usable(&name) {
            let source = tempfile::tempdir().unwrap();
            write(source.path(), format!("{folder}/{name}"), b"content");
            symlink(&target, source.path().join(format!("{folder}/{name}+"))).unwrap();
            let (archive, _) = pack(&packer(source.path(), ""));
            let mut archive = tar::Archive::new(archive.as_slice());
            let mut entries = archive.entries().unwrap();
            let is = |entry: &tar::Entry<'_, _>, path: String| {
                assert_eq!(&*entry.path_bytes(), path.as_bytes());
            };
            is(&entries.next().unwrap().unwrap(), format!("{folder}/"));
            let mut file = entries.next().unwrap().unwrap();
            is(&file, format!("{folder}/{name}"));
            let mut content = String::new();
            file.read_to_string(&mut content).unwrap();
            assert_eq!(content, "content");
            let link = entries.next().unwrap().unwrap();
            assert_eq!(&*link.link_name_bytes().unwrap(), target.as_bytes());
        }
    }
}
