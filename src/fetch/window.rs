//! How many downloads go on at once: more as long as all goes well, fewer when a server or the way to it has enough.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The first ones; like TCP's, the window doubles with each round trip from here.
pub(super) const INITIAL_PLACES: usize = 24;
const MAX_PLACES: usize = 256;
const MIN_PLACES: usize = 4;

/// The downloads that go on at once.
#[derive(Debug)]
pub(super) struct Window {
    places: Semaphore,
    /// How many places there should be, and how many there are: one that is taken can't be removed.
    width: AtomicUsize,
    made: AtomicUsize,
}

impl Window {
    /// Empty.
    pub(super) fn new() -> Self {
        let width = || AtomicUsize::new(INITIAL_PLACES);
        Self { places: Semaphore::new(INITIAL_PLACES), width: width(), made: width() }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> WindowPlace<'_> {
        WindowPlace { window: self, permit: self.places.acquire().await.ok() }
    }

    /// One more place, for a download that succeeded, if there are fewer than `most`.
    pub(super) fn widen(&self, most: usize) {
        if self.width.load(Ordering::Relaxed) < MAX_PLACES.min(most) {
            _ = self.width.fetch_add(1, Ordering::Relaxed);
            _ = self.made.fetch_add(1, Ordering::Relaxed);
            self.places.add_permits(1);
        }
    }

    /// How many places there should be.
    #[cfg(test)]
    pub(super) fn width(&self) -> usize {
        self.width.load(Ordering::Relaxed)
    }

    /// Half of the places, for one that failed.
    pub(super) fn narrow(&self) {
        let half = |width: usize| Some((width / 2).max(MIN_PLACES));
        _ = self.width.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }
}

/// A place in the window, until it is dropped.
pub(super) struct WindowPlace<'a> {
    window: &'a Window,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for WindowPlace<'_> {
    fn drop(&mut self) {
        let Window { width, made, .. } = self.window;
        if made.load(Ordering::Relaxed) > width.load(Ordering::Relaxed)
            && let Some(permit) = self.permit.take()
        {
            _ = made.fetch_sub(1, Ordering::Relaxed);
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_no_wider_than_was_said() {
        let window = Window::new();
        for most in [0, INITIAL_PLACES, INITIAL_PLACES + 1, INITIAL_PLACES + 1] {
            window.widen(most);
        }
        assert_eq!((window.width(), window.places.available_permits()), (INITIAL_PLACES + 1, INITIAL_PLACES + 1));
    }

    #[test]
    fn the_window_grows_with_success_and_halves_with_failure() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let window = Window::new();
        for _ in 0..2 * MAX_PLACES {
            window.widen(usize::MAX);
        }
        assert_eq!(window.places.available_permits(), MAX_PLACES);
        for (failures, left) in [(1, 128), (2, 32), (10, MIN_PLACES)] {
            (0..failures).for_each(|_| window.narrow());
            // The places that are too many go as they are left.
            (0..MAX_PLACES).for_each(|_| drop(runtime.block_on(window.enter())));
            assert_eq!(window.places.available_permits(), left);
        }
    }
}
