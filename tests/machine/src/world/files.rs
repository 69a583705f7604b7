//! HTTP origins and package archives: directories named after their hosts.

use std::path::Component;

use hyper::Method;

use super::State;
use super::http::{Answer, answer};

/// The file at `host` + `path`; ranges and conditions are not honoured, which a server may do.
pub(super) fn get(state: &State, method: &Method, host: &str, path: &str) -> Answer {
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
    match std::fs::read(file) {
        Ok(bytes) => answer(200, bytes),
        Err(_) => answer(404, "not found\n"),
    }
}
