//! Free frames: a cache per worker above one pool for all.
//!
//! Traffic that enters at one worker and leaves at another moves frames with it; the pool brings them back
//! in batches, so that workers touch shared memory once per batch and not once per packet.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::umem::Frame;

/// Free frames that no worker holds.
pub struct FramePool {
    frames: ArrayQueue<Frame>,
}

/// The free frames of one worker.
pub struct FrameCache {
    frames: Vec<Frame>,
    /// Frames beyond this go to the pool.
    limit: usize,
    pool: Arc<FramePool>,
}

impl FramePool {
    /// A pool that can hold every frame there is, holding them.
    pub fn new(frames: Vec<Frame>) -> Arc<Self> {
        let pool = Self { frames: ArrayQueue::new(frames.len().max(1)) };
        frames.into_iter().for_each(|frame| pool.put(frame));
        Arc::new(pool)
    }

    /// A free frame; `None` if the pool is exhausted.
    pub fn take(&self) -> Option<Frame> {
        self.frames.pop()
    }

    /// Gives a frame back.
    pub fn put(&self, frame: Frame) {
        // The queue was made as large as the frames are many.
        let _ = self.frames.push(frame);
    }

    /// Free frames in the pool, not counting the caches.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True if the pool is empty.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

impl FrameCache {
    /// A cache above `pool` that keeps up to `limit` frames to itself.
    pub fn new(pool: Arc<FramePool>, limit: usize) -> Self {
        Self { frames: Vec::with_capacity(limit + 1), limit, pool }
    }

    /// A free frame; `None` if cache and pool are exhausted.
    pub fn take(&mut self) -> Option<Frame> {
        if self.frames.is_empty() {
            let batch = (self.limit / 2).max(1);
            self.frames.extend(std::iter::from_fn(|| self.pool.take()).take(batch));
        }
        self.frames.pop()
    }

    /// True if so many frames are free, here or for all.
    pub fn can_take(&self, frames: usize) -> bool {
        self.frames.len() + self.pool.len() >= frames
    }

    /// Gives a frame back.
    pub fn put(&mut self, frame: Frame) {
        if self.frames.len() >= self.limit {
            self.frames.drain(self.limit / 2..).for_each(|frame| self.pool.put(frame));
        }
        self.frames.push(frame);
    }

    /// Free frames in this cache.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// True if the next [`FrameCache::take`] must ask the pool.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::Umem;

    #[test]
    fn a_worker_that_only_receives_and_one_that_only_sends_exchange_frames_through_the_pool() {
        let (_umem, frames) = Umem::new(64, 2048).unwrap();
        let pool = FramePool::new(frames);
        let (mut a, mut b) = (FrameCache::new(pool.clone(), 16), FrameCache::new(pool.clone(), 16));
        for _ in 0..1000 {
            let batch: Vec<_> = (0..32).map(|_| a.take().expect("b gives every frame back")).collect();
            batch.into_iter().for_each(|frame| b.put(frame));
        }
        assert_eq!(a.len() + b.len() + pool.len(), 64);
    }

    #[test]
    fn exhaustion_is_none_and_ends_when_a_frame_returns() {
        let (_umem, frames) = Umem::new(2, 2048).unwrap();
        let mut cache = FrameCache::new(FramePool::new(frames), 8);
        let (first, second) = (cache.take().unwrap(), cache.take().unwrap());
        assert_eq!(cache.take(), None);
        cache.put(first);
        assert!(cache.take().is_some());
        cache.put(second);
    }
}
