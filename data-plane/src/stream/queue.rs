//! Sealed packets on their way to a stream: put in by any worker, taken out by the stream's task.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, RwLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use crossbeam_queue::SegQueue;
use futures::task::AtomicWaker;
use portcullis_common::DropReason;

use super::{PATIENCE, StreamKey};
use crate::counters::StreamCounters;
use crate::sa::PathId;
use crate::worker::work::Packet;
use crate::xsk::{FramePool, Umem};

/// Packets that may wait for one stream.
const PER_STREAM: usize = 512;
/// No path has this number.
const NO_PATH: u64 = u64::MAX;

/// Everything that streams share.
pub struct Streams {
    open: RwLock<HashMap<StreamKey, Weak<StreamQueue>>>,
    next: AtomicU64,
    shared: Arc<SharedByStreams>,
}

/// What queues need of it, also those that outlive their stream.
struct SharedByStreams {
    umem: Arc<Umem>,
    pool: Arc<FramePool>,
    counters: StreamCounters,
    /// Packets in all queues, and how many may be: what is stuck behind slow peers must not starve everybody else.
    queued: AtomicUsize,
    limit: usize,
}

/// Packets that wait for one stream, and what both sides have to know of it.
pub struct StreamQueue {
    key: StreamKey,
    packets: SegQueue<Waiting>,
    len: AtomicUsize,
    is_up: AtomicBool,
    /// Number of the path whose ESP is opened, or [`NO_PATH`].
    accepts: AtomicU64,
    writer: AtomicWaker,
    shared: Arc<SharedByStreams>,
}

/// The addresses of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// A sealed packet, and since when it waits.
pub(super) struct Waiting {
    packet: Packet,
    since: Duration,
}

#[cfg(test)]
impl Streams {
    /// None, and none can be opened.
    pub(crate) fn none() -> Self {
        let (umem, frames) = Umem::new(1, 2048).expect("memory for one frame");
        Self::new(Arc::new(umem), FramePool::new(frames), 0)
    }
}

impl Streams {
    /// No stream yet. At most `limit` packets wait in all queues together.
    pub fn new(umem: Arc<Umem>, pool: Arc<FramePool>, limit: usize) -> Self {
        let (counters, queued) = (StreamCounters::default(), AtomicUsize::new(0));
        let shared = Arc::new(SharedByStreams { umem, pool, counters, queued, limit });
        Self { open: RwLock::default(), next: AtomicU64::new(1), shared }
    }

    /// A stream that is not up yet.
    pub(super) fn open(&self) -> Arc<StreamQueue> {
        let key = StreamKey(self.next.fetch_add(1, Ordering::Relaxed));
        let queue = Arc::new(StreamQueue {
            key,
            packets: SegQueue::new(),
            len: AtomicUsize::new(0),
            is_up: AtomicBool::new(false),
            accepts: AtomicU64::new(NO_PATH),
            writer: AtomicWaker::new(),
            shared: Arc::clone(&self.shared),
        });
        let mut open = self.open.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        open.insert(key, Arc::downgrade(&queue));
        queue
    }

    /// The queue of a stream that has not ended.
    pub fn get(&self, key: StreamKey) -> Option<Arc<StreamQueue>> {
        self.open.read().unwrap_or_else(|poisoned| poisoned.into_inner()).get(&key)?.upgrade()
    }

    /// The stream has ended.
    pub(super) fn close(&self, queue: &StreamQueue) {
        self.open.write().unwrap_or_else(|poisoned| poisoned.into_inner()).remove(&queue.key);
        queue.close();
    }

    /// What all streams have carried and dropped.
    pub fn counters(&self) -> &StreamCounters {
        &self.shared.counters
    }

    /// Where packets are, and free memory for them.
    pub(super) fn frames(&self) -> (&Umem, &FramePool) {
        (&self.shared.umem, &self.shared.pool)
    }
}

impl StreamQueue {
    /// Its name.
    pub fn key(&self) -> StreamKey {
        self.key
    }

