//! The fuzz targets of what a server says: two headers, and whole answers. See [`crate::fuzz`].

pub mod response;

use std::{
    path::Path,
    str,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use reqwest::header::HeaderMap;

use crate::{
    aws::{
        account::{Account, AwsSettings},
        answer::Element,
        metadata::IdentityDocument,
        refusal::Refusal,
    },
    net::{Network, client::Clients, range, retry, settings::NetworkSettings},
    stop::Interrupt,
    system::{Mode, System, remote::wire},
};

/// A `Content-Range` that is believed makes sense, means what it says, and answers only what was asked.
///
/// The first line is the header. The second line has three numbers: the first byte that was asked for, the byte after the
/// last one, and the length of the whole. Each of the last two is missing where it is no number.
pub fn content_range(bytes: &[u8]) {
    let Ok(input) = str::from_utf8(bytes) else { return };
    let (value, asked) = input.split_once('\n').unwrap_or((input, ""));
    let mut asked = asked.split(' ').map(|number| number.parse().ok());
    let mut next = || asked.next().flatten();
    let (start, end, total) = (next().unwrap_or_default(), next(), next());
    let is_answered_by = |start, end, total| range::Range { start, end }.is_answered_by(value, total);
    let read = range::content_range(value);
    if let Some(range) = &read {
        assert!(range.start < range.end && range.end <= range.total);
        let written = format!("bytes {}-{}/{}", range.start, range.end - 1, range.total);
        let again = range::content_range(&written).map(|again| (again.start, again.end, again.total));
        assert_eq!(again, Some((range.start, range.end, range.total)));
        // Nothing was skipped: but for zeros in front, and spaces around, it stands there.
        let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).map(without_zeros).collect::<Vec<_>>();
        assert_eq!(digits(value.trim()), digits(&written));
        assert!(is_answered_by(range.start, Some(range.end), Some(range.total)));
        assert_eq!(is_answered_by(range.start, None, Some(range.total)), range.end == range.total);
        assert!(!is_answered_by(range.start, Some(range.end), None));
    }
    if is_answered_by(start, end, total) {
        let read = read.map(|range| (range.start, range.end, range.total));
        assert_eq!(read, total.map(|total| (start, end.unwrap_or(total), total)));
    }
}

fn without_zeros(digits: &str) -> String {
    match digits.trim_start_matches('0') {
        "" if !digits.is_empty() => "0".into(),
        rest => rest.into(),
    }
}

/// From 1970 to the year 9999.
const CLOCKS: u64 = 253_402_300_799;

/// A `Retry-After` is seconds, or a date no further away than it says; anything else is none.
///
/// The first line is the header, the second one the time when it arrives, in seconds since 1970.
pub fn retry_after(bytes: &[u8]) {
    let Ok(input) = str::from_utf8(bytes) else { return };
    let (value, clock) = input.split_once('\n').unwrap_or((input, ""));
    let clock = clock.parse::<u64>().unwrap_or_default() % CLOCKS;
    let at = |clock: u64| retry::retry_after(value, SystemTime::UNIX_EPOCH + Duration::from_secs(clock));
    match (value.trim().parse::<u64>(), at(clock)) {
        (Ok(seconds), told) => assert_eq!(told, Some(Duration::from_secs(seconds))),
        (Err(_), Some(pause)) => {
            // A date: it is the later, the earlier it is asked about, and over once it has come.
            assert!(pause.as_secs() <= CLOCKS);
            assert_eq!(at(clock + pause.as_secs()), Some(Duration::ZERO));
            if !pause.is_zero() && clock > 0 {
                assert_eq!(at(clock - 1), Some(pause + Duration::from_secs(1)));
            }
        }
        (Err(_), None) => assert!(at(0).is_none()),
    }
}

/// A system on a tree. It trusts no certificate and gives up soon.
fn system(tree: &Path) -> Result<System> {
    let pace = retry::Pace {
        limit: retry::Limit::Attempts(3),
        first: Duration::ZERO,
        longest: Duration::ZERO,
        obedience: Duration::from_hours(1),
        clock: crate::net::clock::Clock::Simulated(Arc::default()),
    };
    let settings = NetworkSettings { pace, stall_timeout: Duration::from_secs(1), ..NetworkSettings::default() };
    let clients = Clients::trusting(&settings, rustls::RootCertStore::empty())?;
    let account = Account::new(Arc::new(Network::of(settings, clients)), AwsSettings::default());
    let mut system = System::open(tree, Mode::Run, Interrupt::default())?;
    (system.aws, system.fetcher) = wire(Mode::Run, account);
    Ok(system)
}

/// The levels of elements that an answer of AWS may have.
const MAX_LEVELS: usize = 64;

/// An answer of AWS, be it XML or JSON, has 64 levels at most, and a refusal always has a code and a message.
pub fn aws_answer(bytes: &[u8]) {
    fn levels(element: &Element) -> usize {
        1 + element.children.iter().map(levels).max().unwrap_or_default()
    }
    let text = String::from_utf8_lossy(bytes);
    for answer in [Element::of_xml(&text), Element::of_json(&text)].into_iter().flatten() {
        assert!(levels(&answer) <= MAX_LEVELS);
    }
    let refusal = Refusal::read(400, &HeaderMap::new(), &text, SystemTime::now());
    assert!(!refusal.message.is_empty());
}

/// What is read of an identity document stands in it as the text of that field.
pub fn metadata_document(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(identity) = IdentityDocument::read(&text) else { return };
    for name in ["accountId", "region", "instanceId"] {
        if let Ok(fact) = identity.fact(name) {
            let document: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(document.get(name), Some(&fact.into()));
        }
    }
}
