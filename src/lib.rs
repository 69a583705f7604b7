//! glovo-bootstrap turns a fresh EC2 machine into a serving one.

pub mod error;
pub mod resource;
pub mod system;
pub mod value;
