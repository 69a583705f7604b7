//! The figures as a picture.
use crate::report::Results;

pub fn svg(_results: &[Results]) -> String {
    String::new()
}
