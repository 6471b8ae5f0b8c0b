//! The arena of replay-window bits: runs of words in one mapping, one size for each window.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_esp::WindowSize;

use super::memory::SharedArray;

/// Hands out runs of words. Freed runs are kept for the next SA with a window of that size.
pub(super) struct Arena {
    words: Arc<SharedArray<AtomicU64>>,
    next: usize,
    /// Freed starts, by the power of two that is the run's length.
    free: [Vec<u32>; 11],
}

/// The bits of one window.
#[derive(Clone)]
pub(super) struct WindowBits {
    words: Arc<SharedArray<AtomicU64>>,
    range: Range<usize>,
}

impl Arena {
    /// Address space for `slots` of the largest window. Memory is used as windows are.
    pub(super) fn new(slots: u32) -> io::Result<Self> {
        let words = SharedArray::anonymous(c"portcullis-window", slots as usize * WindowSize::MAX.words())?;
        Ok(Self { words: Arc::new(words), next: 0, free: Default::default() })
    }

    /// Zeroed bits for a window, or none for `None`; `None` if the arena has no run of that length left.
    pub(super) fn allocate(&mut self, size: Option<WindowSize>) -> Option<WindowBits> {
        let len = size.map_or(0, WindowSize::words);
        let start = match self.free.get_mut(len.trailing_zeros() as usize).and_then(Vec::pop) {
            Some(start) => start as usize,
            None => {
                let start = self.next;
                self.next = start.checked_add(len).filter(|end| *end <= self.words.len())?;
                start
            }
        };
        let bits = WindowBits { words: Arc::clone(&self.words), range: start..start + len };
        bits.words().iter().for_each(|word| word.store(0, Ordering::Relaxed));
        Some(bits)
    }

    /// Takes the bits of an SA back that nobody uses any more.
    pub(super) fn release(&mut self, bits: &WindowBits) {
        let len = bits.range.len();
        if let Some(free) = self.free.get_mut(len.trailing_zeros() as usize)
            && len > 0
        {
            free.push(bits.range.start as u32);
        }
    }
}

impl WindowBits {
    pub(super) fn words(&self) -> &[AtomicU64] {
        self.words.get(self.range.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_never_overlap_and_come_back_clean() {
        let mut arena = Arena::new(4).unwrap();
        let sizes = [64, 65536, 4096, 64].map(|packets| WindowSize::new(packets).unwrap());
        let windows = sizes.map(|size| arena.allocate(Some(size)).unwrap());
        for (window, size) in windows.iter().zip(sizes) {
            assert_eq!(window.words().len(), size.words());
            assert!(window.words().iter().all(|word| word.swap(u64::MAX, Ordering::Relaxed) == 0));
        }
        arena.release(&windows[2]);
        let again = arena.allocate(Some(sizes[2])).unwrap();
        assert_eq!(again.range, windows[2].range);
        assert!(again.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn an_arena_without_room_says_so_and_no_window_needs_none() {
        let mut arena = Arena::new(1).unwrap();
        assert!(arena.allocate(Some(WindowSize::MAX)).is_some());
        assert!(arena.allocate(Some(WindowSize::MIN)).is_none());
        let none = arena.allocate(None).unwrap();
        assert!(none.words().is_empty());
        arena.release(&none);
        assert!(arena.allocate(Some(WindowSize::MIN)).is_none());
    }
}
