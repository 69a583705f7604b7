//! The order of versions; rpm-version(7).

use std::cmp::Ordering;

/// Returns the order of two versions: `[epoch:]version[-release]`. Without an epoch it is 0.
///
/// A release that only one of them has does not count, so that `1.2` is the version of `1.2-3`.
pub fn order(one: &str, other: &str) -> Ordering {
    let ((epoch, version, release), (other_epoch, other_version, other_release)) = (split(one), split(other));
    let of_releases = || match (release, other_release) {
        (Some(release), Some(other)) => order_of_parts(release, other),
        _ => Ordering::Equal,
    };
    order_of_parts(epoch, other_epoch).then_with(|| order_of_parts(version, other_version)).then_with(of_releases)
}

/// Splits a version; `parseEVR` of rpmio/rpmver.cc.
pub fn split(version: &str) -> (&str, &str, Option<&str>) {
    let digits = version.trim_start_matches(|c: char| c.is_ascii_digit());
    let (epoch, rest) = match digits.strip_prefix(':') {
        Some(rest) => (&version[..version.len() - digits.len()], rest),
        None => ("", version),
    };
    let epoch = if epoch.is_empty() { "0" } else { epoch };
    match rest.rsplit_once('-') {
        Some((version, release)) => (epoch, version, Some(release)),
        None => (epoch, rest, None),
    }
}

