//! What the network side turned away before an endpoint saw it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Counters {
    streams_refused: AtomicU64,
    datagrams_dropped: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct TurnedAway {
    /// TCP streams closed because strangers had too many, or did not say in time where they belong.
    pub streams: u64,
    /// Datagrams dropped because their shard had too many waiting.
    pub datagrams: u64,
}

impl Counters {
    /// A stream was closed.
    pub fn refuse_stream(&self) {
        self.streams_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A datagram was dropped.
    pub fn drop_datagram(&self) {
        self.datagrams_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub fn read(&self) -> TurnedAway {
        TurnedAway {
            streams: self.streams_refused.load(Ordering::Relaxed),
            datagrams: self.datagrams_dropped.load(Ordering::Relaxed),
        }
    }
}
