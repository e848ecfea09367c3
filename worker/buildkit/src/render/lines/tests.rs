#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

/// The lines of `chunks`, to the end.
fn lines(chunks: &[&[u8]]) -> Vec<String> {
    let now = Instant::now();
    let mut assembler = LineAssembler::default();
    let mut lines = Vec::new();
    for chunk in chunks {
        assembler.push(chunk, now, |line| lines.push(line.to_owned()));
    }
    assembler.finish(|line| lines.push(line.to_owned()));
    lines
}

fn of(text: &str) -> Vec<String> {
    lines(&[text.as_bytes()])
}

#[test]
fn lines_end_at_line_breaks_and_at_the_end() {
    assert_eq!(of("a\nb\r\n\nc"), ["a", "b", "", "c"]);
    assert!(of("").is_empty());
    assert_eq!(of("\n"), [""]);
}

#[test]
fn only_the_last_state_of_an_overwritten_line_remains() {
    assert_eq!(of("10%\r20%\r100%\ndone\n"), ["100%", "done"]);
    assert_eq!(of("10%\r20%\r"), ["20%"]);
    assert_eq!(of("10%\r\x1b[K20%\n"), ["20%"]);
    assert_eq!(of("10%\x1b[2K\x1b[1G20%\n"), ["20%"]);
    assert_eq!(of("|\x08/\x08-\x08done\n"), ["done"]);
}

#[test]
fn escape_sequences_are_left_out() {
    assert_eq!(of("\x1b[1;31mred\x1b[0m\n"), ["red"]);
    assert_eq!(of("\x1b]0;title\x07text\n"), ["text"]);
    assert_eq!(of("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\\n"), ["link"]);
    assert_eq!(of("\x1bP1$rq\x1b\\x\x1b(By\n"), ["xy"]);
}

#[test]
fn a_sequence_that_never_ends_swallows_no_other_line() {
    assert_eq!(of("a\x1b]0;title\nb\n"), ["a", "b"]);
    assert_eq!(of("a\x1bP1$r\nb\n"), ["a", "b"]);
    assert_eq!(of("a\x1b["), ["a"]);
}

#[test]
fn other_control_characters_are_replaced() {
    assert_eq!(of("a\0b\x07c\x7fd\te\u{9b}f\n"), ["a\u{fffd}b\u{fffd}c\u{fffd}d\te\u{fffd}f"]);
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    assert_eq!(lines(&[b"a\xffb\n"]), ["a\u{fffd}b"]);
    assert_eq!(lines(&[b"a\xe2\x82\nb\n"]), ["a\u{fffd}", "b"]);
    assert_eq!(lines(&[b"a\xe2\x82"]), ["a\u{fffd}"]);
    assert_eq!(lines(&[b"\xe2", b"\x82", b"\xac\n"]), ["€"]);
}

#[test]
fn long_lines_are_split() {
    let long = "é".repeat(MAX_LINE);
    let split = of(&long);
    assert_eq!(split.concat(), long);
    assert!(split.len() == 2 && split.iter().all(|line| line.len() <= MAX_LINE));
    let exact = "x".repeat(MAX_LINE);
    assert_eq!(of(&format!("{exact}\ny")), [exact.as_str(), "y"]);
}

#[test]
fn an_unfinished_line_is_shown_after_a_while() {
    let start = Instant::now();
    let mut assembler = LineAssembler::default();
    let shown = std::cell::RefCell::new(Vec::new());
    let show = |line: &str| shown.borrow_mut().push(line.to_owned());
    assembler.push(b"Password: ", start, show);
    assembler.tick(start + IDLE / 2, show);
    assert!(shown.borrow().is_empty());
    assert_eq!(assembler.next_tick(), Some(start + IDLE));
    assembler.tick(start + IDLE, show);
    assert_eq!(*shown.borrow(), ["Password: "]);
    assert_eq!(assembler.next_tick(), None);
    // Its line break is no line of its own.
    assembler.push(b"\nnext\n", start + IDLE, show);
    assert_eq!(*shown.borrow(), ["Password: ", "next"]);
}

#[test]
fn a_progress_bar_is_shown_now_and_then() {
    let start = Instant::now();
    let mut assembler = LineAssembler::default();
    let mut shown = Vec::new();
    for step in 0..600u32 {
        let now = start + Duration::from_millis(50) * step;
        assembler.push(format!("\r{step}").as_bytes(), now, |line| shown.push(line.to_owned()));
        assembler.tick(now, |line| shown.push(line.to_owned()));
    }
    assert_eq!(shown.len(), 5, "thirty seconds without a pause: {shown:?}");
}

/// Bytes that are likely to mean something to the assembler.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => "[a-z é€\u{1f980}]{0,6}".prop_map(String::into_bytes),
        2 => Just(b"\n".to_vec()),
        1 => Just(b"\r".to_vec()),
        1 => Just(b"\x1b[31m".to_vec()),
        1 => Just(b"\x1b[2K".to_vec()),
        1 => Just(b"\x1b]0;t\x07".to_vec()),
        1 => Just(b"\x1b]8;;x\x1b\\".to_vec()),
        1 => Just(b"\x1bP1".to_vec()),
        2 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn cuts_between_chunks_change_nothing(bytes in output(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(lines(&chunks), lines(&[&bytes]));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(lines(&single), lines(&[&bytes]));
    }

    #[test]
    fn no_control_character_comes_through(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for line in lines(&[&bytes]) {
            prop_assert!(!line.contains(|c: char| c.is_control() && c != '\t'), "{:?}", line);
        }
    }

    #[test]
    fn plain_text_is_unchanged(text in "[ -~é€\u{1f980}\n]{0,200}") {
        let mut expected: Vec<&str> = text.split('\n').collect();
        if expected.last() == Some(&"") {
            expected.pop();
        }
        prop_assert_eq!(of(&text), expected);
    }
}
