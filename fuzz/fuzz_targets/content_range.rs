//! A `Content-Range` that is believed makes sense, means what it says, and answers only what was asked.
//!
//! An input's first line is the header; the second one has the first byte's number that was asked for, the number after
//! the last one's and the length of the whole, each of the last two missing where it is no number.

#![no_main]

use glovo_bootstrap::system::fetch::fuzz::{content_range, is_answered_by};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &str| {
    let (value, asked) = input.split_once('\n').unwrap_or((input, ""));
    let mut asked = asked.split(' ').map(|number| number.parse().ok());
    let mut next = || asked.next().flatten();
    let (start, end, total) = (next().unwrap_or_default(), next(), next());
    let read = content_range(value);
    if let Some((start, end, total)) = read {
        assert!(start < end && end <= total);
        let written = format!("bytes {start}-{}/{total}", end - 1);
        assert_eq!(content_range(&written), read);
        // Nothing was skipped: but for zeros in front, and spaces around, it stands there.
        let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).map(without_zeros).collect::<Vec<_>>();
        assert_eq!(digits(value.trim()), digits(&written));
        assert!(is_answered_by(start, Some(end), value, Some(total)));
        assert_eq!(is_answered_by(start, None, value, Some(total)), end == total);
        assert!(!is_answered_by(start, Some(end), value, None));
    }
    if is_answered_by(start, end, value, total) {
        assert_eq!(read, total.map(|total| (start, end.unwrap_or(total), total)));
    }
});

fn without_zeros(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" if !digits.is_empty() => "0".into(),
        rest => rest.into(),
    }
}
