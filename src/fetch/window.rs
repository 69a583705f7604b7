//! The number of downloads that run at once. It grows with success and halves with each failure.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The places at first. Like TCP's window, the number doubles with each round trip.
pub(super) const INITIAL_PLACES: usize = 24;
const MAX_PLACES: usize = 256;
const MIN_PLACES: usize = 4;

/// The window of downloads that run at once.
#[derive(Debug)]
pub(super) struct Window {
    places: Semaphore,
    /// The number of places that there should be, and that there are. A taken place cannot be removed.
    width: AtomicUsize,
    made: AtomicUsize,
}

impl Window {
    /// Returns a window in which no place is taken.
    pub(super) fn new() -> Self {
        let width = || AtomicUsize::new(INITIAL_PLACES);
        Self { places: Semaphore::new(INITIAL_PLACES), width: width(), made: width() }
    }

    /// Waits for a place.
    pub(super) async fn enter(&self) -> WindowPlace<'_> {
        WindowPlace { window: self, permit: self.places.acquire().await.ok() }
    }

    /// Adds a place after a success, if there are fewer than `most`.
    pub(super) fn widen(&self, most: usize) {
        if self.width.load(Ordering::Relaxed) < MAX_PLACES.min(most) {
            _ = self.width.fetch_add(1, Ordering::Relaxed);
            _ = self.made.fetch_add(1, Ordering::Relaxed);
            self.places.add_permits(1);
        }
    }

    /// Returns the number of places that there should be.
    #[cfg(test)]
    pub(super) fn width(&self) -> usize {
        self.width.load(Ordering::Relaxed)
    }

    /// Halves the number of places after a failure.
    pub(super) fn narrow(&self) {
        let half = |width: usize| Some((width / 2).max(MIN_PLACES));
        _ = self.width.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }
}

/// A taken place in the window. It is free again when this is dropped.
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
            // Surplus places vanish when they are left.
            (0..MAX_PLACES).for_each(|_| drop(runtime.block_on(window.enter())));
            assert_eq!(window.places.available_permits(), left);
        }
    }
}
