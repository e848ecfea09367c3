//! Archives as clients write them, whole, cut and hostile.

#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::process::Command;

use bytes::Bytes;
use flate2::Compression as Level;
use flate2::write::GzEncoder;
use proptest::prelude::{any, prop, proptest};
use sha2::{Digest, Sha256};

use super::{Compression, Error, Scanned, Scanner, scan};
use crate::{IgnoreRules, Packer};

/// A GNU-format archive with these files and no closing blocks.
fn unfinished(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    let mut archive = builder.into_inner().unwrap();
    archive.truncate(archive.len() - 1024);
    archive
}

fn finished(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = unfinished(files);
    archive.extend([0; 1024]);
    archive
}

/// One entry whose header says exactly this.
fn entry(kind: u8, path: &[u8], link: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = [header.as_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Level::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn scanned(archive: &[u8]) -> Result<Scanned, Error> {
    let mut scanner = Scanner::new();
    scanner.push(archive)?;
    scanner.finish()
}

#[test]
fn a_packed_folder_scans_to_the_same_digest() {
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join(".dockerignore"), "target\n").unwrap();
    std::fs::write(source.path().join("größe".repeat(30)), vec![1; 3000]).unwrap();
    let mut archive = Vec::new();
    let packer = Packer::new(source.path(), IgnoreRules::none());
    let packed = packer.pack(&mut archive, |_| {}).unwrap();
    let scanned = scanned(&archive).unwrap();
    assert_eq!(scanned.digest, packed.digest);
    assert_eq!(scanned.entries, packed.total.entries);
    assert_eq!(scanned.dockerignore.as_deref(), Some(&b"target\n"[..]));
    assert_eq!(scanned.completed, None);
}

#[test]
fn archives_of_gnu_tar_are_understood_in_every_format() {
    let source = tempfile::tempdir().unwrap();
    let deep = source.path().join("d".repeat(120)).join("e".repeat(120));
    std::fs::create_dir_all(&deep).unwrap();
    std::fs::write(deep.join("ü"), "content").unwrap();
    std::fs::write(source.path().join(".dockerignore"), "x").unwrap();
    std::os::unix::fs::symlink("/absolute/is/fine/here", source.path().join("link")).unwrap();
    let sparse = std::fs::File::create(source.path().join("sparse")).unwrap();
    for at in 0..40 {
        use std::os::unix::fs::FileExt;
        sparse.write_all_at(b"data", at * 1024 * 1024).unwrap();
    }
    for arguments in ["-cf", "-czf", "-cSf", "-cSzf"] {
        for format in ["gnu", "pax", "posix"] {
            let output = Command::new("tar")
                .arg(format!("--format={format}"))
                .args([arguments, "-", "-C"])
                .arg(source.path())
                .arg(".")
                .output()
                .unwrap();
            assert!(output.status.success());
            let scanned = scanned(&output.stdout).unwrap();
            assert_eq!(scanned.entries, 7, "{format} {arguments}");
            assert_eq!(scanned.dockerignore.as_deref(), Some(&b"x"[..]));
            let gzipped = arguments.contains('z');
            assert_eq!(scanned.compression == Compression::Gzip, gzipped);
            assert_eq!(scanned.completed, None);
        }
    }
}

#[test]
fn an_archive_without_its_end_is_completed() {
    for content in [&b"x"[..], &[1; 512], &[1; 700], b""] {
        let whole = finished(&[(".dockerignore", b"a"), ("last", content)]);
        let end = whole.len() - 1024;
        let padding = content.len().next_multiple_of(512) - content.len();
        for cut in [end - padding, end - padding / 2, end, end + 100] {
            let scanned = scanned(&whole[..cut]).unwrap();
            assert_eq!(scanned.entries, 2);
            assert_eq!(scanned.digest.sha256[..], Sha256::digest(&whole[..cut])[..]);
            let completed = scanned.completed.unwrap();
            assert_eq!(completed.size, whole.len() as u64);
            assert_eq!(completed.sha256[..], Sha256::digest(&whole)[..]);
        }
        // One closing block is enough for every reader.
        assert_eq!(scanned(&whole[..end + 512]).unwrap().completed, None);
        assert_eq!(scanned(&gzip(&whole[..end - padding])).unwrap().completed, None);
    }
}

#[test]
fn an_archive_that_lost_content_is_refused() {
    let whole = finished(&[("first", &[1; 600]), (&"long".repeat(50), b"second")]);
    let lost = |archive: &[u8]| match scanned(archive) {
        Err(Error::Truncated { entry }) => entry,
        other => panic!("{other:?}"),
    };
    assert_eq!(lost(&whole[..512 + 599]).as_deref(), Some("first"));
    assert_eq!(lost(&whole[..300]), None);
    assert_eq!(lost(&whole[..1]), None);
    // Between the long name and the entry that it belongs to.
    assert_eq!(lost(&whole[..512 * 5]), None);
    let cut = gzip(&whole);
    assert!(matches!(
        scanned(&cut[..cut.len() - 9]),
        Err(Error::Gzip(_) | Error::Truncated { .. })
    ));
}

#[test]
fn nothing_is_an_empty_context() {
    let scanned = scanned(b"").unwrap();
    assert_eq!((scanned.entries, scanned.digest.size), (0, 0));
    assert_eq!(scanned.completed.unwrap().size, 1024);
}

#[test]
fn paths_that_lead_outside_are_refused() {
    let pax = |record: &str| entry(b'x', b"h", b"", record.as_bytes());
    for archive in [
        entry(b'0', b"/etc/passwd", b"", b""),
        entry(b'1', b"fine", b"/etc/passwd", b""),
        [pax("17 path=/abs/abs\n"), entry(b'0', b"fine", b"", b"")].concat(),
        [entry(b'L', b"l", b"", b"/long\0"), entry(b'0', b"fine", b"", b"")].concat(),
        gzip(&entry(b'5', b"/", b"", b"")),
    ] {
        assert!(matches!(scanned(&archive), Err(Error::Absolute { .. })));
    }
    for archive in [
        entry(b'0', b"a/../../b", b"", b""),
        entry(b'5', b"..", b"", b""),
        entry(b'1', b"fine", b"../x", b""),
        [pax("15 linkpath=..\n"), entry(b'1', b"fine", b"x", b"")].concat(),
        [pax("11 path=..\n"), entry(b'2', b"fine", b"x", b"")].concat(),
    ] {
        assert!(matches!(scanned(&archive), Err(Error::Escapes { .. })));
    }
    let fine = [entry(b'2', b"link", b"../../anywhere", b""), entry(b'0', b"..a/b..", b"", b"")];
    assert_eq!(scanned(&fine.concat()).unwrap().entries, 2);
}

#[test]
fn the_last_regular_dockerignore_at_the_root_counts() {
    let ignore = |entries: &[Vec<u8>]| scanned(&entries.concat()).unwrap().dockerignore;
    let file = |path: &[u8], content: &[u8]| entry(b'0', path, b"", content);
    assert_eq!(ignore(&[file(b"./.dockerignore", b"a")]).unwrap(), b"a");
    assert_eq!(ignore(&[file(b".dockerignore", b"")]).unwrap(), b"");
    assert_eq!(ignore(&[file(b"sub/.dockerignore", b"a")]), None);
    let twice = [file(b".dockerignore", b"a"), file(b".dockerignore", b"b")];
    assert_eq!(ignore(&twice).unwrap(), b"b");
    let replaced = [file(b".dockerignore", b"a"), entry(b'2', b".dockerignore", b"x", b"")];
    assert_eq!(ignore(&replaced), None);
}

#[test]
fn memory_is_not_at_the_mercy_of_the_archive() {
    let huge = |kind: u8, path: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(1 << 33);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for archive in [huge(b'x', b"h"), huge(b'L', b"h"), huge(b'0', b".dockerignore")] {
        assert!(matches!(scanned(&archive), Err(Error::TooLarge { .. })));
    }
    assert!(matches!(scanned(&huge(b'0', b"big")), Err(Error::Truncated { .. })));
}

#[test]
fn what_is_no_tar_is_refused() {
    assert!(matches!(scanned(&[7; 2000]), Err(Error::Malformed { offset: 0, .. })));
    assert!(matches!(scanned(&gzip(&[7; 2000])), Err(Error::Malformed { .. })));
    assert!(matches!(scanned(b"\x1f\x8b and then nonsense"), Err(Error::Gzip(_))));
    let mut damaged = finished(&[("a", &[1; 600]), ("b", b"")]);
    damaged[512 + 1024] ^= 1;
    assert!(matches!(scanned(&damaged), Err(Error::Malformed { offset, .. }) if offset > 1000));
}

#[tokio::test]
async fn streams_are_scanned_and_their_errors_kept() {
    let archive = finished(&[("a", &[1; 3000])]);
    let pieces: Vec<_> = archive.chunks(100).map(Bytes::copy_from_slice).collect();
    let whole = scan(futures::stream::iter(pieces.clone().into_iter().map(Ok::<_, String>)));
    assert_eq!(whole.await.unwrap(), scanned(&archive).unwrap());
    let cut = [Ok(pieces[0].clone()), Err("connection reset")];
    let result = scan(futures::stream::iter(cut)).await;
    assert!(matches!(result, Err(Error::Read(source)) if source.to_string() == "connection reset"));
}

proptest! {
    #[test]
    fn how_the_bytes_are_cut_makes_no_difference(
        cuts in prop::collection::vec(1_usize..700, 0..20),
        compressed: bool,
        length in 0_usize..2000,
    ) {
        let name = "long".repeat(40);
        let content = vec![b'x'; length];
        let archive = finished(&[(".dockerignore", &content), (&name, &content), ("z", b"")]);
        let archive = if compressed { gzip(&archive) } else { archive };
        let mut scanner = Scanner::new();
        let mut rest = archive.as_slice();
        for cut in cuts {
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            scanner.push(piece).unwrap();
            rest = after;
        }
        scanner.push(rest).unwrap();
        assert_eq!(scanner.finish().unwrap(), scanned(&archive).unwrap());
    }

    #[test]
    fn damage_never_panics(
        at in prop::collection::vec((0_usize..4096, any::<u8>()), 1..8), cut in 0_usize..4096,
    ) {
        let mut archive = finished(&[(".dockerignore", b"x"), (&"n".repeat(200), b"y")]);
        for (at, byte) in at {
            let at = at % archive.len();
            archive[at] = byte;
        }
        archive.truncate(archive.len() - cut % archive.len());
        let _ = scanned(&archive);
    }
}
