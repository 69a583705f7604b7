//! How many downloads go on at once: more as long as all goes well, fewer when a server or the way to it has enough.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The first ones; like TCP's, the window doubles with each round trip from here.
pub(crate) const INITIAL: usize = 24;
const WIDEST: usize = 256;
const NARROWEST: usize = 4;

/// The downloads that go on at once.
#[derive(Debug)]
pub(crate) struct Window {
    places: Semaphore,
    /// How many places there should be, and how many there are: one that is taken can't be removed.
    width: AtomicUsize,
    made: AtomicUsize,
}

impl Window {
    /// Empty.
    pub(crate) fn new() -> Self {
        let width = || AtomicUsize::new(INITIAL);
        Self { places: Semaphore::new(INITIAL), width: width(), made: width() }
    }

    /// Waits for a place.
    pub(crate) async fn enter(&self) -> Place<'_> {
        Place { window: self, permit: self.places.acquire().await.ok() }
    }

    /// One more place, for a download that succeeded, if there are fewer than `most`.
    pub(crate) fn widen(&self, most: usize) {
        if self.width.load(Ordering::Relaxed) < WIDEST.min(most) {
            _ = self.width.fetch_add(1, Ordering::Relaxed);
            _ = self.made.fetch_add(1, Ordering::Relaxed);
            self.places.add_permits(1);
        }
    }

    /// How many places there should be.
    #[cfg(test)]
    pub(crate) fn width(&self) -> usize {
        self.width.load(Ordering::Relaxed)
    }

    /// Half of the places, for one that failed.
    pub(crate) fn narrow(&self) {
        let half = |width: usize| Some((width / 2).max(NARROWEST));
        _ = self.width.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    }
}

/// A place in the window, until it is dropped.
pub(crate) struct Place<'a> {
    window: &'a Window,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Place<'_> {
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
        for most in [0, INITIAL, INITIAL + 1, INITIAL + 1] {
            window.widen(most);
        }
        assert_eq!((window.width(), window.places.available_permits()), (INITIAL + 1, INITIAL + 1));
    }

    #[test]
    fn the_window_grows_with_success_and_halves_with_failure() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let window = Window::new();
        for _ in 0..2 * WIDEST {
            window.widen(usize::MAX);
        }
        assert_eq!(window.places.available_permits(), WIDEST);
        for (failures, left) in [(1, 128), (2, 32), (10, NARROWEST)] {
            (0..failures).for_each(|_| window.narrow());
            // The places that are too many go as they are left.
            (0..WIDEST).for_each(|_| drop(runtime.block_on(window.enter())));
            assert_eq!(window.places.available_permits(), left);
        }
    }
}
