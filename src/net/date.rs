//! Dates as the headers of HTTP have them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the seconds from `now` to the date in a header: less than zero for an earlier one, `None` if it is no date.
pub(crate) fn seconds_until(date: &str, now: SystemTime) -> Option<i64> {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let date = httpdate::parse_http_date(date.trim()).ok()?;
    Some(seconds(date) - seconds(now))
}
