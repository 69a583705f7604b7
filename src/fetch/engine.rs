//! The state that the downloads of a process share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::window::Window;
use crate::{aws::s3::S3, net::Network};

/// The most long bodies that are received at once. Each takes a few hundred KiB of memory.
pub(super) const MAX_STREAMS: usize = 22;

/// The connections of downloads, and the limits of how many run at once.
pub(super) struct Engine {
    pub(super) network: Arc<Network>,
    pub(super) s3: Arc<S3>,
    pub(super) window: Window,
    /// Permits to receive a long body.
    pub(super) streams: Semaphore,
}

impl Engine {
    /// Returns an engine without downloads.
    pub(super) fn new(network: Arc<Network>, s3: Arc<S3>) -> Self {
        Self { network, s3, window: Window::new(), streams: Semaphore::new(MAX_STREAMS) }
    }
}
