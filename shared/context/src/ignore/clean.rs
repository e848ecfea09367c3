//! Trimming and path cleaning with the meaning that Go's `strings.TrimSpace`
//! and `filepath.Clean` have, on bytes: ignore files need not be UTF-8.

/// Drops white space at both ends, Unicode white space included.
pub(super) fn trim(line: &[u8]) -> &[u8] {
    let mut rest = line;
    while let Some(chunk) = rest.utf8_chunks().next() {
        match chunk.valid().chars().next() {
            Some(first) if first.is_whitespace() => rest = &rest[first.len_utf8()..],
            _ => break,
        }
    }
    while let Some(last) = last_char(rest).filter(|last| last.is_whitespace()) {
        rest = &rest[..rest.len() - last.len_utf8()];
    }
    rest
}

fn last_char(bytes: &[u8]) -> Option<char> {
    (1..=bytes.len().min(4)).find_map(|width| {
        let tail = std::str::from_utf8(&bytes[bytes.len() - width..]).ok()?;
        tail.chars().next()
    })
}

/// The shortest path that means the same: no `.`, no `//`, no trailing `/`, and
/// `a/..` resolved by text. The empty path becomes `.`.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let is_rooted = path.starts_with(b"/");
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match kept.last() {
                Some(last) if *last != b".." => {
                    kept.pop();
                }
                None if is_rooted => {}
                _ => kept.push(part),
            },
            _ => kept.push(part),
        }
    }
    let joined = kept.join(&b'/');
    match (is_rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::{clean, trim};

    #[test]
    fn paths_become_as_short_as_they_can_be() {
        for (written, cleaned) in [
            ("a/b", "a/b"),
            ("./a//b/", "a/b"),
            ("a/../b", "b"),
            ("a/b/../../..", ".."),
            ("../../a", "../../a"),
            ("/../a", "/a"),
            ("/", "/"),
            ("", "."),
            ("./", "."),
            ("!../a", "!../a"),
        ] {
            assert_eq!(clean(written.as_bytes()), cleaned.as_bytes(), "{written}");
        }
    }

    #[test]
    fn white_space_goes_at_both_ends_only() {
        assert_eq!(trim(b" \t a b \r"), b"a b");
        assert_eq!(trim("\u{a0}a\u{2003}".as_bytes()), b"a");
        assert_eq!(trim(b"  "), b"");
        assert_eq!(trim(b"\xff a \xff"), b"\xff a \xff");
    }
}
