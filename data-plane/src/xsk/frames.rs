//! Free frames: a cache per worker above one pool for all. Each frame goes back to the node whose memory it is.
//!
//! Traffic that enters at one worker and leaves at another moves frames with it; the pool brings them back
//! in batches, so that workers touch shared memory once per batch and not once per packet.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use super::umem::{Frame, Umem};

/// Free frames that no worker holds.
pub struct FramePool {
    /// By slot of their NUMA node.
    small: Vec<ArrayQueue<Frame>>,
    large: Vec<ArrayQueue<Frame>>,
}

/// The free frames of one worker. Large ones are the pool's, since few packets need them.
pub struct FrameCache {
    frames: Vec<Frame>,
    /// Those of other NUMA nodes than the first, by slot less one.
    far: Vec<Vec<Frame>>,
    /// Frames of one slot beyond this go to the pool.
    limit: usize,
    pool: Arc<FramePool>,
}

impl FramePool {
    /// A pool that can hold every frame there is, holding them.
    pub fn new(frames: Vec<Frame>) -> Arc<Self> {
        let slots = frames.iter().map(|frame| frame.slot() + 1).max().unwrap_or(1);
        let queues = |large| {
            let count = |slot| frames.iter().filter(|f| f.slot() == slot && f.is_large() == large).count();
            (0..slots).map(|slot| ArrayQueue::new(count(slot).max(1))).collect()
        };
        let pool = Self { small: queues(false), large: queues(true) };
        frames.into_iter().for_each(|frame| pool.put(frame));
        Arc::new(pool)
    }

    /// A free frame of any node; `None` if the pool is exhausted.
    pub fn take(&self) -> Option<Frame> {
        self.small.iter().find_map(ArrayQueue::pop)
    }

    /// A free frame that holds a packet of `len` bytes behind the headroom, with room for ESP's trailer behind it if there are
    /// frames so large.
    pub fn take_for(&self, umem: &Umem, len: usize) -> Option<Frame> {
        if umem.is_large_packet(len) && umem.has_large() { self.take_large() } else { self.take() }
    }

    /// A free large frame of any node.
    pub fn take_large(&self) -> Option<Frame> {
        self.large.iter().find_map(ArrayQueue::pop)
    }

    /// Gives a frame back.
    pub fn put(&self, frame: Frame) {
        let queues = if frame.is_large() { &self.large } else { &self.small };
        if let Some(queue) = queues.get(frame.slot()) {
            // The queue was made as large as the frames are many.
            let _ = queue.push(frame);
        }
    }

    /// Free small frames in the pool, not counting the caches.
    pub fn len(&self) -> usize {
        self.small.iter().map(ArrayQueue::len).sum()
    }

    /// True if the pool has no small frame.
    pub fn is_empty(&self) -> bool {
        self.small.iter().all(ArrayQueue::is_empty)
    }

    /// Free large frames.
    pub fn large_len(&self) -> usize {
        self.large.iter().map(ArrayQueue::len).sum()
    }

    fn take_near(&self, slot: usize) -> Option<Frame> {
        self.small.get(slot)?.pop()
    }
}

impl FrameCache {
    /// A cache above `pool` that keeps up to `limit` frames of each NUMA node to itself.
    pub fn new(pool: Arc<FramePool>, limit: usize) -> Self {
        let far = (1..pool.small.len()).map(|_| Vec::with_capacity(limit + 1)).collect();
        Self { frames: Vec::with_capacity(limit + 1), far, limit, pool }
    }

    /// A free frame of any node; `None` if cache and pool are exhausted.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.frames.pop().or_else(|| (0..=self.far.len()).find_map(|slot| self.take_near(slot)))
    }

    /// A free frame of a node; `None` if cache and pool have none of it.
    #[inline]
    pub fn take_near(&mut self, slot: usize) -> Option<Frame> {
        let frames = match slot {
            0 => &mut self.frames,
            _ => self.far.get_mut(slot - 1)?,
        };
        if frames.is_empty() {
            let batch = (self.limit / 2).max(1);
            frames.extend(std::iter::from_fn(|| self.pool.take_near(slot)).take(batch));
        }
        frames.pop()
    }

    /// As [`FramePool::take_for`].
    pub fn take_for(&mut self, umem: &Umem, len: usize) -> Option<Frame> {
        if umem.is_large_packet(len) && umem.has_large() { self.take_large() } else { self.take() }
    }

    /// A free large frame; `None` if there is none.
    pub fn take_large(&self) -> Option<Frame> {
        self.pool.take_large()
    }

    /// True if so many frames are free, here or for all.
    pub fn can_take(&self, frames: usize) -> bool {
        self.len() + self.pool.len() >= frames
    }

    /// Gives a frame back.
    #[inline]
    pub fn put(&mut self, frame: Frame) {
        if !frame.is_usual() {
            return self.put_elsewhere(frame);
        }
        if self.frames.len() >= self.limit {
            self.frames.drain(self.limit / 2..).for_each(|frame| self.pool.put(frame));
        }
        self.frames.push(frame);
    }

    #[cold]
    fn put_elsewhere(&mut self, frame: Frame) {
        let far = frame.slot().checked_sub(1).and_then(|slot| self.far.get_mut(slot));
        match far.filter(|frames| !frame.is_large() && frames.len() < self.limit) {
            Some(frames) => frames.push(frame),
            None => self.pool.put(frame),
        }
    }

    /// Free frames in this cache.
    pub fn len(&self) -> usize {
        self.frames.len() + self.far.iter().map(Vec::len).sum::<usize>()
    }

    /// True if the next [`FrameCache::take`] must ask the pool.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.far.iter().all(Vec::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::Share;

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

    #[test]
    fn frames_go_back_to_where_they_came_from() {
        let share = Share { node: None, small: 4, large: 2 };
        let (umem, frames) = Umem::with_shares(&[share, share], 2048).unwrap();
        let pool = FramePool::new(frames);
        let mut cache = FrameCache::new(pool.clone(), 2);
        let near: Vec<_> = std::iter::from_fn(|| cache.take_near(1)).collect();
        assert_eq!((near.len(), near.iter().all(|f| f.slot() == 1 && !f.is_large())), (4, true));
        let long: Vec<_> = std::iter::from_fn(|| cache.take_for(&umem, 5000)).collect();
        assert_eq!((long.len(), long.iter().all(Frame::is_large), pool.large_len()), (4, true, 0));
        near.into_iter().chain(long).for_each(|frame| cache.put(frame));
        assert_eq!((cache.len() + pool.len(), pool.large_len()), (8, 4));
        assert_eq!(std::iter::from_fn(|| cache.take_near(1)).count(), 4);
        assert!(cache.take_for(&umem, 100).is_some_and(|frame| !frame.is_large()));
    }
}
