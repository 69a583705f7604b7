//! The places of secrets in a text. All of them are found in the text as it is, and replaced in one pass: a replacement is
//! never searched, and two values that overlap are both removed as a whole.

use std::borrow::Cow;

use super::{Decode, ENCODINGS, MIN_VALUE_BYTES};

/// The place of a secret in a text: its bytes, and its replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HiddenPlace<'a> {
    pub start: usize,
    pub end: usize,
    pub name: &'a str,
}

/// Returns the places of these texts, also of those that overlap. The texts are sorted. None is shorter than the shortest
/// value, so that at each place only those with the same start are compared: there may be ten thousand.
pub(super) fn literal<'a>(text: &[u8], forms: &'a [(String, String)]) -> Vec<HiddenPlace<'a>> {
    let mut places = vec![];
    // Most runs know no secret.
    if forms.is_empty() {
        return places;
    }
    for (start, key) in text.windows(MIN_VALUE_BYTES).enumerate() {
        let first = forms.partition_point(|(form, _)| form.as_bytes() < key);
        let alike = forms[first..].iter().take_while(|(form, _)| form.as_bytes().starts_with(key));
        let found = alike.filter(|(form, _)| text[start..].starts_with(form.as_bytes()));
        places.extend(found.map(|(form, name)| HiddenPlace { start, end: start + form.len(), name }));
    }
    places
}

/// Returns the places of these texts that have a line break inside, as base64 and hexadecimal have.
pub(super) fn wrapped<'a>(text: &str, forms: &'a [(String, String)]) -> Vec<HiddenPlace<'a>> {
    if !text.contains('\n') {
        return vec![];
    }
    let (joined, at) = joined(text.as_bytes());
    let found = literal(&joined, forms).into_iter();
    let found = found.map(|place| HiddenPlace { start: at[place.start], end: at[place.end - 1] + 1, ..place });
    found.collect()
}

/// Returns a text without the line breaks and indents inside of encoded data, and the position of each of its bytes.
fn joined(text: &[u8]) -> (Vec<u8>, Vec<usize>) {
    let (mut joined, mut places) = (Vec::with_capacity(text.len()), Vec::with_capacity(text.len()));
    let mut start = 0;
    while start < text.len() {
        let blanks = text[start..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let end = start + blanks;
        let is_encoded = |byte: Option<&u8>| byte.is_some_and(|byte| is_of_base64(*byte));
        let is_between = is_encoded(text.get(end)) && is_encoded(joined.last());
        if !is_between || !text[start..end].contains(&b'\n') {
            joined.extend(&text[start..end]);
            places.extend(start..end);
        }
        joined.extend(text.get(end));
        places.extend((end < text.len()).then_some(end));
        start = end + 1;
    }
    (joined, places)
}

fn is_of_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/=-_".contains(&byte)
}

/// Returns whether a line is nothing but data in base64 or hexadecimal.
pub(super) fn is_encoded(line: &[u8]) -> bool {
    !line.is_empty() && line.iter().all(|byte| is_of_base64(*byte))
}

/// Returns the places of values of which any character may be encoded. Spaces may be `+`. The values are sorted: at each
/// place, only those with the same first bytes are compared.
pub(super) fn encoded<'a>(text: &str, values: &'a [(String, String)]) -> Vec<HiddenPlace<'a>> {
    let mut places = vec![];
    for (_, decode) in ENCODINGS.into_iter().filter(|(marks, _)| text.contains(*marks)) {
        let (decoded, at) = decoded(text.as_bytes(), decode);
        let is_same = |(byte, wanted): (&u8, u8)| *byte == wanted || (*byte == b'+' && wanted == b' ');
        for (place, key) in decoded.windows(MIN_VALUE_BYTES).enumerate() {
            let rest = &decoded[place..];
            let is_here = |value: &str| rest.len() >= value.len() && rest.iter().zip(value.bytes()).all(is_same);
            let plus = key.iter().position(|byte| *byte == b'+');
            // The order of the values is that of their own bytes. Up to the first `+`, these are known.
            let keys: [Option<&[u8]>; 2] = match plus {
                None => [Some(key), None],
                Some(0) => [Some(b"+"), Some(b" ")],
                Some(plus) => [Some(&key[..plus]), None],
            };
            for key in keys.into_iter().flatten() {
                let begin = values.partition_point(|(value, _)| value.as_bytes() < key);
                let alike = values[begin..].iter().take_while(|(value, _)| value.as_bytes().starts_with(key));
                let found = alike.filter(|(value, _)| value.len() >= MIN_VALUE_BYTES && is_here(value));
                places.extend(found.map(|(value, name)| HiddenPlace {
                    start: at[place],
                    end: at[place + value.len()],
                    name,
                }));
            }
        }
    }
    places
}

/// Returns the decoded bytes of a text, and the position of each in the text. The last position is the text's end.
pub(super) fn decoded(text: &[u8], decode: Decode) -> (Vec<u8>, Vec<usize>) {
    let (mut decoded, mut places) = (vec![], vec![]);
    let mut at = 0;
    while at < text.len() {
        let width = decode(&text[at..], &mut decoded).unwrap_or_else(|| {
            decoded.push(text[at]);
            1
        });
        places.resize(decoded.len(), at);
        at += width;
    }
    places.push(text.len());
    (decoded, places)
}

/// Returns the places where a value is a whole word.
pub(super) fn words<'a>(
    text: &str,
    value: &str,
    name: &'a str,
    known: &[HiddenPlace<'_>],
) -> impl Iterator<Item = HiddenPlace<'a>> {
    let places = text.match_indices(value).map(move |(start, _)| HiddenPlace { start, end: start + value.len(), name });
    places.filter(move |place| is_word(text, place, known))
}

/// Returns whether a place is that of a whole word. What is at a known place is no part of a word.
pub(super) fn is_word(text: &str, place: &HiddenPlace<'_>, known: &[HiddenPlace<'_>]) -> bool {
    let HiddenPlace { start, end, .. } = *place;
    let value = &text[start..end];
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let is_known = |at: usize| known.iter().any(|place| place.start <= at && at < place.end);
    let goes_on = (text[..start].ends_with(is_part) && value.starts_with(is_part) && !is_known(start - 1))
        || (text[end..].starts_with(is_part) && value.ends_with(is_part) && !is_known(end));
    !goes_on
}

/// Returns a text with the replacements at these places. Of places that overlap, all bytes are replaced: by the name of each
/// that is not inside another one.
pub(super) fn without<'a>(text: &'a str, mut places: Vec<HiddenPlace<'_>>) -> Cow<'a, str> {
    if places.is_empty() {
        return text.into();
    }
    places.sort_by_key(|place| (place.start, std::cmp::Reverse(place.end)));
    let mut replaced = String::with_capacity(text.len());
    let (mut done, mut last) = (0, "");
    for HiddenPlace { start, end, name } in places {
        if end <= done {
            continue;
        }
        if start >= done {
            replaced.push_str(&text[done..start]);
            last = "";
        }
        if last != name {
            replaced.push_str(name);
        }
        (done, last) = (end, name);
    }
    (replaced + &text[done..]).into()
}
