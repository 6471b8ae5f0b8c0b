//! What the tasks of TCP streams count: many writers, once per portion of octets and not per packet.

use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_common::DropReason;

use super::worker_counters::{Sink, Source, WorkerCounters, WorkerSnapshot};

/// Counters of all streams together.
#[derive(Debug)]
pub struct StreamCounters {
    received: AtomicU64,
    received_bytes: AtomicU64,
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    drops: [AtomicU64; DropReason::COUNT],
}

impl Default for StreamCounters {
    fn default() -> Self {
        Self {
            received: AtomicU64::new(0),
            received_bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            sent_bytes: AtomicU64::new(0),
            drops: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }
}

impl StreamCounters {
    /// ESP packets arrived.
    pub fn count_received(&self, packets: u64, bytes: u64) {
        self.received.fetch_add(packets, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// ESP packets were given to the kernel.
    pub fn count_sent(&self, packets: u64, bytes: u64) {
        self.sent.fetch_add(packets, Ordering::Relaxed);
        self.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// ESP packets were dropped on either way.
    pub fn count_drops(&self, reason: DropReason, packets: u64) {
        if let Some(drops) = self.drops.get(reason as usize) {
            drops.fetch_add(packets, Ordering::Relaxed);
        }
    }

    /// All values now, in the form of a worker's.
    pub fn snapshot(&self) -> WorkerSnapshot {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut snapshot = WorkerCounters::default().snapshot();
        snapshot.received[Source::Tcp as usize] = value(&self.received);
        snapshot.received_bytes[Source::Tcp as usize] = value(&self.received_bytes);
        snapshot.sent[Sink::Tcp as usize] = value(&self.sent);
        snapshot.sent_bytes[Sink::Tcp as usize] = value(&self.sent_bytes);
        snapshot.drops = std::array::from_fn(|i| value(&self.drops[i]));
        snapshot
    }
}