    /// Why a packet would not be taken now; `None` if it would.
    pub fn refuses(&self) -> Option<DropReason> {
        let is_full = self.len.load(Ordering::Relaxed) >= PER_STREAM
            || self.shared.queued.load(Ordering::Relaxed) >= self.shared.limit;
        match (self.is_up.load(Ordering::Relaxed), is_full) {
            (false, _) => Some(DropReason::StreamDown),
            (true, true) => Some(DropReason::StreamQueueFull),
            (true, false) => None,
        }
    }

    /// Queues a sealed packet at this time, or gives it back with the reason. Its task is not woken: call
    /// [`StreamQueue::wake`] after the last one.
    ///
    /// # Errors
    /// The stream is down or has too much to carry.
    pub fn push(&self, packet: Packet, now: Duration) -> Result<(), (Packet, DropReason)> {
        if let Some(reason) = self.refuses() {
            return Err((packet, reason));
        }
        self.len.fetch_add(1, Ordering::Relaxed);
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.packets.push(Waiting { packet, since: now });
        // Its end may have come between the look and the push, and found the queue empty.
        fence(Ordering::SeqCst);
        if !self.is_up.load(Ordering::SeqCst) {
            self.drain();
        }
        Ok(())
    }

    /// Wakes the stream's task if it waits for packets.
    pub fn wake(&self) {
        self.writer.wake();
    }

    /// Completes when a packet waits. For the stream's task alone.
    pub(super) fn poll_packets(&self, context: &mut Context<'_>) -> Poll<()> {
        self.writer.register(context.waker());
        if self.packets.is_empty() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Takes the packet that has waited longest.
    pub(super) fn pop(&self) -> Option<Waiting> {
        self.packets.pop()
    }

    /// The octets of a packet that was taken.
    pub(super) fn bytes<'a>(&'a self, waiting: &'a Waiting) -> &'a [u8] {
        waiting.packet.bytes(&self.shared.umem)
    }

    /// Gives the memory of a packet that was taken back.
    pub(super) fn free(&self, waiting: Waiting) {
        self.len.fetch_sub(1, Ordering::Relaxed);
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        self.shared.pool.put(waiting.packet.into_frame());
    }

    /// Drops a packet that was taken.
    pub(super) fn discard(&self, waiting: Waiting, reason: DropReason) {
        self.counters().count_drops(reason, 1);
        self.free(waiting);
    }

    /// What all streams have carried and dropped.
    pub(super) fn counters(&self) -> &StreamCounters {
        &self.shared.counters
    }

    /// Connected: packets are taken from now on.
    pub(super) fn up(&self) {
        self.is_up.store(true, Ordering::SeqCst);
    }

    /// Whose ESP is opened when it arrives.
    pub(super) fn set_accepts(&self, path: Option<PathId>) {
        self.accepts.store(path.map_or(NO_PATH, |path| path.0), Ordering::Relaxed);
    }

    /// See [`StreamQueue::set_accepts`].
    pub(super) fn accepts(&self) -> Option<PathId> {
        Some(self.accepts.load(Ordering::Relaxed)).filter(|path| *path != NO_PATH).map(PathId)
    }

    fn close(&self) {
        self.is_up.store(false, Ordering::SeqCst);
        // Pairs with the look after a push: one of both sees what the other did.
        fence(Ordering::SeqCst);
        self.drain();
    }

    fn drain(&self) {
        while let Some(waiting) = self.packets.pop() {
            self.discard(waiting, DropReason::StreamDown);
        }
    }
}

impl Waiting {
    /// True while it is worth sending.
    pub(super) fn is_fresh(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) <= PATIENCE
    }
}

