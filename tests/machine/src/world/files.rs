//! HTTP origins and package archives: directories named after their hosts.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

use hyper::{HeaderMap, Method, header};

use super::State;
use super::http::{Answer, answer};

/// The file at `host` + `path`. Ranges and conditions are not honoured of what a test has published, which a server may do.
pub(super) fn get(state: &State, method: &Method, headers: &HeaderMap, host: &str, path: &str) -> Answer {
    if method != Method::GET && method != Method::HEAD {
        return answer(405, "");
    }
    if let Some(bytes) = state.published.lock().unwrap().get(&format!("{host}{path}")) {
        return answer(200, bytes.clone());
    }
    let file = state.www.join(host).join(path.trim_start_matches('/'));
    if file.components().any(|part| part == Component::ParentDir) {
        return answer(400, "");
    }
    read(&file, headers).unwrap_or_else(|_| answer(404, "not found\n"))
}

/// A file, or the one range of it that is asked for: RFC 9110, section 14.
fn read(path: &Path, headers: &HeaderMap) -> std::io::Result<Answer> {
    let mut file = File::open(path)?;
    let status = file.metadata()?;
    let (length, etag) = (status.len(), format!("\"{:x}-{:x}\"", status.len(), status.mtime()));
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_same = text(header::IF_RANGE).is_none_or(|validator| validator == etag);
    let range = text(header::RANGE).filter(|_| is_same).and_then(|range| {
        let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
        let last = if last.is_empty() { length.saturating_sub(1) } else { last.parse().ok()? };
        Some((first.parse().ok()?, last)).filter(|(first, last)| first <= last && *last < length)
    });
    let (first, count) = range.map_or((0, length), |(first, last): (u64, u64)| (first, last - first + 1));
    file.seek(SeekFrom::Start(first))?;
    let mut bytes = Vec::with_capacity(count as usize);
    file.take(count).read_to_end(&mut bytes)?;
    let mut answer = answer(if range.is_some() { 206 } else { 200 }, bytes);
    answer.headers_mut().insert(header::ETAG, etag.parse().expect("a header"));
    if let Some((first, last)) = range {
        let sent = format!("bytes {first}-{last}/{length}");
        answer.headers_mut().insert(header::CONTENT_RANGE, sent.parse().expect("a header"));
    }
    Ok(answer)
}
