//! Parts of a body, as HTTP names them: RFC 9110 section 14.

/// The range of bytes that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    /// The number of the first byte, from 0.
    pub(crate) start: u64,
    /// The number of the byte after the last one; `None` for the end of the body.
    pub(crate) end: Option<u64>,
}

impl Range {
    /// Returns the value of the header `Range`.
    pub(crate) fn header(self) -> String {
        // No caller asks for an empty range, which the header cannot express.
        self.end.map_or_else(|| format!("bytes={}-", self.start), |end| format!("bytes={}-{}", self.start, end - 1))
    }

    /// Returns whether a part with this `Content-Range` is the requested one, of a body of this length.
    pub(crate) fn is_answered_by(self, header: &str, total: Option<u64>) -> bool {
        content_range(header).is_some_and(|sent| {
            Some(sent.total) == total && sent.start == self.start && sent.end == self.end.unwrap_or(sent.total)
        })
    }
}

/// A `Content-Range`: the number of the first byte, the number after the last one, and the length of the whole body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ContentRange {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) total: u64,
}

/// Reads a `Content-Range`; `None` if its unit is not bytes, its total is unknown, or its numbers contradict each
/// other.
pub(crate) fn content_range(value: &str) -> Option<ContentRange> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse::<u64>().ok() } else { None }
    };
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = ContentRange { start: number(first)?, end: number(last)?.checked_add(1)?, total: number(total)? };
    (range.start < range.end && range.end <= range.total).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_inclusive_on_the_wire() {
        assert_eq!(Range { start: 0, end: Some(10) }.header(), "bytes=0-9");
        assert_eq!(Range { start: 7, end: None }.header(), "bytes=7-");
    }

    #[test]
    fn a_part_answers_the_bytes_that_were_asked_for_of_the_whole_that_is_known() {
        let five = Range { start: 5, end: Some(10) };
        let rest = Range { start: 5, end: None };
        for (range, header, total, is_answer) in [
            (five, "bytes 5-9/100", Some(100), true),
            (five, "bytes 4-9/100", Some(100), false),
            (five, "bytes 5-8/100", Some(100), false),
            (five, "bytes 5-10/100", Some(100), false),
            (five, "bytes 5-9/101", Some(100), false),
            (five, "bytes 5-9/99", Some(100), false),
            (five, "bytes 5-9/100", None, false),
            (rest, "bytes 5-99/100", Some(100), true),
            (rest, "bytes 5-98/100", Some(100), false),
        ] {
            assert_eq!(range.is_answered_by(header, total), is_answer, "{range:?}: {header} of {total:?}");
        }
    }

    #[test]
    fn a_content_range_makes_sense_or_is_none() {
        let range = |start, end, total| Some(ContentRange { start, end, total });
        for (value, expected) in [
            ("bytes 0-9/10", range(0, 10, 10)),
            ("bytes 5-9/100", range(5, 10, 100)),
            ("bytes 9-5/100", None),
            ("bytes 5-100/100", None),
            ("bytes */100", None),
            ("bytes 0-9/*", None),
            ("bytes 0-18446744073709551615/18446744073709551615", None),
            ("bytes +0-9/10", None),
            ("bytes 0-99999999999999999999/10", None),
            ("items 0-9/10", None),
            ("", None),
        ] {
            assert_eq!(content_range(value), expected, "{value}");
        }
    }
}