impl Drop for StreamQueue {
    fn drop(&mut self) {
        self.drain();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::xsk::HEADROOM;

    #[test]
    fn a_stream_takes_packets_while_it_is_up_and_no_more_than_its_share() {
        let bench = Bench::new(PER_STREAM + 88, usize::MAX);
        let queue = bench.streams.open();
        assert_eq!(bench.push(&queue, 0), Err(DropReason::StreamDown));
        queue.up();
        assert_eq!((0..PER_STREAM).filter(|_| bench.push(&queue, 0).is_ok()).count(), PER_STREAM);
        assert_eq!(bench.push(&queue, 0), Err(DropReason::StreamQueueFull));
        bench.streams.close(&queue);
        assert_eq!(bench.push(&queue, 0), Err(DropReason::StreamDown));
        assert!(bench.streams.get(queue.key()).is_none());
        assert_eq!(bench.dropped(DropReason::StreamDown), PER_STREAM as u64);
        assert_eq!(bench.pool.len(), PER_STREAM + 88, "every frame is back");
    }

    #[test]
    fn all_streams_together_hold_no_more_than_their_limit() {
        let bench = Bench::new(100, 10);
        let queues: Vec<_> = (0..3).map(|_| bench.streams.open()).collect();
        queues.iter().for_each(|queue| queue.up());
        for i in 0..10 {
            assert_eq!(bench.push(&queues[i % 3], 0), Ok(()));
        }
        assert_eq!(bench.push(&queues[0], 0), Err(DropReason::StreamQueueFull));
        bench.streams.close(&queues[1]);
        assert_eq!(bench.push(&queues[0], 0), Ok(()));
    }

    #[test]
    fn what_is_pushed_while_a_stream_ends_is_dropped_and_counted() {
        let bench = Bench::new(1000, usize::MAX);
        let queue = bench.streams.open();
        queue.up();
        let accepted = std::thread::scope(|scope| {
            let pushing = scope.spawn(|| (0..500).filter(|_| bench.push(&queue, 0).is_ok()).count());
            bench.streams.close(&queue);
            pushing.join().unwrap()
        });
        assert_eq!(bench.dropped(DropReason::StreamDown), accepted as u64);
        assert_eq!(bench.pool.len(), 1000);
    }

    #[test]
    fn a_task_that_waits_is_woken_by_a_batch() {
        let bench = Bench::new(10, usize::MAX);
        let queue = bench.streams.open();
        queue.up();
        let woken = Arc::new(Woken::default());
        let waker = std::task::Waker::from(woken.clone());
        let mut context = Context::from_waker(&waker);
        assert!(queue.poll_packets(&mut context).is_pending());
        bench.push(&queue, 0).unwrap();
        bench.push(&queue, 0).unwrap();
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        queue.wake();
        queue.wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert!(queue.poll_packets(&mut context).is_ready());
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Streams with their frames.
    pub(in crate::stream) struct Bench {
        pub(in crate::stream) streams: Streams,
        pub(in crate::stream) pool: Arc<FramePool>,
        umem: Arc<Umem>,
    }

    impl Bench {
        pub(in crate::stream) fn new(frames: usize, limit: usize) -> Self {
            let (umem, frames) = Umem::new(frames as u32, 2048).unwrap();
            let (umem, pool) = (Arc::new(umem), FramePool::new(frames));
            Self { streams: Streams::new(umem.clone(), pool.clone(), limit), pool, umem }
        }

        /// A packet of 100 octets with this number, at this time in milliseconds.
        pub(in crate::stream) fn push_at(
            &self,
            queue: &StreamQueue,
            number: u8,
            ms: u64,
        ) -> Result<(), DropReason> {
            let mut frame = self.pool.take().unwrap();
            self.umem.bytes_mut(&mut frame)[HEADROOM..HEADROOM + 100].fill(number);
            let packet = Packet::new(&self.umem, frame, HEADROOM, 100).unwrap();
            queue.push(packet, Duration::from_millis(ms)).map_err(|(packet, reason)| {
                self.pool.put(packet.into_frame());
                reason
            })
        }

        fn push(&self, queue: &StreamQueue, number: u8) -> Result<(), DropReason> {
            self.push_at(queue, number, 0)
        }

        pub(in crate::stream) fn dropped(&self, reason: DropReason) -> u64 {
            self.streams.counters().snapshot().drops[reason as usize]
        }
    }
}