/// Compares versions or releases by turns a number and a word; rpmio/rpmvercmp.cc.
///
/// `~` is before the end, and `^` after the end, but before everything else. Other characters only separate.
pub fn order_of_parts(mut one: &str, mut other: &str) -> Ordering {
    loop {
        let is_separator = |c: char| !c.is_ascii_alphanumeric() && c != '~' && c != '^';
        (one, other) = (one.trim_start_matches(is_separator), other.trim_start_matches(is_separator));
        let first = (one.chars().next(), other.chars().next());
        let order = match first {
            (Some('~'), Some('~')) | (Some('^'), Some('^')) => {
                (one, other) = (&one[1..], &other[1..]);
                continue;
            }
            (Some('~'), _) | (None, Some('^')) => Ordering::Less,
            (_, Some('~')) | (Some('^'), None) => Ordering::Greater,
            (Some('^'), Some(_)) => Ordering::Less,
            (Some(_), Some('^')) => Ordering::Greater,
            (None, _) | (_, None) => return first.0.is_some().cmp(&first.1.is_some()),
            (Some(c), Some(d)) if c.is_ascii_digit() != d.is_ascii_digit() => {
                c.is_ascii_digit().cmp(&d.is_ascii_digit())
            }
            (Some(c), Some(_)) => {
                let (part, rest) = first_part(one, c.is_ascii_digit());
                let (other_part, other_rest) = first_part(other, c.is_ascii_digit());
                (one, other) = (rest, other_rest);
                if c.is_ascii_digit() { order_of_numbers(part, other_part) } else { part.cmp(other_part) }
            }
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Splits the leading number or word from the rest.
fn first_part(text: &str, is_number: bool) -> (&str, &str) {
    let is_part = |c: char| if is_number { c.is_ascii_digit() } else { c.is_ascii_alphabetic() };
    text.split_at(text.find(|c| !is_part(c)).unwrap_or(text.len()))
}

/// Compares numbers of any length.
fn order_of_numbers(one: &str, other: &str) -> Ordering {
    let (one, other) = (one.trim_start_matches('0'), other.trim_start_matches('0'));
    one.len().cmp(&other.len()).then_with(|| one.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of rpm's own tests/rpmvercmp.at, and a sign for what rpm says.
    const CASES: &str = "
1.0 = 1.0
1.0 < 2.0
2.0.1 = 2.0.1
2.0 < 2.0.1
2.0.1a = 2.0.1a
2.0.1a > 2.0.1
5.5p1 = 5.5p1
5.5p1 < 5.5p2
5.5p10 = 5.5p10
5.5p1 < 5.5p10
10xyz < 10.1xyz
xyz10 = xyz10
xyz10 < xyz10.1
xyz.4 = xyz.4
xyz.4 < 8
xyz.4 < 2
5.5p2 < 5.6p1
5.6p1 < 6.5p1
6.0.rc1 > 6.0
10b2 > 10a1
10a2 < 10b2
1.0aa = 1.0aa
1.0a < 1.0aa
10.0001 = 10.0001
10.0001 = 10.1
10.0001 < 10.0039
4.999.9 < 5.0
20101121 = 20101121
20101121 < 20101122
2_0 = 2_0
2.0 = 2_0
a = a
a+ = a+
a+ = a_
+a = +a
+a = _a
+_ = +_
_+ = +_
_+ = _+
+ = _
1.0~rc1 = 1.0~rc1
1.0~rc1 < 1.0
1.0~rc1 < 1.0~rc2
1.0~rc1~git123 = 1.0~rc1~git123
1.0~rc1~git123 < 1.0~rc1
1.0^ = 1.0^
1.0^ > 1.0
1.0^git1 = 1.0^git1
1.0^git1 > 1.0
1.0^git1 < 1.0^git2
1.0^git1 < 1.01
1.0^20160101 = 1.0^20160101
1.0^20160101 < 1.0.1
1.0^20160101^git1 = 1.0^20160101^git1
1.0^20160102 > 1.0^20160101^git1
1.0~rc1^git1 = 1.0~rc1^git1
1.0~rc1^git1 > 1.0~rc1
1.0^git1~pre = 1.0^git1~pre
1.0^git1 > 1.0^git1~pre
1b.fc17 = 1b.fc17
1b.fc17 < 1.fc17
1g.fc17 = 1g.fc17
1g.fc17 > 1.fc17
1.1.α = 1.1.α
1.1.α = 1.1.β
1.1.αα = 1.1.α
1.1.α = 1.1.ββ
1.1.ββ = 1.1.αα
";

    #[test]
    fn parts_have_the_order_of_rpm() {
        let mut count = 0;
        for case in CASES.lines().filter(|line| !line.is_empty()) {
            let mut words = case.split(' ');
            let (one, sign, other) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let order = match sign {
                "<" => Ordering::Less,
                ">" => Ordering::Greater,
                _ => Ordering::Equal,
            };
            assert_eq!((order_of_parts(one, other), order_of_parts(other, one)), (order, order.reverse()), "{case}");
            count += 1;
        }
        assert_eq!(count, 68);
    }

    #[test]
    fn a_version_is_split_as_rpm_does() {
        for (version, parts) in [
            ("1.2", ("0", "1.2", None)),
            ("1.2-3.amzn2023", ("0", "1.2", Some("3.amzn2023"))),
            ("4:1.2-3", ("4", "1.2", Some("3"))),
            (":1.2-3", ("0", "1.2", Some("3"))),
            ("1-2-3", ("0", "1-2", Some("3"))),
            ("1a:2", ("0", "1a:2", None)),
            ("", ("0", "", None)),
        ] {
            assert_eq!(split(version), parts, "{version}");
        }
    }

    #[test]
    fn the_epoch_is_compared_before_version_and_release() {
        for (one, other, expected) in [
            ("1:1.0-1", "2.0-9", Ordering::Greater),
            ("0:1.0-1", "1.0-1", Ordering::Equal),
            ("1.0-1", "1.0-2", Ordering::Less),
            ("1.0", "1.0-2", Ordering::Equal),
            ("1.1", "1.0-2", Ordering::Greater),
            ("1.0-1.amzn2023", "1.0-1.amzn2023.0.2", Ordering::Less),
            ("10:1-1", "9:1-1", Ordering::Greater),
        ] {
            assert_eq!((order(one, other), order(other, one)), (expected, expected.reverse()), "{one} {other}");
        }
    }
}
