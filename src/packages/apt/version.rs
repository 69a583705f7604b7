//! The order of versions; deb-version(7).

use std::cmp::Ordering;

/// Returns the order of two versions: `[epoch:]upstream[-revision]`.
pub(crate) fn order(one: &str, other: &str) -> Ordering {
    let ((epoch, upstream, revision), (other_epoch, other_upstream, other_revision)) = (split(one), split(other));
    order_of_numbers(epoch, other_epoch)
        .then_with(|| order_of_parts(upstream, other_upstream))
        .then_with(|| order_of_parts(revision, other_revision))
}

fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Compares by turns a part without digits and a number.
fn order_of_parts(mut one: &str, mut other: &str) -> Ordering {
    while !(one.is_empty() && other.is_empty()) {
        let (text, number, rest) = first(one);
        let (other_text, other_number, other_rest) = first(other);
        let order = order_of_texts(text, other_text).then_with(|| order_of_numbers(number, other_number));
        if order.is_ne() {
            return order;
        }
        (one, other) = (rest, other_rest);
    }
    Ordering::Equal
}

/// Splits the leading part without digits and the number after it from the rest.
fn first(text: &str) -> (&str, &str, &str) {
    let number = text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
    let (before, after) = text.split_at(number);
    let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
    (before, &after[..end], &after[end..])
}

/// Compares character by character: `~` is before the end, the end before letters, letters before all others.
fn order_of_texts(one: &str, other: &str) -> Ordering {
    let weight = |c: Option<char>| match c {
        Some('~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        Some(c) => i64::from(u32::from(c)) + 256,
    };
    let (mut one, mut other) = (one.chars(), other.chars());
    loop {
        let pair = (one.next(), other.next());
        let order = weight(pair.0).cmp(&weight(pair.1));
        if order.is_ne() || pair == (None, None) {
            return order;
        }
    }
}

/// Compares numbers of any length; an empty one is 0.
fn order_of_numbers(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_the_order_of_dpkg() {
        // Each row is in ascending order, as `dpkg --compare-versions` says.
        for row in [
            &[
                "1.0~rc1",
                "1.0",
                "1.0-1",
                "1.0-1+deb12u1",
                "1.0-2",
                "1.0a",
                "1.0+x",
                "1.0.1",
                "1.1",
                "1.10",
                "2",
                "1:0.1",
            ][..],
            &["6.1.0-9-amd64", "6.1.0-10-amd64", "6.12.48+deb13"],
            &["0~~", "0~~a", "0~", "0", "0a"],
            &["18446744073709551615", "18446744073709551616"],
        ] {
            for (index, one) in row.iter().enumerate() {
                for (other_index, other) in row.iter().enumerate() {
                    assert_eq!(order(one, other), index.cmp(&other_index), "{one} {other}");
                }
            }
        }
        for (one, other) in [("1.0", "0:1.0"), ("1.0", "1.0-0"), ("1.01", "1.1"), ("", "0")] {
            assert_eq!(order(one, other), Ordering::Equal, "{one} {other}");
        }
    }
}
